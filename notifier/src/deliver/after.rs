//! What becomes of an order's message: gone, later once more, or among the dead letters.

use std::time::Duration;

use bellhop_common::amqp::{Delivery, Message, PublishError, Route, ladder};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::wire::{cut, header};
use jiff::{SignedDuration, Timestamp};
use tracing::{debug, warn};

use super::Outcome;
use super::order::Order;
use crate::away::Channel;
use crate::delay::later;
use crate::deliveries::{self, Attempt, SENT};
use crate::gateway::Gateway;
use crate::streams::retry;

/// Between two attempts.
const PAUSE: Backoff = Backoff {
    base: Duration::from_secs(15),
    cap: Duration::from_mins(30),
};

/// AMQP headers share one frame with the properties.
const MAX_REASON_BYTES: usize = 1024;

/// Notes how an attempt ended, and does what follows.
pub(super) async fn conclude(
    gateway: &Gateway,
    delivery: Delivery,
    order: &Order,
    outcome: Outcome,
    took: u64,
) {
    let number = attempt_of(&delivery);
    let now = Timestamp::now();
    let since = order.since.unwrap_or(now);
    let too_late = gateway.clock.unhurried().duration_since(since) > give_up_after(gateway);
    let (word, detail) = match &outcome {
        Outcome::Sent => (SENT, None),
        Outcome::Again { reason, .. } if too_late => ("failed", Some(reason)),
        Outcome::Again { reason, .. } => ("retrying", Some(reason)),
        Outcome::Gone(reason) => ("gone", Some(reason)),
        Outcome::Refused(reason) => ("refused", Some(reason)),
    };
    if let Some(detail) = detail {
        let (channel, user_id) = (order.channel.as_str(), &order.user_id);
        warn!(channel, id = %order.id, user_id, outcome = word, detail, "a delivery did not succeed");
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
    let why = match outcome {
        Outcome::Sent | Outcome::Gone(_) => return settle(delivery).await,
        Outcome::Again { after, .. } if !too_late => {
            let order = Order {
                since: Some(since),
                ..order.clone()
            };
            return again(gateway, delivery, &order, (number, after)).await;
        }
        Outcome::Again { reason, .. } => ("gave_up", reason),
        Outcome::Refused(reason) => ("delivery_refused", reason),
    };
    bury(
        gateway,
        (order.channel, Some(order)),
        delivery,
        (why.0, &why.1),
    )
    .await;
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
    let pause = PAUSE.pause(number.saturating_sub(1), jitter());
    // Who is asked knows how long he may ask us to wait.
    let pause = pause.max(after.unwrap_or_default());
    put_off(gateway, delivery, order, (pause, number.saturating_add(1))).await;
}

/// Has an order wait until a time, without an attempt.
pub(super) async fn again_at(
    gateway: &Gateway,
    delivery: Delivery,
    order: &Order,
    until: Timestamp,
) {
    let left = Timestamp::now().duration_until(until).as_secs();
    // Up, or it would come a moment too early.
    let left = u64::try_from(left).unwrap_or_default().saturating_add(1);
    let number = attempt_of(&delivery);
    put_off(
        gateway,
        delivery,
        order,
        (Duration::from_secs(left), number),
    )
    .await;
}

async fn put_off(
    gateway: &Gateway,
    delivery: Delivery,
    order: &Order,
    (pause, number): (Duration, u32),
) {
    let pause = Duration::from_secs(pause.as_secs().max(1));
    let mut message = order.message();
    let number = number.to_string();
    message.headers.insert(header::ATTEMPT.to_owned(), number);
    let destination = ladder::deliver(order.channel.as_str());
    let placing = || later(gateway, &message, pause, &destination);
    replace(gateway, delivery, placing).await;
}

/// Puts an order into the dead letters, from where it can be replayed, and then is as new.
pub(super) async fn bury(
    gateway: &Gateway,
    (channel, order): (Channel, Option<&Order>),
    delivery: Delivery,
    (code, reason): (&str, &str),
) {
    let properties = &delivery.properties;
    let fresh = order.map(|order| Order {
        since: None,
        ..order.clone()
    });
    let mut message = fresh.map_or_else(
        || Message {
            body: delivery.body.clone(),
            id: properties.message_id.clone(),
            headers: properties.headers_to_keep(),
            persistent: true,
            ..Message::default()
        },
        |order| order.message(),
    );
    let died_at = Timestamp::now().to_string();
    for (name, value) in [
        (header::REASON, code),
        (header::ERROR, cut(reason, MAX_REASON_BYTES)),
        (header::DIED_AT, died_at.as_str()),
    ] {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    for name in [header::REPLAYS, header::HISTORY] {
        if let Some(value) = properties.headers.get(name) {
            message.headers.insert(name.to_owned(), value.clone());
        }
    }
    let (exchange, key) = (gateway.names.dead(), ladder::deliver(channel.as_str()));
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    let burying = || gateway.publisher.publish(route, &message);
    replace(gateway, delivery, burying).await;
}

/// Publishes what follows an order's message, which may go then.
async fn replace<F: Future<Output = Result<(), PublishError>>>(
    gateway: &Gateway,
    delivery: Delivery,
    publish: impl Fn() -> F,
) {
    let placed = retry::persevere(gateway, "what follows a delivery", &delivery, |_| publish());
    match placed.await {
        Some(Ok(())) => settle(delivery).await,
        // The broker puts it among the dead letters as it is.
        Some(Err(error)) => {
            warn!(%error, "what follows a delivery cannot be published");
            if let Err(error) = delivery.receipt.reject().await {
                debug!(%error, "the order comes again");
            }
        }
        // The broker delivers it again.
        None => {}
    }
}

pub(super) async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.receipt.ack().await {
        debug!(%error, "an acknowledgement was lost; the order comes again");
    }
}
