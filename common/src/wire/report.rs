//! What a worker answers to the question how it is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The routing key of the question at the exchange `control`. Its message says by `reply-to` and
/// `correlation-id` where the answers go; its body is not read.
pub const ASK_STATUS: &str = "ask.status";

/// The most running tasks that a report names, and the most queues and kinds.
pub const MAX_REPORTED: usize = 100;

/// How a worker is. It names tasks and their owners, never arguments, results or settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// This run of the worker.
    pub id: Uuid,
    /// The machine's or container's name.
    pub host: String,
    /// The process id there.
    pub pid: u32,
    /// The program's version.
    pub version: String,
    /// When this run began, by the worker's clock.
    pub started_at: Timestamp,
    /// When this was said, by the worker's clock.
    pub time: Timestamp,
    /// The queues it serves, by their short names; at most [`MAX_REPORTED`].
    pub queues: BTreeMap<String, QueueReport>,
    /// The kinds it has handlers for; at most [`MAX_REPORTED`].
    pub kinds: Vec<String>,
    /// How many attempts ended since it started, by outcome, as in `bellhop_worker_jobs_total`.
    pub totals: BTreeMap<String, u64>,
    /// How many ended each second over the last minute, by outcome.
    pub per_second: BTreeMap<String, f64>,
    /// How many tasks run.
    pub running: u64,
    /// Those that have run longest, the longest first; at most [`MAX_REPORTED`].
    pub tasks: Vec<RunningTask>,
}

/// What a worker does for one queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// How many of its jobs run at most.
    pub concurrency: u64,
    /// How many run.
    pub running: u64,
}

/// A task that runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunningTask {
    /// The job's id.
    pub task_id: String,
    /// Which handler runs it.
    pub kind: String,
    /// Who owns it.
    pub user_id: String,
    /// The short name of the queue it was taken from.
    pub queue: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// When the attempt began, by the worker's clock.
    pub since: Timestamp,
    /// How far it is, 0 to 100, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
}
