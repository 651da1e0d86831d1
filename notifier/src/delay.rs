//! Messages for later: they wait in RabbitMQ's delay ladder, and not here.

use std::time::Duration;

use bellhop_common::amqp::{Message, PublishError, Route, ladder};

use crate::gateway::Gateway;

/// Puts a message on the ladder, to arrive at a destination after so many whole seconds.
///
/// # Errors
/// [`PublishError`].
pub(crate) async fn later(
    gateway: &Gateway,
    message: &Message,
    after: Duration,
    destination: &str,
) -> Result<(), PublishError> {
    if let Some(level) = ladder::top_level(after) {
        let raising = gateway
            .rungs
            .raise(&gateway.publisher, &gateway.names, level);
        raising.await?;
    }
    let (exchange, key) = (gateway.names.delay(), ladder::key(after, destination));
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    gateway.publisher.publish(route, message).await
}
