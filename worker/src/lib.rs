//! The worker: takes jobs from RabbitMQ, runs them, and publishes every change.
//!
//! A delivery goes `intake` → `visit` → `execution` → `ending`. Handlers are [`Task`]s, or [`Handler`]s
//! whose kind comes from the configuration, in a [`Registry`]. [`run`] is the service.

mod config;
mod ending;
mod execution;
mod feed;
mod follow_up;
mod in_hand;
mod intake;
mod ledger;
mod limits;
mod message;
mod meter;
mod metric;
mod orders;
mod outcome;
mod places;
mod rate;
mod registry;
mod renewal;
mod retry;
mod service;
mod settle;
mod status;
mod task;
pub mod tasks;
mod visit;

pub use config::{FilesConfig, HttpConfig, JobsConfig, KindConfig, QueueConfig, WorkerConfig};
pub use outcome::Outcome;
pub use rate::Rate;
pub use registry::{Handler, Registry};
pub use service::{RunError, run};
pub use task::{Task, TaskContext};
