//! What can never be posted, into the dead letters with the reason.

use bellhop_common::amqp::{Delivery, Message, PublishError, Route};
use bellhop_common::wire::{Event, cut, header};
use jiff::Timestamp;
use tracing::error;
use uuid::Uuid;

use super::engine::{REFUSED, Refused};
use crate::gateway::Gateway;

/// AMQP headers share one frame with the properties.
const MAX_REASON_BYTES: usize = 1024;

/// A message that is no event.
pub(super) async fn bury_unreadable(
    gateway: &Gateway,
    delivery: &Delivery,
    reason: &str,
) -> Result<(), PublishError> {
    let message = Message {
        body: delivery.body.clone(),
        id: delivery.properties.message_id.clone(),
        kind: delivery.properties.kind.clone(),
        headers: delivery.properties.headers_to_keep(),
        persistent: true,
        ..Message::default()
    };
    bury(gateway, message, "unreadable", reason).await
}

/// A post that its receiver will never take. Replayed, what it told is told again.
pub(super) async fn bury_refused(
    gateway: &Gateway,
    refused: &Refused,
    reason: &str,
) -> Result<(), PublishError> {
    let (id, now) = (Uuid::now_v7(), Timestamp::now());
    let body = Event::new(REFUSED, id, now, refused).and_then(|event| event.to_bytes());
    let message = Message {
        body: body.unwrap_or_default(),
        id: Some(id.to_string()),
        kind: Some(REFUSED.to_owned()),
        persistent: true,
        ..Message::default()
    };
    bury(gateway, message, "alert_refused", reason).await
}

async fn bury(
    gateway: &Gateway,
    mut message: Message,
    code: &str,
    reason: &str,
) -> Result<(), PublishError> {
    error!(reason, "an alert goes to the dead letters");
    let reason = cut(reason, MAX_REASON_BYTES);
    let died_at = Timestamp::now().to_string();
    for (name, value) in [
        (header::REASON, code),
        (header::ERROR, reason),
        (header::DIED_AT, died_at.as_str()),
    ] {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    let exchange = gateway.names.dead();
    let route = Route {
        exchange: &exchange,
        key: "alerts",
        mandatory: true,
    };
    gateway.publisher.publish(route, &message).await
}
