//! How long to wait before trying again.

use std::time::Duration;

/// Exponential backoff with full jitter: the nth pause is a random part of
/// `min(cap, base * 2^n)`, so that many clients of a service that comes back do not arrive
/// together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first pause.
    pub base: Duration,
    /// The upper bound of every pause.
    pub cap: Duration,
}

impl Backoff {
    /// The pause after `failures` failures in a row (the first pause is for 0), for `jitter` from
    /// 0 to 1. Never below a tenth of its upper bound, so that a zero draw is no busy loop.
    #[must_use]
    pub fn pause(self, failures: u32, jitter: f64) -> Duration {
        let factor = 1_u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
        let ceiling = self.base.saturating_mul(factor).min(self.cap);
        ceiling.mul_f64(jitter.clamp(0.1, 1.0))
    }
}

/// A random number from 0 to 1 for [`Backoff::pause`]; jitter needs no better source than the
/// random bits of a UUID, which saves a dependency.
#[must_use]
pub fn jitter() -> f64 {
    let (bits, _) = uuid::Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(bits >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff {
        base: Duration::from_millis(100),
        cap: Duration::from_secs(10),
    };

    #[test]
    fn pauses_double_up_to_the_cap() {
        let pauses: Vec<_> = (0..9).map(|n| BACKOFF.pause(n, 1.0).as_millis()).collect();
        assert_eq!(
            pauses,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
        assert_eq!(BACKOFF.pause(u32::MAX, 1.0), BACKOFF.cap);
    }

    #[test]
    fn jitter_only_shortens_and_never_to_nothing() {
        for draw in [-1.0, 0.0, 0.3, 1.0, 7.0, f64::NAN.max(0.5)] {
            let pause = BACKOFF.pause(3, draw).as_millis();
            assert!((80..=800).contains(&pause), "{draw}: {pause}");
        }
        assert!((0..1000).all(|_| (0.0..=1.0).contains(&jitter())));
    }
}
