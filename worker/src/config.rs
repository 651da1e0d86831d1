//! The worker's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use bellhop_common::config::{
    AmqpConfig, HumanDuration, HumanSize, LogConfig, ServiceConfig, ShutdownConfig,
};
use serde::{Deserialize, Serialize};

use crate::celery::CeleryConfig;
use crate::cron::CronConfig;
use crate::rate::Rate;
use crate::task::Task as _;
use crate::tasks::{Checksum, EndpointConfig, ExecConfig};

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
    /// URLs that run jobs, by kind.
    pub endpoint: BTreeMap<String, EndpointConfig>,
    /// Periodic jobs, by name. Every worker that has entries should have the same ones.
    pub cron: BTreeMap<String, CronConfig>,
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
            endpoint: BTreeMap::new(),
            cron: BTreeMap::new(),
            celery: CeleryConfig::default(),
        }
    }
}

impl WorkerConfig {
    /// How long an attempt at a kind of job may take, where its `[exec]` or `[endpoint]` says.
    #[must_use]
    pub fn handler_timeout(&self, kind: &str) -> Option<HumanDuration> {
        let exec = self.exec.get(kind).and_then(|exec| exec.timeout);
        exec.or_else(|| self.endpoint.get(kind)?.timeout)
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
    /// How long an attempt may take, where neither the job nor its kind says.
    pub timeout: HumanDuration,
    /// How long all attempts may take together, where the kind does not say.
    pub total_timeout: Option<HumanDuration>,
    /// How often a job is tried, where neither the job nor its kind says.
    pub max_attempts: u32,
    /// The upper bound of the first pause between attempts; it doubles with each. The pause itself
    /// is a random part of its bound, so that jobs that failed together do not return together.
    pub retry_base: HumanDuration,
    /// The upper bound of every pause between attempts.
    pub retry_cap: HumanDuration,
    /// How many jobs run at once over all queues; unset, each queue has its own places only.
    pub concurrency: Option<u16>,
    /// The broker's `consumer_timeout`, after which it takes a message back that is not
    /// acknowledged: 30 minutes by default. The message of a longer attempt is renewed at 80 %.
    pub ack_timeout: HumanDuration,
    /// How long a handler may take to end once it was asked to.
    pub grace: HumanDuration,
    /// A larger result fails the job: it would have to pass through every event queue.
    pub max_result_size: HumanSize,
    /// How often a job may come back because its worker died or lost the broker, before it must run
    /// alone; and there twice as often, before it counts as failed: 1 to 19. Only attempts that began count.
    pub max_redeliveries: u32,
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            timeout: HumanDuration::from_secs(25 * 60),
            total_timeout: None,
            max_attempts: 5,
            retry_base: HumanDuration::from_secs(2),
            retry_cap: HumanDuration::from_secs(10 * 60),
            concurrency: None,
            ack_timeout: HumanDuration::from_secs(30 * 60),
            grace: HumanDuration::from_secs(10),
            max_result_size: HumanSize::kib(256),
            max_redeliveries: 3,
        }
    }
}

/// `[kinds."<kind>"]`: what differs from `[jobs]` for one kind, whatever runs it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KindConfig {
    /// How long an attempt may take.
    pub timeout: Option<HumanDuration>,
    /// How long all attempts may take together, counted from when the job is due.
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
    /// Where the places of `jobs.concurrency` are short, the queue of the highest priority goes
    /// first.
    pub priority: i32,
    /// Its share of those places among the queues of its priority, 1 to 1,000.
    pub weight: u16,
    /// `x-priority` of the consumer: among the workers of a queue, those of the highest get its
    /// jobs as long as they have room.
    pub consumer_priority: i32,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            concurrency: 4,
            priority: 0,
            weight: 1,
            consumer_priority: 0,
        }
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
    const ELSEWHERE: (&'static str, &'static [&'static str]) = (
        "notifier",
        &[
            "alerts",
            "auth",
            "escalation",
            "instance",
            "mail",
            "mattermost",
            "push",
            "rooms",
            "store",
            "tasks",
            "websocket",
        ],
    );

    fn problems(&self) -> Vec<String> {
        let mut problems = self.amqp.problems();
        problems.extend(self.log.problems());
        if self.queues.is_empty() {
            problems.push("no queue is configured: add [queues.default]".into());
        }
        for (name, queue) in &self.queues {
            problems.extend(queue.problems(name));
        }
        let largest = self.jobs.max_result_size.0.saturating_add(64 * 1024);
        if largest > self.amqp.max_message_size.0 {
            problems.push(format!(
                "jobs.max_result_size ({}) and 64KiB around it do not fit into amqp.max_message_size ({})",
                self.jobs.max_result_size, self.amqp.max_message_size
            ));
        }
        problems.extend(self.jobs.problems());
        for (kind, config) in &self.kinds {
            problems.extend(config.problems(kind));
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
        for (kind, endpoint) in &self.endpoint {
            problems.extend(endpoint.problems(kind));
            if self.exec.contains_key(kind) {
                problems.push(format!(
                    "endpoint.{kind:?} and exec.{kind:?} are for the same kind: remove one of them"
                ));
            }
            if kind == Checksum::KIND && self.files.root.is_some() {
                problems.push(format!(
                    "endpoint.{kind:?} would replace the built-in task of that kind: take another \
                     kind, or remove files.root"
                ));
            }
        }
        for (name, cron) in &self.cron {
            problems.extend(cron.problems(name));
        }
        problems
    }
}

impl QueueConfig {
    fn problems(&self, name: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if !(1..=2000).contains(&self.concurrency) {
            problems.push(format!(
                "queues.{name}.concurrency must be 1 to 2000, it is {}",
                self.concurrency
            ));
        }
        if !(1..=1000).contains(&self.weight) {
            problems.push(format!(
                "queues.{name}.weight must be 1 to 1000, it is {}",
                self.weight
            ));
        }
        // The name is a routing key and the end of a queue's name; AMQP allows 255 bytes.
        if name.is_empty() || name.len() > 128 {
            problems.push(format!("queue name {name:?} must have 1 to 128 bytes"));
        }
        if name.contains(['*', '#']) {
            problems.push(format!(
                "queue name {name:?} must not have `*` or `#`, which are patterns to RabbitMQ"
            ));
        }
        problems
    }
}

impl JobsConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.max_redeliveries == 0 || self.max_redeliveries >= 20 {
            problems.push(format!(
                "jobs.max_redeliveries must be 1 to 19, it is {}",
                self.max_redeliveries
            ));
        }
        if self.max_attempts == 0 {
            problems.push("jobs.max_attempts must be 1 or more".into());
        }
        if self.concurrency == Some(0) {
            problems.push("jobs.concurrency must be 1 or more; leave it out for no limit".into());
        }
        for (key, value) in [
            ("timeout", Some(self.timeout)),
            ("total_timeout", self.total_timeout),
            ("ack_timeout", Some(self.ack_timeout)),
        ] {
            if value.is_some_and(|value| value.0.is_zero()) {
                problems.push(format!("jobs.{key} must be more than zero"));
            }
        }
        problems
    }
}

impl KindConfig {
    fn problems(&self, kind: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, is_zero) in [
            ("max_attempts", self.max_attempts == Some(0)),
            ("concurrency", self.concurrency == Some(0)),
            ("timeout", self.timeout.is_some_and(|t| t.0.is_zero())),
            (
                "total_timeout",
                self.total_timeout.is_some_and(|t| t.0.is_zero()),
            ),
        ] {
            if is_zero {
                problems.push(format!(
                    "kinds.{kind:?}.{key} must be more than zero; leave it out for the default"
                ));
            }
        }
        problems
    }
}
