//! Trying again while the store or the broker cannot.

use std::time::Duration;

use bellhop_common::amqp::Delivery;
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

/// Says why something is not kept yet.
pub(crate) fn warn_of(error: &StoreError, failures: u32, waiting: usize) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    let cause = cause.unwrap_or_default();
    // Not with each attempt, for hours.
    if failures < 3 || failures.is_multiple_of(20) {
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
