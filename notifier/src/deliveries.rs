//! The log of deliveries: every attempt to reach somebody, and why there was none.

use bellhop_common::wire::cut;
use bytes::Bytes;
use jiff::Timestamp;
use metrics::{counter, histogram};
use serde::{Deserialize, Serialize};
use tracing::warn;
use uuid::Uuid;

use crate::deliver::Order;
use crate::gateway::Gateway;
use crate::metric;
use crate::store::{AttemptRecord, SharedStore, StoreError};
use crate::stranger::line;
use crate::streams::catch_up::within;

/// The outcome of an attempt that went well.
pub(crate) const SENT: &str = "sent";

/// The entry of what is to be sent and was not tried yet.
pub(crate) const ORDERED: &str = "ordered";

/// The entry of what a digest does not show, but counts among those that there are besides.
pub(crate) const SUMMARISED: &str = "summarised";

/// The longest reason that is kept, in bytes. It may quote a stranger's server.
const DETAIL_MAX: usize = 256;

/// One attempt, or the decision to make none.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Attempt<'a> {
    /// When it ended.
    pub(crate) at: Timestamp,
    /// `push`, `email`, `mattermost` or `slack`.
    pub(crate) channel: &'a str,
    /// Whom the event is for, if it is for a user.
    #[serde(rename = "user_id", skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<&'a str>,
    /// Where it was sent: the id of a push subscription, the name of a webhook. Not an address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<&'a str>,
    /// How it ended: `ordered` (not tried yet), `summarised`, `sent`, `retrying`, `refused`, `failed`, or why it was not made.
    pub(crate) outcome: &'a str,
    /// Which attempt, from 1.
    #[serde(rename = "attempt", skip_serializing_if = "Option::is_none")]
    pub(crate) number: Option<u32>,
    /// More of the outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(rename = "took_ms", skip_serializing_if = "Option::is_none")]
    pub(crate) took: Option<u64>,
    /// What it was an attempt at: the same for each attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) order: Option<Uuid>,
}

impl<'a> Attempt<'a> {
    /// Of a message to the team.
    pub(crate) fn of_team(channel: &'a str, outcome: &'a str, at: Timestamp) -> Self {
        Self {
            at,
            channel,
            user: None,
            recipient: None,
            outcome,
            number: None,
            detail: None,
            took: None,
            order: None,
        }
    }

    /// A decision to make none.
    pub(crate) fn none(channel: &'a str, user: &'a str, why: &'a str, at: Timestamp) -> Self {
        Self {
            user: Some(user),
            ..Self::of_team(channel, why, at)
        }
    }

    /// For the log, once for each event.
    pub(crate) fn records(&self, events: impl Iterator<Item = Uuid>) -> Vec<AttemptRecord> {
        let mut kept = self.clone();
        kept.detail = kept
            .detail
            .map(|detail| cut(&line(&detail), DETAIL_MAX).to_owned());
        // Texts and numbers can always be written.
        let body = Bytes::from(serde_json::to_vec(&kept).unwrap_or_default());
        let record = |event_id| AttemptRecord {
            event_id,
            body: body.clone(),
        };
        events.map(record).collect()
    }

    /// Counts it.
    pub(crate) fn count(&self) {
        let (channel, outcome) = (self.channel.to_owned(), self.outcome.to_owned());
        let labels = [("channel", channel.clone()), ("outcome", outcome)];
        counter!(metric::ATTEMPTS, &labels).increment(1);
        if let Some(took) = self.took {
            let seconds = std::time::Duration::from_millis(took);
            histogram!(metric::ATTEMPT_SECONDS, "channel" => channel).record(seconds);
        }
    }
}

/// Keeps attempts, as well as can be: nothing waits for the log.
pub(crate) async fn keep(gateway: &Gateway, records: Vec<AttemptRecord>) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    if records.is_empty() {
        return;
    }
    let kept = within(streams.store.log_attempts(records, gateway.clock.forward())).await;
    if let Err(error) = kept {
        warn!(%error, "attempts to deliver are not in the log");
    }
}

/// Of an entry, what is looked for later.
#[derive(Deserialize)]
struct Entry {
    channel: String,
    outcome: String,
    recipient: Option<String>,
    order: Option<Uuid>,
}

async fn entries(store: &SharedStore, event_id: Uuid) -> Result<Vec<Entry>, StoreError> {
    let log = within(store.attempts(event_id)).await?;
    let entries = log
        .iter()
        .filter_map(|body| serde_json::from_slice(body).ok());
    Ok(entries.collect())
}

/// Whether an order was sent.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn was_sent(store: &SharedStore, order: &Order) -> Result<bool, StoreError> {
    for event in &order.events {
        let entries = entries(store, event.id).await?;
        let is_sent = |entry: &Entry| entry.outcome == SENT && entry.order == Some(order.id);
        if entries.iter().any(is_sent) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether an event was ordered to be sent to a recipient before, perhaps with others.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn was_ordered(
    store: &SharedStore,
    event_id: Uuid,
    channel: &str,
    recipient: Option<&str>,
) -> Result<bool, StoreError> {
    let entries = entries(store, event_id).await?;
    Ok(entries.iter().any(|entry| {
        let is_same = entry.channel == channel && entry.recipient.as_deref() == recipient;
        is_same && matches!(entry.outcome.as_str(), ORDERED | SUMMARISED)
    }))
}

/// Counts an attempt for some events, and keeps it.
pub(crate) async fn record(
    gateway: &Gateway,
    events: impl Iterator<Item = Uuid>,
    attempt: &Attempt<'_>,
) {
    attempt.count();
    keep(gateway, attempt.records(events)).await;
}
