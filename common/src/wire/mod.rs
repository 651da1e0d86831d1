//! What travels over AMQP: jobs, events, the state of a task, and routing keys.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Times and ids are arguments.

mod event;
mod job;
mod routing_key;
mod task;

pub use event::{Event, EventError};
pub use job::{Job, JobError, JobProperties, MAX_ID_BYTES, MAX_TITLE_BYTES};
pub use routing_key::{
    Audience, EventClass, EventKey, KeyError, MAX_KEY_BYTES, decode_word, encode_word,
};
pub use task::{Progress, Status, TASK_STATUS_CHANGED, TaskError, TaskStatus, cut, next_rev};
