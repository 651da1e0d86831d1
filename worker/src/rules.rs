//! What holds for a job: how often it is tried, how long it may take, when it must be over.

use std::time::Duration;

use bellhop_common::backoff::Backoff;
use bellhop_common::wire::Job;
use jiff::Timestamp;

use crate::config::KindConfig;
use crate::execution::TimeLimit;
use crate::message::{JobMessage, later};
use crate::retry::Policy;
use crate::service::Service;

impl Service {
    fn kind(&self, job: &Job) -> KindConfig {
        self.config
            .kinds
            .get(&job.kind)
            .cloned()
            .unwrap_or_default()
    }

    /// How a job is tried again: what the job says, then its kind, then the default.
    pub(crate) fn policy(&self, job: &Job) -> Policy {
        let (jobs, kind) = (&self.config.jobs, self.kind(job));
        let max_attempts = job.max_attempts.or(kind.max_attempts);
        Policy {
            max_attempts: max_attempts.unwrap_or(jobs.max_attempts),
            backoff: Backoff {
                base: kind.retry_base.unwrap_or(jobs.retry_base).0,
                cap: kind.retry_cap.unwrap_or(jobs.retry_cap).0,
            },
        }
    }

    /// When the job must be over, if ever.
    fn deadline(&self, message: &JobMessage, now: Timestamp) -> Option<Timestamp> {
        let total = self.kind(&message.job).total_timeout;
        let total = total.or(self.config.jobs.total_timeout);
        let since = message.since().unwrap_or(now);
        // A job that was put in for later has all of its time then.
        let since = message.job.due(since).map_or(since, |due| due.max(since));
        let by_config = total.map(|total| later(since, total.0));
        message.job.expires_at.into_iter().chain(by_config).min()
    }

    /// Whether it is too late for a job at that time.
    pub(crate) fn is_over(&self, message: &JobMessage, at: Timestamp) -> bool {
        self.deadline(message, at).is_some_and(|end| end <= at)
    }

    /// How long an attempt may take: what the job says, then its kind, then what runs it, then the
    /// default; and never beyond the job's own end.
    pub(crate) fn time_limit(&self, message: &JobMessage, now: Timestamp) -> TimeLimit {
        let job = &message.job;
        let of_handler = || self.config.handler_timeout(&job.kind);
        let limit = job
            .timeout_s
            .map(Duration::from_secs)
            .or_else(|| {
                self.kind(job)
                    .timeout
                    .or_else(of_handler)
                    .map(Duration::from)
            })
            .unwrap_or(self.config.jobs.timeout.0);
        let left = self
            .deadline(message, now)
            .map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        match left {
            Some(left) if left < limit => TimeLimit {
                limit: left,
                is_last: true,
            },
            _ => TimeLimit {
                limit,
                is_last: false,
            },
        }
    }

    /// A kind as a metric's label: of unknown kinds there may be any number.
    pub(crate) fn label<'a>(&self, kind: &'a str) -> &'a str {
        match self.registry.get(kind) {
            Some(_) => kind,
            None => "unknown",
        }
    }
}
