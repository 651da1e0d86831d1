//! Whether and when a failed attempt is followed by another. Pure.

use std::time::Duration;

use bellhop_common::backoff::Backoff;
use bellhop_common::wire::TaskError;

use crate::outcome::Outcome;

/// A day: a handler that asks for more wants a scheduled job.
const LONGEST_PAUSE: Duration = Duration::from_hours(24);

/// How a kind is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// How often a job is tried in all.
    pub(crate) max_attempts: u32,
    /// The pauses between.
    pub(crate) backoff: Backoff,
}

/// What becomes of a job after an attempt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It ends so.
    End(Outcome),
    /// It is tried again after a pause.
    Again {
        /// How long.
        pause: Duration,
        /// Why.
        error: TaskError,
    },
}

impl Policy {
    /// Judges the outcome of an attempt (from 1), for `jitter` from 0 to 1.
    pub(crate) fn judge(self, outcome: Outcome, attempt: u32, jitter: f64) -> Verdict {
        match outcome {
            Outcome::Retry { after, error } if attempt < self.max_attempts => {
                let by_policy = || self.backoff.pause(attempt.saturating_sub(1), jitter);
                let pause = after.map_or_else(by_policy, |after| after.min(LONGEST_PAUSE));
                Verdict::Again { pause, error }
            }
            Outcome::Retry { error, .. } => Verdict::End(Outcome::Fail(error)),
            outcome => Verdict::End(outcome),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POLICY: Policy = Policy {
        max_attempts: 3,
        backoff: Backoff {
            base: Duration::from_secs(2),
            cap: Duration::from_mins(10),
        },
    };

    #[test]
    fn a_failure_that_may_pass_is_tried_again_until_the_last_attempt() {
        let error = TaskError::new("flaky", "later");
        for (attempt, seconds) in [(1, 2), (2, 4)] {
            let verdict = POLICY.judge(Outcome::retry("flaky", "later"), attempt, 1.0);
            let pause = Duration::from_secs(seconds);
            let error = error.clone();
            assert_eq!(verdict, Verdict::Again { pause, error });
        }
        let last = POLICY.judge(Outcome::retry("flaky", "later"), 3, 1.0);
        assert_eq!(last, Verdict::End(Outcome::Fail(error)));
    }

    #[test]
    fn a_handler_may_say_when() {
        let asked = |after| {
            let error = TaskError::new("busy", "later");
            let outcome = Outcome::Retry {
                after: Some(after),
                error,
            };
            match POLICY.judge(outcome, 1, 1.0) {
                Verdict::Again { pause, .. } => pause,
                end @ Verdict::End(_) => panic!("{end:?}"),
            }
        };
        assert_eq!(asked(Duration::from_secs(45)), Duration::from_secs(45));
        assert_eq!(asked(Duration::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn everything_else_is_an_end() {
        for outcome in [
            Outcome::Done(json!(1)),
            Outcome::fail("broken", "for good"),
            Outcome::Cancelled,
        ] {
            let verdict = POLICY.judge(outcome.clone(), 1, 1.0);
            assert_eq!(verdict, Verdict::End(outcome));
        }
    }
}
