//! Sends what is ordered, over mail and Web Push.
//!
//! Each order is one message in the queue of its channel, for one recipient. What does not succeed
//! waits on the delay ladder, so that nothing stands behind it. An order is sent once, as far as can be
//! known: only a crash between the sending and its entry in the log sends it again, and then under
//! the same Message-ID or topic.

mod email;
mod order;
mod push;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_common::amqp::{Delivery, Message, PublishError, Route, ladder};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::wire::{Event, cut, header};
use futures_util::{StreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

pub(crate) use self::order::{Order, Ordered};
use crate::away::Channel;
use crate::away::decision::{Stop, needless};
use crate::away::seen::Look;
use crate::delay::later;
use crate::deliveries::{self, Attempt, SENT};
use crate::gateway::Gateway;
use crate::store::{SharedStore, StoreError};
use crate::streams::retry;

/// How many orders of one channel may be with us.
pub(crate) const PREFETCH: u16 = 64;

/// How many pushes are sent at once.
const PUSHES_AT_ONCE: usize = 16;

/// Between two attempts.
const PAUSE: Backoff = Backoff {
    base: Duration::from_secs(15),
    cap: Duration::from_mins(30),
};

/// The longest that a server may ask us to wait.
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// AMQP headers share one frame with the properties.
const MAX_REASON_BYTES: usize = 1024;

/// How an attempt ended.
#[derive(Debug)]
enum Outcome {
    /// The other side has it.
    Sent,
    /// It may go better later, and not before the time the other side asked for.
    Again {
        after: Option<Duration>,
        reason: String,
    },
    /// The recipient is no more.
    Gone(String),
    /// It will never go.
    Refused(String),
}

/// Another instance, or this one with another configuration, may be able to.
fn not_here(section: &str) -> Outcome {
    Outcome::Again {
        after: None,
        reason: format!("{section} is not configured on the notifier that was to send it"),
    }
}

fn store_away(error: &StoreError) -> Outcome {
    Outcome::Again {
        after: None,
        reason: error.to_string(),
    }
}

/// Where a user is reached over a channel: with push on each of his devices.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn recipients(
    gateway: &Gateway,
    store: &SharedStore,
    channel: Channel,
    user_id: &str,
) -> Result<Vec<Option<String>>, StoreError> {
    match channel {
        Channel::Push if gateway.pusher.is_some() => push::devices(store, user_id).await,
        Channel::Email if gateway.mailer.is_some() => {
            let address = email::address(store, user_id).await?;
            Ok(address.map(|_| None).into_iter().collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Sends what is ordered over a channel until the queue ends.
pub(crate) async fn deliver(
    gateway: Arc<Gateway>,
    channel: Channel,
    deliveries: mpsc::Receiver<Delivery>,
) {
    let deliveries = stream::unfold(deliveries, async |mut deliveries| {
        let delivery = deliveries.recv().await?;
        Some((delivery, deliveries))
    });
    let at_once = match channel {
        Channel::Push => PUSHES_AT_ONCE,
        // Waiting for a connection would count against a mail's time.
        Channel::Email => gateway.config.mail.connections,
    };
    deliveries
        .for_each_concurrent(at_once, |delivery| {
            let gateway = Arc::clone(&gateway);
            async move { deliver_one(&gateway, channel, delivery).await }
        })
        .await;
    if let (Channel::Email, Some(mailer)) = (channel, &gateway.mailer) {
        mailer.close().await;
    }
}

async fn deliver_one(gateway: &Gateway, channel: Channel, delivery: Delivery) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    let order: Order = match serde_json::from_slice(&delivery.body) {
        Ok(order) => order,
        Err(error) => {
            let reason = error.to_string();
            return bury(gateway, channel, delivery, "unreadable", &reason).await;
        }
    };
    let mut failures = 0;
    let events = loop {
        match wanted(gateway, &streams.store, &order).await {
            Ok(events) => break events,
            Err(error) => {
                retry::warn_of(&error, failures, 1);
                let waited = retry::wait(gateway, failures, Some(&delivery)).await;
                if waited.is_none() {
                    return;
                }
                failures += 1;
            }
        }
    };
    if events.is_empty() {
        return settle(delivery).await;
    }
    let began = Instant::now();
    let outcome = match channel {
        Channel::Push => push::send(gateway, &streams.store, &order, &events).await,
        Channel::Email => email::send(gateway, &streams.store, &order, &events).await,
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    conclude(gateway, delivery, &order, outcome, took).await;
}

/// Those of an order that are still to be sent.
async fn wanted(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
) -> Result<Vec<Event>, StoreError> {
    if deliveries::has(store, order, SENT).await? {
        info!(id = %order.id, "it was sent before we were stopped, and is not sent again");
        return Ok(Vec::new());
    }
    let config = &gateway.config.escalation;
    let mut known = config.categories.iter();
    // A digest has several categories, and was decided upon a moment ago.
    let category = known.find(|one| one.name == order.category);
    let look = Look::at(gateway, store, &order.user_id).await?;
    let mut events = Vec::with_capacity(order.events.len());
    for ordered in &order.events {
        let (seen, found) = look.event(order.epoch, ordered.seq).await?;
        let why = match category {
            Some(category) => needless(category, seen),
            None => seen.is_read.then_some(Stop::Read),
        };
        let event = found.and_then(|entry| Event::parse(&entry.body).ok());
        match (why, event) {
            (None, Some(event)) => events.push(event),
            (why, _) => {
                let why = why.unwrap_or(Stop::Gone).as_str();
                let (channel, user) = (order.channel.as_str(), order.user_id.as_str());
                let attempt = Attempt::none(channel, user, why, Timestamp::now());
                deliveries::record(gateway, std::iter::once(ordered.id), &attempt).await;
            }
        }
    }
    Ok(events)
}

async fn conclude(
    gateway: &Gateway,
    delivery: Delivery,
    order: &Order,
    outcome: Outcome,
    took: u64,
) {
    let number = attempt_of(&delivery);
    let now = Timestamp::now();
    let too_late = now.duration_since(order.since) > give_up_after(gateway);
    let (word, detail) = match &outcome {
        Outcome::Sent => (SENT, None),
        Outcome::Again { reason, .. } if too_late => ("failed", Some(reason)),
        Outcome::Again { reason, .. } => ("retrying", Some(reason)),
        Outcome::Gone(reason) => ("gone", Some(reason)),
        Outcome::Refused(reason) => ("refused", Some(reason)),
    };
    if let Some(detail) = detail {
        warn!(channel = order.channel.as_str(), id = %order.id, user_id = order.user_id, outcome = word, detail, "a delivery did not succeed");
    }
    let attempt = Attempt {
        at: now,
        channel: order.channel.as_str(),
        user: Some(&order.user_id),
        recipient: order.device.as_deref(),
        outcome: word,
        number: Some(number),
        detail: detail.cloned(),
        took: Some(took),
        order: Some(order.id),
    };
    let events = order.events.iter().map(|event| event.id);
    deliveries::record(gateway, events, &attempt).await;
    match outcome {
        Outcome::Sent | Outcome::Gone(_) => settle(delivery).await,
        Outcome::Again { after, .. } if !too_late => {
            again(gateway, delivery, order, (number, after)).await;
        }
        Outcome::Again { reason, .. } => {
            bury(gateway, order.channel, delivery, "gave_up", &reason).await;
        }
        Outcome::Refused(reason) => {
            bury(
                gateway,
                order.channel,
                delivery,
                "delivery_refused",
                &reason,
            )
            .await;
        }
    }
}

fn give_up_after(gateway: &Gateway) -> SignedDuration {
    let after = gateway.config.escalation.give_up_after.0;
    SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX)
}

fn attempt_of(delivery: &Delivery) -> u32 {
    let number = delivery.properties.headers.get(header::ATTEMPT);
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or(1)
}

/// Has an order wait for its next attempt.
async fn again(
    gateway: &Gateway,
    delivery: Delivery,
    order: &Order,
    (number, after): (u32, Option<Duration>),
) {
    let pause = PAUSE.pause(number - 1, jitter());
    let pause = pause.max(after.unwrap_or_default()).min(LONGEST_PAUSE);
    let pause = Duration::from_secs(pause.as_secs().max(1));
    let mut message = order.message();
    let next = number.saturating_add(1).to_string();
    message.headers.insert(header::ATTEMPT.to_owned(), next);
    let destination = ladder::deliver(order.channel.as_str());
    match later(gateway, &message, pause, &destination).await {
        Ok(()) => settle(delivery).await,
        Err(error) => give_back(delivery, &error).await,
    }
}

/// Puts an order into the dead letters, from where it can be replayed.
async fn bury(gateway: &Gateway, channel: Channel, delivery: Delivery, code: &str, reason: &str) {
    let properties = &delivery.properties;
    let mut message = Message {
        body: delivery.body.clone(),
        id: properties.message_id.clone(),
        headers: properties.headers_to_keep(),
        persistent: true,
        ..Message::default()
    };
    let died_at = Timestamp::now().to_string();
    for (name, value) in [
        (header::REASON, code),
        (header::ERROR, cut(reason, MAX_REASON_BYTES)),
        (header::DIED_AT, died_at.as_str()),
    ] {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    let (exchange, key) = (gateway.names.dead(), ladder::deliver(channel.as_str()));
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    match gateway.publisher.publish(route, &message).await {
        Ok(()) => settle(delivery).await,
        Err(error) => give_back(delivery, &error).await,
    }
}

async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.receipt.ack().await {
        debug!(%error, "an acknowledgement was lost; the order comes again");
    }
}

/// The broker gives it to us again, or to another instance.
async fn give_back(delivery: Delivery, error: &PublishError) {
    warn!(%error, "what follows a delivery is not with the broker; the order comes again");
    if let Err(error) = delivery.receipt.requeue().await {
        debug!(%error, "the order returns when the broker is back");
    }
}
