//! What travels over AMQP: jobs, events, the state of a task, routing keys and headers.
//!
//! Everything here is pure: no I/O, no clock, no randomness. Times and ids are arguments.

mod celery;
mod event;
mod follow_up;
mod group;
pub mod header;
mod job;
mod log;
mod order;
mod pattern;
mod progress;
mod report;
mod revocation;
mod routing_key;
mod task;

pub use celery::{CeleryEnvelope, CeleryError, CeleryTask, is_protocol_1};
pub use event::{Event, EventError};
pub use follow_up::{Ending, FollowUp, MAX_FOLLOW_UPS, NAMESPACE, Parent};
pub use group::{
    GROUP_FAILED, GROUP_KIND, Group, GroupPlace, GroupSequel, MAX_GROUP_SIZE, MAX_SEQUEL_BYTES,
    group_end_id, group_job_id,
};
pub use job::{
    Job, JobError, JobProperties, MAX_DELAY_S, MAX_ID_BYTES, MAX_TITLE_BYTES, MAX_UNIQUE_KEY_BYTES,
};
pub use log::{LogLine, TASK_LOG, TaskLog};
pub use order::Order;
pub use pattern::{PatternError, TopicPattern, topic_matches};
pub use progress::{Progress, Step};
pub use report::{ASK_STATUS, MAX_REPORTED, QueueReport, RunningTask, WorkerReport};
pub use revocation::{
    MAX_TOKEN_ID_BYTES, REVOCATION_LASTS, REVOCATION_MARK, Revocation, RevocationError,
};
pub use routing_key::{
    Audience, EventClass, EventKey, KeyError, MAX_KEY_BYTES, decode_word, encode_word, is_topic,
};
pub use task::{Status, TASK_STATUS_CHANGED, TaskError, TaskStatus, cut, next_rev};
