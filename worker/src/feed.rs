//! The sequence of a task's statuses, as its owner will see them. Pure.

use std::time::Duration;

use bellhop_common::wire::{Progress, Status, TaskError, TaskStatus, cut, next_rev};
use jiff::Timestamp;

use crate::message::JobMessage;
use crate::outcome::Outcome;
use crate::progress::Meter;

/// An error travels to every window of its owner, and may quote what a producer sent: longer ones
/// are cut.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;
const MAX_CODE_BYTES: usize = 64;

/// Makes the statuses of one attempt, each with a higher `rev` than the last.
#[derive(Debug)]
pub(crate) struct Feed {
    max_attempts: u32,
    rev: u64,
    progress: Option<Box<Progress>>,
    meter: Meter,
    /// Why it is cancelled, if nobody asked for it.
    reason: Option<Box<TaskError>>,
}

impl Feed {
    pub(crate) fn new(max_attempts: u32) -> Self {
        Self {
            max_attempts,
            rev: 0,
            progress: None,
            meter: Meter::default(),
            reason: None,
        }
    }

    /// The reason that a cancelled job gives.
    pub(crate) fn because(&mut self, reason: TaskError) {
        self.reason = Some(Box::new(reason));
    }

    /// It waits for its time.
    pub(crate) fn scheduled(
        &mut self,
        message: &JobMessage,
        due: Timestamp,
        now: Timestamp,
    ) -> TaskStatus {
        TaskStatus {
            attempt: 0,
            next_attempt_at: Some(due),
            ..self.status(message, Status::Scheduled, now)
        }
    }

    pub(crate) fn running(
        &mut self,
        message: &JobMessage,
        progress: Option<Progress>,
        now: Timestamp,
    ) -> TaskStatus {
        self.keep(progress, now);
        self.status(message, Status::Running, now)
    }

    /// Takes note of a progress without telling it.
    pub(crate) fn keep(&mut self, progress: Option<Progress>, now: Timestamp) {
        if let Some(progress) = progress {
            self.progress = Some(Box::new(self.meter.measure(progress, now)));
        }
    }

    /// In how long the figures of a progress that stays as it is change; see [`Meter::next_look`].
    pub(crate) fn next_look(&self, now: Timestamp) -> Option<Duration> {
        self.meter.next_look(now)
    }

    /// The attempt failed, and another follows.
    pub(crate) fn retrying(
        &mut self,
        message: &JobMessage,
        error: &TaskError,
        due: Timestamp,
        now: Timestamp,
    ) -> TaskStatus {
        TaskStatus {
            error: Some(shortened(error)),
            next_attempt_at: Some(due),
            ..self.status(message, Status::Retrying, now)
        }
    }

    /// The last progress stays with the end, so that a bar does not jump back.
    pub(crate) fn ended(
        &mut self,
        message: &JobMessage,
        outcome: &Outcome,
        now: Timestamp,
    ) -> TaskStatus {
        match outcome {
            Outcome::Done(result) => TaskStatus {
                result: Some(result.clone()),
                ..self.status(message, Status::Succeeded, now)
            },
            Outcome::Fail(error) | Outcome::Retry { error, .. } => TaskStatus {
                error: Some(shortened(error)),
                ..self.status(message, Status::Failed, now)
            },
            Outcome::Cancelled => TaskStatus {
                error: self.reason.take().map(|reason| *reason),
                ..self.status(message, Status::Cancelled, now)
            },
        }
    }

    fn status(&mut self, message: &JobMessage, status: Status, now: Timestamp) -> TaskStatus {
        self.rev = next_rev(self.rev, now);
        let job = &message.job;
        TaskStatus {
            task_id: job.id.clone(),
            kind: job.kind.clone(),
            title: job.title.clone(),
            user_id: job.user_id.clone(),
            status,
            attempt: message.attempt(),
            max_attempts: self.max_attempts,
            rev: self.rev,
            progress: match (status, self.progress.as_deref().cloned()) {
                (Status::Running, progress) => progress,
                (_, progress) => progress.map(Progress::at_rest),
            },
            error: None,
            result: None,
            next_attempt_at: None,
            group: job.group.as_ref().map(|group| group.place()),
            timestamp: now,
        }
    }
}

fn shortened(error: &TaskError) -> TaskError {
    TaskError {
        code: cut(&error.code, MAX_CODE_BYTES).to_owned(),
        message: cut(&error.message, MAX_MESSAGE_BYTES).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_common::amqp::Properties;
    use serde_json::json;

    fn now() -> Timestamp {
        "2026-01-15T10:30:00Z".parse().unwrap()
    }

    fn message() -> JobMessage {
        let body = br#"{"id": "t", "kind": "k", "user_id": "u"}"#;
        JobMessage::read("default", body.to_vec(), Properties::default()).unwrap()
    }

    #[test]
    fn rev_grows_and_the_last_progress_stays() {
        let (mut feed, message) = (Feed::new(1), message());
        let first = feed.running(&message, None, now());
        let second = feed.running(&message, Some(Progress::of(1, 2, "bytes")), now());
        let end = feed.ended(&message, &Outcome::Done(json!(1)), now());
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
        for (outcome, status) in [
            (Outcome::Fail(error.clone()), Status::Failed),
            (Outcome::Cancelled, Status::Cancelled),
        ] {
            let end = Feed::new(1).ended(&message(), &outcome, now());
            assert_eq!(end.status, status);
            assert_eq!(end.error.is_some(), status == Status::Failed);
        }
        let retrying = Feed::new(3).retrying(&message(), &error, now(), now());
        assert_eq!(retrying.status, Status::Retrying);
        assert_eq!((retrying.attempt, retrying.max_attempts), (1, 3));
        assert_eq!(retrying.next_attempt_at, Some(now()));
    }

    #[test]
    fn a_scheduled_job_has_not_been_tried() {
        let scheduled = Feed::new(3).scheduled(&message(), now(), now());
        assert_eq!(
            (scheduled.attempt, scheduled.status),
            (0, Status::Scheduled)
        );
    }
}
