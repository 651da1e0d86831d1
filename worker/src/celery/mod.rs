//! Celery's side of the worker: its producers' tasks are taken as jobs, and its monitors, such as
//! Flower, see this worker as one of theirs.
//!
//! Nothing here holds a job of ours up: the queues of Celery's and the monitoring have connections
//! of their own, so that an exchange or queue that somebody declared otherwise breaks only those.

mod about;
mod bridge;
mod config;
mod mailbox;
mod message;
mod monitor;
mod record;
mod repr;

pub use config::{CeleryConfig, CeleryQueueConfig, CeleryQueueKind};

pub(crate) use bridge::Bridge;
pub(crate) use message::{Unreadable as NoTask, as_native, why_no_job};
pub(crate) use monitor::Monitor;
