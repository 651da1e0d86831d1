//! The worker: takes jobs from RabbitMQ, runs them, and publishes every change.
//!
//! A delivery goes `intake` → `execution` → `settle`. Handlers are [`Task`]s, or [`Handler`]s
//! whose kind comes from the configuration, in a [`Registry`]. [`run`] is the service.

mod celery;
mod config;
mod execution;
mod feed;
mod in_hand;
mod intake;
mod metric;
mod outcome;
mod rate;
mod registry;
mod service;
mod settle;
mod task;
pub mod tasks;

pub use celery::{CeleryConfig, CeleryQueueConfig, CeleryQueueKind};
pub use config::{FilesConfig, HttpConfig, JobsConfig, KindConfig, QueueConfig, WorkerConfig};
pub use outcome::Outcome;
pub use rate::Rate;
pub use registry::{Handler, Registry};
pub use service::{RunError, run};
pub use task::{Task, TaskContext};
