//! What is to be sent to one recipient, as it waits in the queue of its channel.

use bellhop_common::amqp::{Message, PublishError, Route};
use bellhop_common::wire::NAMESPACE;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::away::{Channel, MailChoice};
use crate::gateway::Gateway;
use crate::store::Epoch;

/// What is to be sent. The events' texts stay in the store, so that what is read or too old
/// meanwhile is not sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The same for every attempt, and if it is ordered twice.
    pub(crate) id: Uuid,
    /// How.
    pub(crate) channel: Channel,
    /// To whom.
    #[serde(rename = "user")]
    pub(crate) user_id: String,
    /// To which of his push subscriptions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    /// The events' category.
    pub(crate) category: String,
    /// It is a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<MailChoice>,
    /// The life of his stream.
    pub(crate) epoch: Epoch,
    /// Which events, the oldest first.
    pub(crate) events: Vec<Ordered>,
    /// How many older ones it stands for besides, without their texts.
    #[serde(default)]
    pub(crate) more: u32,
    /// When it was first tried and not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since: Option<Timestamp>,
}

/// An event to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ordered {
    /// Its number in its user's stream.
    pub(crate) seq: u64,
    /// Its id.
    pub(crate) id: Uuid,
}

impl Order {
    /// An order of events, which are not empty.
    pub(crate) fn new(
        (channel, device): (Channel, Option<&str>),
        user_id: &str,
        (category, digest): (&str, Option<MailChoice>),
        (epoch, events): (Epoch, Vec<Ordered>),
    ) -> Self {
        let ids: Vec<_> = events.iter().map(|event| event.id).collect();
        let name = serde_json::json!([channel, device, user_id, digest, ids]).to_string();
        Self {
            id: Uuid::new_v5(&NAMESPACE, name.as_bytes()),
            channel,
            user_id: user_id.to_owned(),
            device: device.map(str::to_owned),
            category: category.to_owned(),
            digest,
            epoch,
            events,
            more: 0,
            since: None,
        }
    }

    /// The message that carries it.
    pub(crate) fn message(&self) -> Message {
        Message {
            // Texts and numbers can always be written.
            body: serde_json::to_vec(self).unwrap_or_default(),
            id: Some(self.id.to_string()),
            persistent: true,
            ..Message::default()
        }
    }

    /// Puts it into the queue of its channel.
    ///
    /// # Errors
    /// [`PublishError`].
    pub(crate) async fn place(&self, gateway: &Gateway) -> Result<(), PublishError> {
        let queue = gateway.names.deliver(self.channel.as_str());
        let route = Route {
            exchange: "",
            key: &queue,
            mandatory: true,
        };
        gateway.publisher.publish(route, &self.message()).await
    }
}
