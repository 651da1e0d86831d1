//! The worker: takes jobs from RabbitMQ, runs them, and publishes every change.
//!
//! A delivery goes `intake` → `visit` → `execution` → `ending`. Handlers are [`Task`]s, or [`Handler`]s
//! whose kind comes from the configuration, in a [`Registry`]. [`run`] is the service, [`main()`]
//! the program around it.

mod celery;
mod cli;
mod config;
mod cron;
mod ending;
mod execution;
mod feed;
mod follow_up;
mod in_hand;
mod intake;
mod job_options;
mod ledger;
mod limits;
mod link;
mod log_buffer;
mod log_feed;
mod message;
mod metric;
mod orders;
mod outcome;
mod places;
mod progress;
mod queues;
mod rate;
mod registry;
mod renewal;
mod retry;
mod rules;
mod service;
mod settle;
mod status;
mod step;
mod tally;
mod task;
pub mod tasks;
mod visit;

pub use bellhop_common::wire::{GroupPlace, Progress, TaskError};
pub use celery::{CeleryConfig, CeleryQueueConfig, CeleryQueueKind};
pub use cli::main;
pub use config::{FilesConfig, HttpConfig, JobsConfig, KindConfig, QueueConfig, WorkerConfig};
pub use cron::{CatchUp, CronConfig, Upcoming, upcoming};
pub use outcome::Outcome;
pub use rate::Rate;
pub use registry::{Handler, Registry};
pub use service::{RunError, run};
pub use step::StepContext;
pub use task::{Task, TaskContext};
