//! What this worker did, told as [Celery's
//! events](https://docs.celeryq.dev/en/stable/userguide/monitoring.html#event-reference). Pure.

use std::collections::{BTreeMap, HashMap};

use bellhop_common::wire::{Job, Status, TaskError, TaskStatus, cut};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::repr;

/// How often a worker says that it lives, in seconds; monitors give it up after three times that.
pub(super) const HEARTBEAT_S: u64 = 2;

/// Tasks beyond these run without being told as active.
const MAX_ACTIVE: usize = 10_000;

/// As much of an error as monitors are shown.
const MAX_ERROR_BYTES: usize = 8 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    /// `task-started`.
    pub(super) name: &'static str,
    /// Everything.
    pub(super) fields: Value,
}

/// Who says all this.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// `bellhop@host`.
    pub(super) node: String,
    pub(super) pid: u32,
    /// The operating system, as `uname` names it.
    pub(super) system: String,
}

/// The running tasks, some sums, and Celery's logical clock.
#[derive(Debug)]
pub(super) struct Record {
    identity: Identity,
    /// [Lamport's](https://en.wikipedia.org/wiki/Lamport_timestamp): orders the events of all
    /// workers, together with what their monitors send.
    clock: u64,
    active: HashMap<String, Active>,
    processed: u64,
    totals: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Active {
    kind: String,
    attempt: u32,
    began: Timestamp,
}

impl Record {
    pub(super) fn new(identity: Identity) -> Self {
        Self {
            identity,
            clock: 0,
            active: HashMap::new(),
            processed: 0,
            totals: BTreeMap::new(),
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Attempts that began here, by kind.
    pub(super) fn totals(&self) -> &BTreeMap<String, u64> {
        &self.totals
    }

    pub(super) fn clock(&self) -> u64 {
        self.clock
    }

    /// Somebody else's clock was seen.
    pub(super) fn adjust_clock(&mut self, other: u64) {
        self.clock = self.clock.max(other).saturating_add(1);
    }

    /// What runs now, as `inspect active` answers.
    pub(super) fn active(&self) -> Vec<Value> {
        let active = self.active.iter().map(|(id, active)| {
            json!({
                "id": id, "name": active.kind, "type": active.kind, "args": "", "kwargs": "",
                "hostname": self.identity.node, "time_start": seconds(active.began),
                "acknowledged": false, "delivery_info": {}, "worker_pid": self.identity.pid,
            })
        });
        active.collect()
    }

    /// The events that tell a status; none for most of those of a running task.
    pub(super) fn tell(&mut self, status: &TaskStatus, job: &Job, args: &Value) -> Vec<Event> {
        let id = &status.task_id;
        match status.status {
            // For Celery that is the producer's to tell.
            Status::Queued => Vec::new(),
            Status::Scheduled => {
                self.active.remove(id);
                vec![self.received(status, job, args)]
            }
            Status::Running => self.started(status, job, args),
            Status::Retrying | Status::Succeeded | Status::Failed | Status::Cancelled => {
                let began = self.active.remove(id);
                let mut events = Vec::with_capacity(2);
                if began.is_none() {
                    // It ended before it began; the name of the task is in this event only.
                    events.push(self.received(status, job, args));
                }
                events.push(self.ended(status, began.as_ref()));
                events
            }
        }
    }

    /// Somebody else has told the end of a task that ran here.
    pub(super) fn forget(&mut self, task_id: &str) {
        self.active.remove(task_id);
    }

    fn started(&mut self, status: &TaskStatus, job: &Job, args: &Value) -> Vec<Event> {
        match self.active.get(&status.task_id) {
            Some(active) if active.attempt == status.attempt => return Vec::new(),
            None if self.active.len() >= MAX_ACTIVE => return Vec::new(),
            _ => {}
        }
        let active = Active {
            kind: status.kind.clone(),
            attempt: status.attempt,
            began: status.timestamp,
        };
        self.active.insert(status.task_id.clone(), active);
        self.processed += 1;
        *self.totals.entry(status.kind.clone()).or_default() += 1;
        let received = self.received(status, job, args);
        let fields = json!({"uuid": status.task_id});
        vec![
            received,
            self.event("task-started", status.timestamp, fields),
        ]
    }

    fn received(&mut self, status: &TaskStatus, job: &Job, args: &Value) -> Event {
        let (args, kwargs) = repr::arguments(args);
        let eta = status.next_attempt_at.or(job.run_at);
        let fields = json!({
            "uuid": status.task_id, "name": status.kind, "args": args, "kwargs": kwargs,
            "root_id": status.task_id, "parent_id": null,
            "retries": status.attempt.saturating_sub(1),
            "eta": eta, "expires": job.expires_at,
        });
        self.event("task-received", status.timestamp, fields)
    }

    fn ended(&mut self, status: &TaskStatus, began: Option<&Active>) -> Event {
        let expired = |error: &TaskError| error.code == "expired";
        let expired = status.error.as_ref().is_some_and(expired);
        let (name, mut fields) = match status.status {
            Status::Succeeded => {
                let result = status.result.as_ref().unwrap_or(&Value::Null);
                let runtime = began.map(|active| status.timestamp.duration_since(active.began));
                let runtime = runtime.map_or(0.0, |runtime| runtime.as_secs_f64());
                let fields = json!({"result": repr::literal(result), "runtime": runtime});
                ("task-succeeded", fields)
            }
            // For Celery, what comes too late has been revoked.
            Status::Cancelled | Status::Failed if expired || status.error.is_none() => {
                let terminated = began.is_some();
                let fields = json!({"terminated": terminated, "signum": null, "expired": expired});
                ("task-revoked", fields)
            }
            Status::Retrying => ("task-retried", failure(status.error.as_ref())),
            _ => ("task-failed", failure(status.error.as_ref())),
        };
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("uuid".to_owned(), Value::from(status.task_id.as_str()));
        }
        self.event(name, status.timestamp, fields)
    }

    /// `worker-online`, `worker-heartbeat` or `worker-offline`.
    pub(super) fn alive(&mut self, name: &'static str, load: [f64; 3], now: Timestamp) -> Event {
        let fields = json!({
            "freq": HEARTBEAT_S, "active": self.active.len(), "processed": self.processed,
            "loadavg": load, "sw_ident": "bellhop", "sw_ver": env!("CARGO_PKG_VERSION"),
            "sw_sys": self.identity.system,
        });
        self.event(name, now, fields)
    }

    /// Without Celery's `utcoffset`: receivers shift the timestamp by the difference between that
    /// and their own, though it counts from 1970 in UTC wherever the worker is.
    fn event(&mut self, name: &'static str, now: Timestamp, mut fields: Value) -> Event {
        self.clock = self.clock.saturating_add(1);
        let common = [
            ("type", Value::from(name)),
            ("hostname", Value::from(self.identity.node.as_str())),
            ("pid", Value::from(self.identity.pid)),
            ("clock", Value::from(self.clock)),
            ("timestamp", Value::from(seconds(now))),
        ];
        if let Some(fields) = fields.as_object_mut() {
            fields.extend(common.map(|(name, value)| (name.to_owned(), value)));
        }
        Event { name, fields }
    }
}

fn failure(error: Option<&TaskError>) -> Value {
    let mut fields = Map::new();
    if let Some(TaskError { code, message }) = error {
        let first = message.lines().next().unwrap_or_default();
        fields.insert("exception".into(), format!("{code}: {first}").into());
        let traceback = cut(message, MAX_ERROR_BYTES);
        fields.insert("traceback".into(), traceback.into());
    }
    Value::Object(fields)
}

fn seconds(time: Timestamp) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds since 1970 fit until the year 2255"
    )]
    let micros = time.as_microsecond() as f64;
    micros / 1e6
}

#[cfg(test)]
mod tests;
