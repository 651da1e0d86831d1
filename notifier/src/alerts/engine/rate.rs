//! How often a receiver is posted to. Pure.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::later;
use crate::alerts::mattermost::RETRY_AFTER_MAX;

/// So many posts at once, and one more after each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) period: Duration,
    pub(crate) burst: u32,
}

/// What is known of a receiver: how much of its rate is used, and whether it works.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Pace {
    /// When all that was posted would have been posted at an even pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    spent_until: Option<Timestamp>,
    /// It may not be asked before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Timestamp>,
    /// Failures since the last success, which the pauses grow with.
    pub(crate) failures: u32,
    /// When the first post failed or was refused since the last success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failing_since: Option<Timestamp>,
}

impl Pace {
    /// When the next post may be made.
    pub(crate) fn ready_at(&self, rate: Rate) -> Timestamp {
        let ahead = rate.period.saturating_mul(rate.burst.saturating_sub(1));
        let by_rate = self.spent_until.map(|spent| earlier(spent, ahead));
        let ready = by_rate.max(self.not_before);
        ready.unwrap_or(Timestamp::MIN)
    }

    /// A post is made now.
    pub(crate) fn spend(&mut self, rate: Rate, now: Timestamp) {
        let from = self.spent_until.map_or(now, |spent| spent.max(now));
        self.spent_until = Some(later(from, rate.period));
    }

    /// Whether the last post is in, as far as there was one.
    pub(crate) fn is_up(&self) -> bool {
        self.failing_since.is_none()
    }

    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.not_before = None;
        self.failing_since = None;
    }

    pub(crate) fn failed(&mut self, now: Timestamp, pause: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(later(now, pause));
        self.failing_since.get_or_insert(now);
    }

    /// It answers, so that nothing is gained by waiting, and does not take what it should.
    pub(crate) fn refused(&mut self, now: Timestamp) {
        self.failures = 0;
        self.not_before = None;
        self.failing_since.get_or_insert(now);
    }

    /// What was noted by a clock that was ahead would silence the receiver for as long.
    pub(crate) fn not_ahead(&mut self, rate: Rate, now: Timestamp) {
        let spent = later(now, rate.period.saturating_mul(rate.burst));
        self.spent_until = self.spent_until.map(|until| until.min(spent));
        let longest = later(now, RETRY_AFTER_MAX);
        self.not_before = self.not_before.map(|from| from.min(longest));
    }
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_each_period() {
        let rate = Rate {
            period: Duration::from_secs(1),
            burst: 3,
        };
        let start: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let (mut pace, mut now, mut made) = (Pace::default(), start, Vec::new());
        while made.len() < 6 {
            now = now.max(pace.ready_at(rate));
            pace.spend(rate, now);
            made.push(now.duration_since(start).as_secs());
        }
        assert_eq!(made, [0, 0, 0, 1, 2, 3]);
        // Rest gives the burst back, and no more than that.
        now = later(now, Duration::from_hours(1));
        for wants in [0, 0, 0, 1] {
            let ready = pace.ready_at(rate).max(now);
            assert_eq!(ready.duration_since(now).as_secs(), wants);
            pace.spend(rate, ready);
        }
    }

    #[test]
    fn a_receiver_that_fails_is_left_alone() {
        let rate = Rate {
            period: Duration::from_secs(1),
            burst: 10,
        };
        let now: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let mut pace = Pace::default();
        pace.failed(now, Duration::from_secs(30));
        assert_eq!(pace.ready_at(rate).duration_since(now).as_secs(), 30);
        pace.succeeded();
        assert!(pace.ready_at(rate) <= now);
    }
}
