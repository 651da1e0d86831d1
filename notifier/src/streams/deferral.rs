//! Stored events that are for later: they wait in RabbitMQ's delay ladder, and come back to the inbox.

use std::time::Duration;

use bellhop_common::amqp::{Delivery, Message, ladder};
use bellhop_common::wire::{Event, header};
use jiff::Timestamp;
use metrics::counter;
use tracing::warn;

use super::retry::{is_told, wait};
use crate::delay::later;
use crate::gateway::Gateway;
use crate::inbound::malformed;
use crate::metric;

/// The field that says when.
const FIELD: &str = "deliver_at";

/// When an event is to be told, if that is to come.
pub(super) fn due(event: &Event, now: Timestamp) -> Option<Timestamp> {
    let at: Timestamp = serde_json::from_str(event.extra.get(FIELD)?.get()).ok()?;
    (at > now).then_some(at)
}

/// The routing key that an event had before it waited, or has.
pub(super) fn key_of(delivery: &Delivery) -> &str {
    let kept = delivery.properties.headers.get(header::EVENT_KEY);
    kept.map_or(&*delivery.routing_key, String::as_str)
}

/// Has an event wait; whether it does now. If not, the broker delivers it again.
pub(super) async fn put_off(
    gateway: &Gateway,
    delivery: &Delivery,
    due: Timestamp,
    last: Option<&Delivery>,
) -> bool {
    // Up, or it would come back a moment too early.
    let left = gateway.clock.forward().duration_until(due).as_secs() + 1;
    let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let mut message = Message {
        body: delivery.body.clone(),
        id: delivery.properties.message_id.clone(),
        kind: delivery.properties.kind.clone(),
        headers: delivery.properties.headers_to_keep(),
        persistent: true,
        ..Message::default()
    };
    let key = key_of(delivery).to_owned();
    message.headers.insert(header::EVENT_KEY.to_owned(), key);
    let mut failures = 0;
    loop {
        match later(gateway, &message, left, ladder::DEFERRED).await {
            Ok(()) => {
                counter!(metric::DEFERRED).increment(1);
                return true;
            }
            Err(error) if error.is_permanent() => {
                malformed::<()>(&error);
                return true;
            }
            Err(error) => {
                if is_told(failures) {
                    warn!(%error, failures, "an event for later cannot be put off yet");
                }
                if wait(gateway, failures, last).await.is_none() {
                    return false;
                }
                failures += 1;
            }
        }
    }
}
