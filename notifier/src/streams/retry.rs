//! Trying again while the store or the broker cannot.

use std::time::Duration;

use bellhop_common::amqp::{Delivery, PublishError};
use bellhop_common::backoff::{Backoff, jitter};
use tokio::time::sleep;
use tracing::warn;

use crate::gateway::Gateway;
use crate::store::StoreError;

/// Between two attempts.
const PAUSE: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

/// Whether a failed attempt is worth a line: not each, for hours.
pub(crate) fn is_told(failures: u32) -> bool {
    failures.is_multiple_of(20)
}

/// Says why something is not kept yet.
pub(crate) fn warn_of(error: &StoreError, failures: u32, waiting: usize) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let cause = cause.unwrap_or_default();
    if is_told(failures) {
        warn!(%error, cause, waiting, "events cannot be kept, and wait in RabbitMQ");
    }
}

/// Waits before the next attempt; `None` when there is to be none, because the broker delivers them
/// again, up to and with the last. Those before it came by the same connection or an older one.
pub(crate) async fn wait(gateway: &Gateway, failures: u32, last: Option<&Delivery>) -> Option<()> {
    let comes_again = || last.is_none_or(|last| !last.receipt.is_valid());
    if comes_again() {
        return None;
    }
    tokio::select! {
        () = sleep(PAUSE.pause(failures, jitter())) => {}
        () = gateway.closed.cancelled() => return None,
    }
    (!comes_again()).then_some(())
}

/// Tries until the broker has it, or has an error that no repetition mends; `None` if the broker
/// delivers again, up to and with the last, what it is about.
pub(crate) async fn persevere<T, F>(
    gateway: &Gateway,
    what: &str,
    last: &Delivery,
    attempt: impl Fn(u32) -> F,
) -> Option<Result<T, PublishError>>
where
    F: Future<Output = Result<T, PublishError>>,
{
    let mut failures = 0;
    loop {
        match attempt(failures).await {
            Err(error) if !error.is_permanent() => {
                if is_told(failures) {
                    warn!(%error, failures, "{what} is not with the broker yet, trying again");
                }
            }
            done => return Some(done),
        }
        wait(gateway, failures, Some(last)).await?;
        failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_is_told_and_then_few() {
        let told: Vec<_> = (0..100).filter(|n| is_told(*n)).collect();
        assert_eq!(told, [0, 20, 40, 60, 80]);
    }
}
