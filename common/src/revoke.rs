//! Telling all notifiers that tokens are good no more.

use crate::amqp::{Message, Names, PublishError, Publisher, Route};
use crate::wire::Revocation;

/// Publishes a revocation; when this returns, the broker keeps it for notifiers to come, too. The
/// publisher's topology must have [the stream](crate::amqp::Topology::with_revocations).
///
/// # Errors
/// [`PublishError`]; a revocation that cannot be written as JSON is never made.
pub async fn revoke(
    publisher: &Publisher,
    names: &Names,
    revocation: &Revocation,
) -> Result<(), PublishError> {
    let message = Message {
        // Texts and times: always JSON.
        body: serde_json::to_vec(revocation).unwrap_or_default(),
        persistent: true,
        ..Message::default()
    };
    let exchange = names.control();
    let route = Route {
        exchange: &exchange,
        key: &revocation.key(),
        mandatory: true,
    };
    publisher.publish(route, &message).await
}
