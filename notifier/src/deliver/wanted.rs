//! What of an order is still to be sent: not what was sent, seen, or is not wanted any more.

use bellhop_common::wire::Event;
use jiff::Timestamp;
use tracing::info;

use super::Order;
use crate::away::decision::{Stop, is_wanted, needless};
use crate::away::preferences::{Preferences, preferences_document};
use crate::away::seen::Look;
use crate::away::topic_of;
use crate::deliveries::{self, Attempt};
use crate::documents;
use crate::gateway::Gateway;
use crate::store::{SharedStore, StoreError};

/// What of an order is still to be sent.
pub(super) struct Wanted {
    /// The order without what is not.
    pub(super) order: Order,
    /// The texts.
    pub(super) events: Vec<Event>,
    /// Not before then.
    pub(super) quiet_until: Option<Timestamp>,
}

/// Looks at the store, the user's wishes and the log.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn wanted(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
) -> Result<Wanted, StoreError> {
    let mut wanted = Wanted {
        order: order.clone(),
        events: Vec::with_capacity(order.events.len()),
        quiet_until: None,
    };
    wanted.order.events.clear();
    if deliveries::was_sent(store, order).await? {
        info!(id = %order.id, "it was sent before we were stopped, and is not sent again");
        return Ok(wanted);
    }
    let config = &gateway.config.escalation;
    let wishes = documents::get(store, &preferences_document(&order.user_id)).await?;
    let wishes: Preferences = wishes.unwrap_or_default();
    wanted.quiet_until = wishes.quiet_until(Timestamp::now(), &config.zone());
    let look = Look::at(gateway, store, &order.user_id).await?;
    for ordered in &order.events {
        let (seen, found) = look.event(order.epoch, ordered.seq).await?;
        let event = found.and_then(|entry| Event::parse(&entry.body).ok());
        let event = event.filter(|event| event.id == ordered.id);
        let why = match config.named(&order.category) {
            _ if event.is_none() => Some(if seen.is_read {
                Stop::Read
            } else {
                Stop::Expired
            }),
            Some(category) => needless(category, seen)
                .or_else(|| (!is_wanted(order.channel, category, &wishes)).then_some(Stop::Off)),
            // A digest has several categories.
            None if !seen.is_kept => Some(Stop::Expired),
            None if seen.is_read => Some(Stop::Read),
            None => event.as_ref().and_then(|event| {
                let category = config.of(&topic_of(event))?;
                (!is_wanted(order.channel, category, &wishes)).then_some(Stop::Off)
            }),
        };
        match (why, event) {
            (None, Some(event)) => {
                wanted.order.events.push(*ordered);
                wanted.events.push(event);
            }
            (why, _) => {
                let why = why.unwrap_or(Stop::Expired).as_str();
                let (channel, user) = (order.channel.as_str(), order.user_id.as_str());
                let attempt = Attempt::none(channel, user, why, Timestamp::now());
                deliveries::record(gateway, std::iter::once(ordered.id), &attempt).await;
            }
        }
    }
    Ok(wanted)
}
