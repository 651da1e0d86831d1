//! A message that came, and the receipt that settles it.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use lapin::types::{AMQPValue, FieldTable};
use thiserror::Error;
use tokio::time::timeout;

/// Writing an acknowledgement is local work; when it takes this long, the connection is dead.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A message from a queue.
#[derive(Debug)]
pub struct Delivery {
    /// What was published.
    pub body: Vec<u8>,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The broker delivered it before and got no answer.
    pub redelivered: bool,
    /// What AMQP itself says about it.
    pub properties: Properties,
    /// Settles it.
    pub receipt: Receipt,
}

/// The properties and headers that we read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `message-id`.
    pub message_id: Option<String>,
    /// `type`.
    pub kind: Option<String>,
    /// Headers whose value is a text or a number, as text.
    pub headers: BTreeMap<String, String>,
}

/// The right to settle one delivery, once. Dropped without an answer, the message stays with us
/// until the connection ends, and then goes back to its queue.
#[derive(Debug)]
pub struct Receipt(Acker);

/// Why a message could not be settled. The broker will deliver it again.
#[derive(Debug, Error)]
pub enum SettleError {
    /// The connection it came through is gone.
    #[error("the connection that delivered the message is gone")]
    Gone,
    /// The answer could not be written in time.
    #[error("the answer could not be written within {SETTLE_TIMEOUT:?}")]
    Timeout,
    /// The broker or the network refused.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
}

impl Receipt {
    /// The message is dealt with and may go.
    ///
    /// # Errors
    /// [`SettleError`]: the message will come again.
    pub async fn ack(self) -> Result<(), SettleError> {
        settled(timeout(SETTLE_TIMEOUT, self.0.ack(BasicAckOptions::default())).await)
    }

    /// The message goes back to its queue, for another consumer.
    ///
    /// # Errors
    /// [`SettleError`]: it goes back all the same when the connection ends.
    pub async fn requeue(self) -> Result<(), SettleError> {
        let options = BasicNackOptions {
            requeue: true,
            multiple: false,
        };
        settled(timeout(SETTLE_TIMEOUT, self.0.nack(options)).await)
    }

    /// Whether the connection it came through is still there.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.0.usable()
    }
}

fn settled(
    answer: Result<lapin::Result<bool>, tokio::time::error::Elapsed>,
) -> Result<(), SettleError> {
    match answer {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(SettleError::Gone),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(SettleError::Timeout),
    }
}

impl From<lapin::message::Delivery> for Delivery {
    fn from(delivery: lapin::message::Delivery) -> Self {
        let properties = &delivery.properties;
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|text| text.as_str().to_owned())
        };
        let headers = properties.headers().iter().flat_map(FieldTable::inner);
        Self {
            properties: Properties {
                message_id: text(properties.message_id()),
                kind: text(properties.kind()),
                headers: headers
                    .filter_map(|(name, value)| Some((name.to_string(), header(value)?)))
                    .collect(),
            },
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            body: delivery.data,
            receipt: Receipt(delivery.acker),
        }
    }
}

fn header(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::ShortShortInt(number) => number.to_string(),
        AMQPValue::ShortShortUInt(number) => number.to_string(),
        AMQPValue::ShortInt(number) => number.to_string(),
        AMQPValue::ShortUInt(number) => number.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        AMQPValue::LongUInt(number) => number.to_string(),
        AMQPValue::LongLongInt(number) => number.to_string(),
        _ => return None,
    })
}
