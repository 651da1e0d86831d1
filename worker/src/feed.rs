//! The sequence of a task's statuses, as its owner will see them. Pure.

use std::time::Duration;

use bellhop_common::wire::{Job, Progress, Status, TaskError, TaskStatus, cut, next_rev};
use jiff::Timestamp;

use crate::outcome::Outcome;
use crate::progress::Meter;

/// An error travels to every window of its owner, and may quote what a producer sent: longer ones
/// are cut.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
const MAX_CODE_BYTES: usize = 64;

/// Makes the statuses of one attempt, each with a higher `rev` than the last.
#[derive(Debug)]
pub(crate) struct Feed {
    job: Job,
    attempt: u32,
    rev: u64,
    progress: Option<Progress>,
    meter: Meter,
}

impl Feed {
    pub(crate) fn new(job: Job, attempt: u32) -> Self {
        Self {
            job,
            attempt,
            rev: 0,
            progress: None,
            meter: Meter::default(),
        }
    }

    pub(crate) fn job(&self) -> &Job {
        &self.job
    }

    pub(crate) fn running(&mut self, progress: Option<Progress>, now: Timestamp) -> TaskStatus {
        self.keep(progress, now);
        self.status(Status::Running, now)
    }

    /// Takes note of a progress without telling it.
    pub(crate) fn keep(&mut self, progress: Option<Progress>, now: Timestamp) {
        if let Some(progress) = progress {
            self.progress = Some(self.meter.measure(progress, now));
        }
    }

    /// In how long the figures of a progress that stays as it is change; see [`Meter::next_look`].
    pub(crate) fn next_look(&self, now: Timestamp) -> Option<Duration> {
        self.meter.next_look(now)
    }

    /// The last progress stays with the end, so that a bar does not jump back.
    pub(crate) fn ended(&mut self, outcome: &Outcome, now: Timestamp) -> TaskStatus {
        match outcome {
            Outcome::Done(result) => TaskStatus {
                result: Some(result.clone()),
                ..self.status(Status::Succeeded, now)
            },
            // Another attempt comes with the retries; until then a failure is final.
            Outcome::Fail(error) | Outcome::Retry { error, .. } => TaskStatus {
                error: Some(TaskError {
                    code: cut(&error.code, MAX_CODE_BYTES).to_owned(),
                    message: cut(&error.message, MAX_MESSAGE_BYTES).to_owned(),
                }),
                ..self.status(Status::Failed, now)
            },
            Outcome::Cancelled => self.status(Status::Cancelled, now),
        }
    }

    fn status(&mut self, status: Status, now: Timestamp) -> TaskStatus {
        self.rev = next_rev(self.rev, now);
        TaskStatus {
            task_id: self.job.id.clone(),
            kind: self.job.kind.clone(),
            title: self.job.title.clone(),
            user_id: self.job.user_id.clone(),
            status,
            attempt: self.attempt,
            max_attempts: 1,
            rev: self.rev,
            progress: match status {
                Status::Running => self.progress.clone(),
                _ => self.progress.clone().map(Progress::at_rest),
            },
            error: None,
            result: None,
            next_attempt_at: None,
            timestamp: now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-15T10:30:00Z".parse().unwrap()
    }

    #[test]
    fn rev_grows_and_the_last_progress_stays() {
        let mut feed = Feed::new(Job::new("t", "k", json!({}), "u"), 1);
        let first = feed.running(None, now());
        let second = feed.running(Some(Progress::of(1, 2, "bytes")), now());
        let end = feed.ended(&Outcome::Done(json!(1)), now());
        assert!(first.rev < second.rev && second.rev < end.rev);
        assert_eq!(end.progress, Some(Progress::of(1, 2, "bytes")));
        assert_eq!(
            (end.status, end.result),
            (Status::Succeeded, Some(json!(1)))
        );
    }

    #[test]
    fn every_outcome_has_its_status() {
        let error = TaskError::new("c", "m");
        let retry = Outcome::Retry {
            after: None,
            error: error.clone(),
        };
        for (outcome, status) in [
            (Outcome::Fail(error), Status::Failed),
            (retry, Status::Failed),
            (Outcome::Cancelled, Status::Cancelled),
        ] {
            let mut feed = Feed::new(Job::new("t", "k", json!({}), "u"), 1);
            let end = feed.ended(&outcome, now());
            assert_eq!(end.status, status);
            assert_eq!(end.error.is_some(), status == Status::Failed);
        }
    }
}
