//! How often something happened over the last minute. Pure.

use std::time::{Duration, Instant};

/// How far back it counts, in seconds, each with a count of its own.
const WINDOW: usize = 60;

/// Counts over the last minute.
#[derive(Debug)]
pub(crate) struct Tally {
    began: Instant,
    /// The second, since `began`, of the newest count.
    newest: u64,
    counts: [u64; WINDOW],
}

impl Tally {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            newest: 0,
            counts: [0; WINDOW],
        }
    }

    /// It happened once more.
    pub(crate) fn record(&mut self, now: Instant) {
        self.advance(now);
        if let Some(count) = self.counts.get_mut(slot(self.newest)) {
            *count += 1;
        }
    }

    /// How often it happened, a second, over the last minute, or since the beginning if that is
    /// less.
    pub(crate) fn per_second(&mut self, now: Instant) -> f64 {
        self.advance(now);
        let age = now.saturating_duration_since(self.began);
        let age = age.clamp(Duration::from_secs(1), Duration::from_secs(WINDOW as u64));
        let count: u64 = self.counts.iter().sum();
        #[expect(
            clippy::cast_precision_loss,
            reason = "a rate needs no more than 52 bits"
        )]
        let rate = count as f64 / age.as_secs_f64();
        rate
    }

    /// Forgets what is older than the window.
    fn advance(&mut self, now: Instant) {
        let second = now.saturating_duration_since(self.began).as_secs();
        let passed = second.saturating_sub(self.newest).min(WINDOW as u64);
        for step in 1..=passed {
            if let Some(count) = self.counts.get_mut(slot(second - passed + step)) {
                *count = 0;
            }
        }
        self.newest = self.newest.max(second);
    }
}

fn slot(second: u64) -> usize {
    // Below `WINDOW`, which fits.
    usize::try_from(second % WINDOW as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(began: Instant, ms: u64) -> Instant {
        began + Duration::from_millis(ms)
    }

    fn rate(tally: &mut Tally, now: Instant) -> f64 {
        (tally.per_second(now) * 1000.0).round() / 1000.0
    }

    #[test]
    fn a_steady_rate_is_measured_from_the_first_second() {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        assert!(rate(&mut tally, began) < f64::EPSILON);
        for n in 0..1000_u64 {
            tally.record(at(began, n * 100));
            let seconds = n / 10;
            if n % 10 == 9 && seconds > 2 {
                let measured = tally.per_second(at(began, (n + 1) * 100 - 1));
                assert!((9.7..=10.3).contains(&measured), "{seconds} s: {measured}");
            }
        }
    }

    #[test]
    fn a_burst_is_forgotten_after_a_minute() {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        for _ in 0..120 {
            tally.record(at(began, 500));
        }
        assert_eq!(rate(&mut tally, at(began, 700)).to_string(), "120");
        assert_eq!(rate(&mut tally, at(began, 30_000)).to_string(), "4");
        assert_eq!(rate(&mut tally, at(began, 59_999)).to_string(), "2");
        assert_eq!(rate(&mut tally, at(began, 60_000)).to_string(), "0");
        assert_eq!(rate(&mut tally, at(began, 3_600_000)).to_string(), "0");
        tally.record(at(began, 3_600_000));
        assert_eq!(rate(&mut tally, at(began, 3_600_000)).to_string(), "0.017");
    }

    #[test]
    fn a_time_from_before_counts_as_now() {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        tally.record(at(began, 90_000));
        tally.record(at(began, 10_000));
        assert_eq!(rate(&mut tally, at(began, 90_000)).to_string(), "0.033");
    }
}
