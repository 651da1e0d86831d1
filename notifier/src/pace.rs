//! How often something may happen: so many a second, after a burst. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A burst is what the rate allows in so many seconds.
const BURST_SECONDS: u32 = 10;

/// The generic cell rate algorithm: all it remembers is when the budget would be whole again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    whole_at: Instant,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self { whole_at: now }
    }

    /// Whether it may happen `count` times now. What may not costs nothing of the budget.
    pub(crate) fn allows(&mut self, now: Instant, per_second: u32, count: u32) -> bool {
        let step = Duration::from_secs(1) / per_second.max(1);
        let whole_at = self.whole_at.max(now) + step * count;
        if whole_at > now + step * per_second.max(1) * BURST_SECONDS {
            return false;
        }
        self.whole_at = whole_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let burst = (0..1000).filter(|_| pace.allows(start, 20, 1)).count();
        assert_eq!(burst, 200);
        let after = |ms| start + Duration::from_millis(ms);
        assert!(!pace.allows(after(49), 20, 1));
        assert!(pace.allows(after(50), 20, 1));
        assert!(!pace.allows(after(50), 20, 1));
        let later = (0..1000)
            .filter(|_| pace.allows(after(60_000), 20, 1))
            .count();
        assert_eq!(later, 200, "no more is saved up than one burst");
        assert!(!pace.allows(after(61_000), 20, 21));
        assert!(pace.allows(after(61_000), 20, 20));
    }
}
