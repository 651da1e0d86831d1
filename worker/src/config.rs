//! The worker's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use bellhop_common::config::{
    AmqpConfig, HumanDuration, HumanSize, LogConfig, ServiceConfig, ShutdownConfig,
};
use serde::{Deserialize, Serialize};

use crate::celery::CeleryConfig;
use crate::rate::Rate;
use crate::task::Task as _;
use crate::tasks::{Checksum, ExecConfig};

/// Everything that `worker run` reads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// The broker.
    pub amqp: AmqpConfig,
    /// The pages that say how the worker is.
    pub http: HttpConfig,
    /// Logs.
    pub log: LogConfig,
    /// What happens on a signal.
    pub shutdown: ShutdownConfig,
    /// What holds for every job.
    pub jobs: JobsConfig,
    /// What holds for the jobs of one kind, by kind.
    pub kinds: BTreeMap<String, KindConfig>,
    /// The queues to serve, by their short names; `default` if none is named.
    pub queues: BTreeMap<String, QueueConfig>,
    /// The task `files.checksum`.
    pub files: FilesConfig,
    /// Programs that run jobs, by kind.
    pub exec: BTreeMap<String, ExecConfig>,
    /// Celery's producers and monitors.
    pub celery: CeleryConfig,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            amqp: AmqpConfig::default(),
            http: HttpConfig::default(),
            log: LogConfig::default(),
            shutdown: ShutdownConfig::default(),
            jobs: JobsConfig::default(),
            kinds: BTreeMap::new(),
            queues: BTreeMap::from([("default".to_owned(), QueueConfig::default())]),
            files: FilesConfig::default(),
            exec: BTreeMap::new(),
            celery: CeleryConfig::default(),
        }
    }
}

/// `[http]`: `/healthz`, `/readyz`, `/metrics`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
        }
    }
}

/// `[jobs]`: what holds for every job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobsConfig {
    /// How long an attempt may take, where neither the job nor its kind says. RabbitMQ takes a
    /// message back that is not acknowledged within its `consumer_timeout`, 30 minutes by default:
    /// for longer jobs raise that first, or another worker will begin them, too.
    pub timeout: HumanDuration,
    /// How long a handler may take to end once it was asked to.
    pub grace: HumanDuration,
    /// A larger result fails the job: it would have to pass through every event queue.
    pub max_result_size: HumanSize,
    /// How often a job may come back because its worker died or lost the broker, before it counts
    /// as failed. Below the 20 after which the broker itself would drop it into the dead letters
    /// without a word to its owner.
    pub max_redeliveries: u32,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            timeout: HumanDuration::from_secs(25 * 60),
            grace: HumanDuration::from_secs(10),
            max_result_size: HumanSize::kib(256),
            max_redeliveries: 10,
        }
    }
}

/// `[kinds."<kind>"]`: what differs from `[jobs]` for one kind, whatever runs it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KindConfig {
    /// How long an attempt may take.
    pub timeout: Option<HumanDuration>,
    /// How long all attempts may take together, counted from when the job was put in.
    pub total_timeout: Option<HumanDuration>,
    /// How often a job is tried, where it does not say itself.
    pub max_attempts: Option<u32>,
    /// The upper bound of the first pause between attempts; it doubles with each.
    pub retry_base: Option<HumanDuration>,
    /// The upper bound of every pause between attempts.
    pub retry_cap: Option<HumanDuration>,
    /// How many jobs of this kind one worker runs at once, over all queues.
    pub concurrency: Option<u16>,
    /// How many attempts of this kind one worker begins: `10/s`, `200/m`, `5/h`.
    pub rate: Option<Rate>,
}

/// `[queues.<name>]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueueConfig {
    /// How many of its jobs run at once, 1 to 2,000. As many are fetched, none waits in memory.
    pub concurrency: u16,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { concurrency: 4 }
    }
}

/// `[files]`: the task `files.checksum`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// The directory whose files may be read. Without it the worker does not know the task.
    pub root: Option<PathBuf>,
}

impl ServiceConfig for WorkerConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = self.amqp.problems();
        problems.extend(self.log.problems());
        if self.queues.is_empty() {
            problems.push("no queue is configured: add [queues.default]".into());
        }
        for (name, queue) in &self.queues {
            if !(1..=2000).contains(&queue.concurrency) {
                problems.push(format!(
                    "queues.{name}.concurrency must be 1 to 2000, it is {}",
                    queue.concurrency
                ));
            }
            // The name is a routing key and the end of a queue's name; AMQP allows 255 bytes.
            if name.is_empty() || name.len() > 128 {
                problems.push(format!("queue name {name:?} must have 1 to 128 bytes"));
            }
        }
        let largest = self.jobs.max_result_size.0.saturating_add(64 * 1024);
        if largest > self.amqp.max_message_size.0 {
            problems.push(format!(
                "jobs.max_result_size ({}) and 64KiB around it do not fit into amqp.max_message_size ({})",
                self.jobs.max_result_size, self.amqp.max_message_size
            ));
        }
        if self.jobs.max_redeliveries == 0 || self.jobs.max_redeliveries >= 20 {
            problems.push(format!(
                "jobs.max_redeliveries must be 1 to 19, it is {}",
                self.jobs.max_redeliveries
            ));
        }
        problems.extend(self.celery.problems(&self.queues));
        for (kind, exec) in &self.exec {
            problems.extend(exec.problems(kind));
            if exec.grace > self.jobs.grace {
                problems.push(format!(
                    "exec.{kind:?}.grace ({}) is longer than jobs.grace ({}), after which a handler is \
                     dropped: raise jobs.grace",
                    exec.grace, self.jobs.grace
                ));
            }
            if kind == Checksum::KIND && self.files.root.is_some() {
                problems.push(format!(
                    "exec.{kind:?} would replace the built-in task of that kind: take another kind, or \
                     remove files.root"
                ));
            }
        }
        problems
    }
}
