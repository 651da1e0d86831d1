//! How many jobs of a kind run at once, and how often one begins, in one worker.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout_at};

use crate::config::KindConfig;
use crate::rate::Rate;

/// How long a job waits for its kind here, where it takes a place from other kinds of its queue.
/// One that would wait longer is put off through the delay ladder.
const PATIENCE: Duration = Duration::from_secs(1);

/// The limits of all kinds that have any.
#[derive(Debug, Default)]
pub(crate) struct KindLimits(BTreeMap<String, Limit>);

#[derive(Debug)]
struct Limit {
    places: Option<Arc<Semaphore>>,
    rate: Option<DefaultDirectRateLimiter>,
}

/// The answer to a job that wants to begin.
#[derive(Debug)]
pub(crate) enum Leave {
    /// It may, as long as it holds this.
    Granted(Option<OwnedSemaphorePermit>),
    /// Not for so long, as far as is known.
    After(Duration),
}

impl KindLimits {
    pub(crate) fn new(kinds: &BTreeMap<String, KindConfig>) -> Self {
        let limited = kinds.iter().filter_map(|(kind, config)| {
            let places = config
                .concurrency
                .map(|count| Arc::new(Semaphore::new(usize::from(count))));
            let rate = config.rate.and_then(quota).map(RateLimiter::direct);
            let limit = Limit { places, rate };
            (limit.places.is_some() || limit.rate.is_some()).then(|| (kind.clone(), limit))
        });
        Self(limited.collect())
    }

    /// Waits a little while for leave to begin a job of this kind.
    pub(crate) async fn leave(&self, kind: &str) -> Leave {
        let Some(limit) = self.0.get(kind) else {
            return Leave::Granted(None);
        };
        let end = Instant::now() + PATIENCE;
        let mut held = None;
        if let Some(places) = &limit.places {
            let place = timeout_at(end.into(), Arc::clone(places).acquire_owned());
            match place.await {
                Ok(Ok(permit)) => held = Some(permit),
                // Nobody closes the semaphore.
                Ok(Err(_)) | Err(_) => return Leave::After(PATIENCE),
            }
        }
        if let Some(rate) = &limit.rate {
            while let Err(not_until) = rate.check() {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                if Instant::now() + wait > end {
                    return Leave::After(wait);
                }
                sleep(wait).await;
            }
        }
        Leave::Granted(held)
    }
}

fn quota(rate: Rate) -> Option<Quota> {
    Some(Quota::with_period(rate.per / rate.count.get())?.allow_burst(rate.count))
}

/// How long a job is put off that was put off so often in a row: at least as long as it must wait,
/// and longer each time, so that a long backlog of one kind does not keep the broker busy.
pub(crate) fn put_off(wait: Duration, deferrals: u32, jitter: f64) -> Duration {
    let backoff = Duration::from_secs(1 << deferrals.min(5));
    wait.max(backoff).mul_f64(1.0 + jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(concurrency: Option<u16>, rate: Option<&str>) -> KindLimits {
        let config = KindConfig {
            concurrency,
            rate: rate.map(|rate| rate.parse().unwrap()),
            ..KindConfig::default()
        };
        KindLimits::new(&[("k".to_owned(), config)].into())
    }

    #[tokio::test]
    async fn a_kind_without_limits_always_may() {
        let limits = limits(Some(1), None);
        assert!(matches!(limits.leave("other").await, Leave::Granted(None)));
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_may() {
        let limits = limits(Some(1), None);
        let first = limits.leave("k").await;
        assert!(matches!(first, Leave::Granted(Some(_))));
        assert!(matches!(limits.leave("k").await, Leave::After(_)));
        let (second, ()) = tokio::join!(limits.leave("k"), async move { drop(first) });
        assert!(matches!(second, Leave::Granted(Some(_))));
    }

    #[tokio::test]
    async fn no_more_begin_than_may() {
        let limits = limits(None, Some("2/m"));
        for _ in 0..2 {
            assert!(matches!(limits.leave("k").await, Leave::Granted(None)));
        }
        match limits.leave("k").await {
            Leave::After(wait) => assert!((28..=30).contains(&wait.as_secs()), "{wait:?}"),
            leave @ Leave::Granted(_) => panic!("{leave:?}"),
        }
    }

    #[test]
    fn who_was_put_off_often_waits_longer() {
        let second = Duration::from_secs(1);
        assert_eq!(put_off(second, 0, 0.0), second);
        assert_eq!(put_off(second, 3, 0.0), second * 8);
        assert_eq!(put_off(second, 30, 1.0), second * 64);
        assert_eq!(put_off(second * 100, 0, 0.5), second * 150);
    }
}
