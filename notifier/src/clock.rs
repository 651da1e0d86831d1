//! The time of day, where it must do no harm that somebody sets the clock.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// When the process began, by both clocks: that of the day, which may jump, and that of timers, which
/// does not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began: Timestamp,
    timer: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self {
            began: Timestamp::now(),
            timer: Instant::now(),
        }
    }

    /// The time for what is noted and for what is due. A clock that is set back does not take it back:
    /// what is noted would be too old too early, and what is due would wait.
    pub(crate) fn forward(&self) -> Timestamp {
        self.steady().max(Timestamp::now())
    }

    /// The time for what is too old. A clock that is set forward does not take it along.
    pub(crate) fn unhurried(&self) -> Timestamp {
        self.steady().min(Timestamp::now())
    }

    fn steady(&self) -> Timestamp {
        let elapsed = SignedDuration::try_from(self.timer.elapsed()).unwrap_or_default();
        self.began.saturating_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn began(hours_from_now: i64) -> Clock {
        Clock {
            began: Timestamp::now() + SignedDuration::from_hours(hours_from_now),
            timer: Instant::now(),
        }
    }

    fn hours_off(time: Timestamp) -> i64 {
        let off = time.duration_since(Timestamp::now());
        // Some moments pass meanwhile.
        (off + SignedDuration::from_mins(30))
            .as_secs()
            .div_euclid(3600)
    }

    #[test]
    fn a_clock_set_back_takes_nothing_back_and_one_set_forward_hurries_nothing() {
        // Begun two days ahead of now: the clock was set back since.
        let set_back = began(48);
        assert_eq!(hours_off(set_back.forward()), 48);
        assert_eq!(hours_off(set_back.unhurried()), 0);
        let set_forward = began(-48);
        assert_eq!(hours_off(set_forward.forward()), 0);
        assert_eq!(hours_off(set_forward.unhurried()), -48);
    }
}
