//! The end of all connections when this instance stops: spread over a window, so that its clients
//! do not all come to the others at once.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::gateway::Gateway;
use crate::outbox::Outbox;
use crate::protocol;
use crate::protocol::close::RESTART;

/// How long an old connection stays after its client was to open a new one, so that whoever does
/// misses nothing between the two: as long as a handshake may take where everybody comes at once.
const OVERLAP: Duration = Duration::from_secs(5);

/// Tells every client when to come back, closes each some time after that, and waits for the end
/// of all, or for `shutdown.deadline`.
pub(crate) async fn drain(gateway: &Gateway) {
    let deadline = gateway.config.shutdown.deadline.0;
    let began = Instant::now();
    gateway.sessions.close();
    let ended = timeout(deadline, async {
        tokio::select! {
            () = say_when(gateway, began) => gateway.sessions.wait().await,
            // All have left by themselves.
            () = gateway.sessions.wait() => {}
        }
    });
    if ended.await.is_err() {
        let connections = gateway.sessions.len();
        warn!(
            connections,
            ?deadline,
            "the deadline is over, connections were still open"
        );
    }
}

async fn say_when(gateway: &Gateway, began: Instant) {
    let window = gateway.config.websocket.drain_window.0;
    let overlap = overlap(window, gateway.config.shutdown.deadline.0);
    let mut leaving: Vec<(Duration, Weak<Outbox>)> = Vec::new();
    gateway.hub.each(|outbox| {
        let after = share(outbox.id.as_u128(), window);
        if window.is_zero() {
            outbox.close(RESTART);
        } else {
            outbox.push(protocol::reconnect(after));
            leaving.push((after + overlap, Arc::downgrade(outbox)));
        }
    });
    if leaving.is_empty() {
        return;
    }
    info!(
        connections = leaving.len(),
        ?window,
        "connections are moved elsewhere"
    );
    leaving.sort_unstable_by_key(|(after, _)| *after);
    for (after, outbox) in leaving {
        sleep_until(began + after).await;
        if let Some(outbox) = outbox.upgrade() {
            outbox.close(RESTART);
        }
    }
}

/// Before the deadline there must be time for the last to say goodbye.
fn overlap(window: Duration, deadline: Duration) -> Duration {
    OVERLAP.min(deadline.saturating_sub(window) / 2)
}

/// A connection's place in the window. The last 62 bits of its id are random already.
fn share(id: u128, window: Duration) -> Duration {
    const STEPS: u128 = 1 << 16;
    let step = u32::try_from(id % STEPS).unwrap_or_default();
    window * step / (1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_last_connections_have_an_end_before_the_deadline() {
        let seconds = Duration::from_secs;
        assert_eq!(overlap(seconds(5), seconds(30)), OVERLAP);
        assert_eq!(overlap(seconds(5), seconds(9)), seconds(2));
        assert_eq!(overlap(seconds(5), seconds(5)), Duration::ZERO);
    }

    #[test]
    fn connections_are_spread_evenly_over_the_window() {
        let window = Duration::from_secs(10);
        let mut in_second = [0; 10];
        for _ in 0..10_000 {
            let after = share(Uuid::now_v7().as_u128(), window);
            in_second[usize::try_from(after.as_secs()).unwrap()] += 1;
        }
        for count in in_second {
            assert!((800..1200).contains(&count), "{in_second:?}");
        }
    }
}
