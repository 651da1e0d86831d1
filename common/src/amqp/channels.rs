//! The channels that messages go out by, and what the broker's answer means.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use tokio::runtime::Handle;

use super::publisher::{Message, PublishError, Route};
use super::topology::Topology;

/// How many `mandatory` messages may be under way at once, each on a channel of its own: lapin gives
/// a returned message to whichever confirm of the channel comes next, so that two on one channel
/// could take each other's fate.
pub(super) const MANDATORY_CHANNELS: usize = 16;

/// The channels of one connection, all with confirms.
#[derive(Debug)]
pub(super) struct Channels {
    connection: Arc<Connection>,
    /// For messages that may go nowhere; any number at once.
    shared: Channel,
    /// For `mandatory` messages, one at a time each.
    idle: Mutex<Vec<Channel>>,
}

impl Channels {
    pub(super) async fn open(connection: &Arc<Connection>) -> lapin::Result<Self> {
        Ok(Self {
            shared: open_channel(connection).await?,
            connection: Arc::clone(connection),
            idle: Mutex::default(),
        })
    }

    /// The channel that stands for the connection's health.
    pub(super) fn shared(&self) -> &Channel {
        &self.shared
    }

    /// Whether the connection and the shared channel still take messages.
    pub(super) fn are_sound(&self) -> bool {
        self.connection.status().connected() && self.shared.status().connected()
    }

    /// On a channel of its own, because a refusal closes it.
    pub(super) async fn declare(&self, topology: &Topology) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        topology.declare(&channel).await
    }

    /// A channel with confirms for somebody's own use, closed when dropped.
    pub(super) async fn fresh(&self) -> lapin::Result<Channel> {
        open_channel(&self.connection).await
    }

    pub(super) async fn send(
        &self,
        route: Route<'_>,
        message: &Message,
    ) -> lapin::Result<Confirmation> {
        if !route.mandatory {
            return send(&self.shared, route, message).await;
        }
        let idle = self.lock_idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => open_channel(&self.connection).await?,
        };
        let confirmation = send(&channel, route, message).await?;
        // Only now: a channel whose publish failed or was given up is dropped, which closes it. The
        // late answer must not meet the next message.
        self.lock_idle().push(channel);
        Ok(confirmation)
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

async fn send(
    channel: &Channel,
    route: Route<'_>,
    message: &Message,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: route.mandatory,
        immediate: false,
    };
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(if message.persistent { 2 } else { 1 });
    if let Some(id) = &message.id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(kind) = &message.kind {
        properties = properties.with_type(kind.as_str().into());
    }
    if let Some(priority) = message.priority {
        properties = properties.with_priority(priority);
    }
    if let Some(reply_to) = &message.reply_to {
        properties = properties.with_reply_to(reply_to.as_str().into());
    }
    if let Some(id) = &message.correlation_id {
        properties = properties.with_correlation_id(id.as_str().into());
    }
    if let Some(timestamp) = message.timestamp {
        properties = properties.with_timestamp(timestamp);
    }
    if !message.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            headers.insert(
                name.as_str().into(),
                AMQPValue::LongString(value.as_str().into()),
            );
        }
        properties = properties.with_headers(headers);
    }
    let (exchange, key) = (route.exchange.into(), route.key.into());
    let confirm = channel
        .basic_publish(exchange, key, options, &message.body, properties)
        .await?;
    InFlight(Some(confirm)).confirmed().await
}

/// A confirm that is awaited to its end even if nobody wants it any more: lapin keeps those that
/// are dropped for as long as the channel lives.
struct InFlight(Option<PublisherConfirm>);

impl InFlight {
    async fn confirmed(mut self) -> lapin::Result<Confirmation> {
        let result = match &mut self.0 {
            Some(confirm) => confirm.await,
            None => Ok(Confirmation::NotRequested),
        };
        self.0 = None;
        result
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let (Some(confirm), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // Ends with the confirm, or with the channel.
            runtime.spawn(async move { drop(confirm.await) });
        }
    }
}

/// An unroutable mandatory message is confirmed all the same; only the returned message tells.
pub(super) fn verdict(route: Route<'_>, confirmation: Confirmation) -> Result<(), PublishError> {
    let (exchange, key) = (route.exchange.to_owned(), route.key.to_owned());
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            Err(PublishError::Unroutable {
                exchange,
                key,
                reason: returned.reply_text.to_string(),
            })
        }
        Confirmation::Nack(None) | Confirmation::NotRequested => {
            Err(PublishError::Refused { exchange, key })
        }
    }
}
