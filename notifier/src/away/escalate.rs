//! The time to look has come: what was not seen is ordered to be sent.
//!
//! One instance does it, one batch after the other: two that look after the same user at the same
//! time, as at the hour of a digest, would each send one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::Delivery;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::Channel;
use super::checks::{Check, Checks};
use super::preferences::MailChoice;
use super::visit::{EscalationError, Visit};
use crate::deliveries;
use crate::gateway::Gateway;
use crate::inbound::malformed;
use crate::store::SharedStore;
use crate::streams::retry;

/// How many messages may be with us at once.
pub(crate) const PREFETCH: u16 = 32;

/// What is due within this time is looked after together.
const GATHER: Duration = Duration::from_millis(250);

/// Looks after what comes until the queue ends. What is due within a moment is looked after together,
/// so that a user is not sent one thing after the other.
pub(crate) async fn escalate(gateway: Arc<Gateway>, mut deliveries: mpsc::Receiver<Delivery>) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    while let Some(first) = deliveries.recv().await {
        let (due, last) = gather(first, &mut deliveries).await;
        if !look(&gateway, &streams.store, due, &last).await {
            // What comes next would be acknowledged together with this.
            if gateway.closed.is_cancelled() {
                return;
            }
            continue;
        }
        if let Err(error) = last.receipt.ack_up_to_here().await {
            debug!(%error, "an acknowledgement was lost; what is ordered twice is sent once");
        }
    }
}

/// What is due, by how it is sent.
type Due = BTreeMap<(Channel, Option<MailChoice>), Vec<Check>>;

/// What comes within a moment, and the last of it, whose receipt settles all.
async fn gather(first: Delivery, deliveries: &mut mpsc::Receiver<Delivery>) -> (Due, Delivery) {
    let end = Instant::now() + GATHER;
    let (mut due, mut last) = (Due::new(), first);
    take(&mut due, &last);
    // The broker sends no more than these before they are settled.
    for _ in 1..PREFETCH {
        let Ok(Some(next)) = timeout_at(end, deliveries.recv()).await else {
            break;
        };
        take(&mut due, &next);
        last = next;
    }
    (due, last)
}

/// Malformed ones are counted and dropped: only we write them, and nothing could be looked after.
fn take(due: &mut Due, delivery: &Delivery) {
    match serde_json::from_slice::<Checks>(&delivery.body) {
        Ok(checks) => {
            let known = due.entry((checks.channel, checks.digest)).or_default();
            known.extend(checks.events);
        }
        Err(error) => drop(malformed::<()>(&error)),
    }
}

/// Whether all was looked after; if not, the broker delivers it again.
async fn look(gateway: &Gateway, store: &SharedStore, due: Due, last: &Delivery) -> bool {
    for ((channel, digest), events) in due {
        let checks = Checks {
            channel,
            digest,
            events,
        };
        let mut failures = 0;
        while let Err(error) = look_at_all(gateway, store, &checks, last).await {
            if failures == 0 {
                warn!(%error, "it cannot be seen yet what users have missed");
            }
            if retry::wait(gateway, failures, Some(last)).await.is_none() {
                return false;
            }
            failures += 1;
        }
    }
    true
}

async fn look_at_all(
    gateway: &Gateway,
    store: &SharedStore,
    checks: &Checks,
    last: &Delivery,
) -> Result<(), EscalationError> {
    let mut users: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
    for check in &checks.events {
        let missed = users.entry(&check.user_id).or_default();
        if missed.iter().all(|known| known.event_id != check.event_id) {
            missed.push(check);
        }
    }
    for (user_id, missed) in users {
        // Somebody else is at it by now.
        if !last.receipt.is_valid() {
            return Ok(());
        }
        let visit = Visit::begin(gateway, store, user_id, checks).await?;
        let mut log = Vec::new();
        let plan = visit.plan(&missed, &mut log).await?;
        let done = visit.carry_out(plan, &mut log).await;
        // Also of what was ordered before something failed: it is looked after again, and knows it by this.
        deliveries::keep(gateway, log).await;
        done?;
    }
    Ok(())
}
