//! A message that came, and the receipt that settles it.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::time::Duration;

use lapin::Acker;
use lapin::options::{BasicAckOptions, BasicNackOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::time::timeout;

use crate::wire::header;

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

impl Delivery {
    pub(super) fn new(delivery: lapin::message::Delivery, connection: Weak<()>) -> Self {
        let properties = &delivery.properties;
        let text = |value: &Option<lapin::types::ShortString>| {
            value.as_ref().map(|text| text.as_str().to_owned())
        };
        let (mut headers, mut json_headers) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
            match header(value) {
                Some(text) => drop(headers.insert(name.to_string(), text)),
                None if name.as_str().starts_with("x-") || *value == AMQPValue::Void => {}
                None => drop(json_headers.insert(name.to_string(), json(value))),
            }
        }
        Self {
            properties: Properties {
                message_id: text(properties.message_id()),
                kind: text(properties.kind()),
                priority: *properties.priority(),
                reply_to: text(properties.reply_to()),
                correlation_id: text(properties.correlation_id()),
                content_type: text(properties.content_type()),
                timestamp: *properties.timestamp(),
                headers,
                json_headers,
            },
            routing_key: delivery.routing_key.to_string(),
            redelivered: delivery.redelivered,
            body: delivery.data,
            receipt: Receipt {
                acker: delivery.acker,
                connection,
            },
        }
    }

    /// Where the message stands in its stream, if it came from one.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.properties.headers.get("x-stream-offset")?.parse().ok()
    }
}

/// The properties and headers that we read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `message-id`.
    pub message_id: Option<String>,
    /// `type`.
    pub kind: Option<String>,
    /// `priority`.
    pub priority: Option<u8>,
    /// `reply-to`: a queue that waits for the result.
    pub reply_to: Option<String>,
    /// `correlation-id`.
    pub correlation_id: Option<String>,
    /// `content-type`.
    pub content_type: Option<String>,
    /// `timestamp`: when it was published, in seconds since 1970, by the producer's clock.
    pub timestamp: Option<u64>,
    /// Headers whose value is a text or a whole number, as text.
    pub headers: BTreeMap<String, String>,
    /// Headers with any other value, such as a list, without the broker's own (`x-…`). They are
    /// never published again: the broker gives some of them a meaning, and closes the channel over
    /// those that came back in another form.
    pub json_headers: BTreeMap<String, Value>,
}

/// The right to settle one delivery, once. Dropped without an answer, the message stays with us
/// until the connection ends, and then goes back to its queue.
#[derive(Debug)]
pub struct Receipt {
    acker: Acker,
    connection: Weak<()>,
}

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
    /// Whether the connection it came through still stands, as far as we know. If not, the message
    /// may be with somebody else by now.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.connection.strong_count() > 0
    }

    /// The message is dealt with and may go.
    ///
    /// # Errors
    /// [`SettleError`]: the message will come again.
    pub async fn ack(self) -> Result<(), SettleError> {
        settled(timeout(SETTLE_TIMEOUT, self.acker.ack(BasicAckOptions::default())).await)
    }

    /// This message is dealt with and may go, and so may all that were delivered before it from the
    /// same queue.
    ///
    /// # Errors
    /// [`SettleError`]: the messages will come again.
    pub async fn ack_up_to_here(self) -> Result<(), SettleError> {
        let options = BasicAckOptions { multiple: true };
        settled(timeout(SETTLE_TIMEOUT, self.acker.ack(options)).await)
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
        settled(timeout(SETTLE_TIMEOUT, self.acker.nack(options)).await)
    }

    /// The message goes to the dead letters of its queue, as it is.
    ///
    /// # Errors
    /// [`SettleError`]: the message will come again.
    pub async fn reject(self) -> Result<(), SettleError> {
        let options = BasicRejectOptions { requeue: false };
        settled(timeout(SETTLE_TIMEOUT, self.acker.reject(options)).await)
    }
}

impl Properties {
    /// The headers that go with a copy of the message: not the broker's own counters, which would
    /// make a replayed message look worn out. When they would not fit into one frame, first what
    /// producers added goes, then the history of a replayed job.
    #[must_use]
    pub fn headers_to_keep(&self) -> BTreeMap<String, String> {
        let headers = self.headers.iter();
        headers_to_keep(headers.map(|(name, value)| (name.as_str(), value.as_str())))
    }
}

/// The same of headers that are held otherwise.
#[must_use]
pub fn headers_to_keep<'a>(
    headers: impl Iterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    let of_broker = |name: &str| {
        name.starts_with("x-death")
            || name.starts_with("x-first-death")
            || name.starts_with("x-last-death")
            || name == "x-stream-offset"
            || name.ends_with("-count")
    };
    let mut kept: BTreeMap<_, _> = headers
        .filter(|(name, _)| !of_broker(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if !fits(&kept) {
        kept.retain(|name, _| name.starts_with(OURS));
    }
    if !fits(&kept) {
        kept.remove(header::HISTORY);
    }
    // Ours are short: these are somebody else's after all, and no frame has room for them.
    if !fits(&kept) {
        kept.clear();
    }
    kept
}

fn fits(headers: &BTreeMap<String, String>) -> bool {
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + HEADER_OVERHEAD)
        .sum();
    bytes <= MAX_KEPT_HEADERS
}

/// What the names of our own headers begin with.
const OURS: &str = "x-bellhop-";

/// All headers must fit into one [frame](super::connect::OWN_FRAME) with ours and the properties.
/// The history of a replayed job, of 16 KiB, may come on top.
const MAX_KEPT_HEADERS: usize = 24 * 1024;

/// What AMQP writes around the name and the text of a header.
const HEADER_OVERHEAD: usize = 6;

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

fn json(value: &AMQPValue) -> Value {
    if let Some(text) = header(value) {
        return match value {
            AMQPValue::LongString(_) | AMQPValue::ShortString(_) => Value::from(text),
            // JSON has no other way to write a whole number.
            _ => text.parse::<i64>().map_or(Value::Null, Value::from),
        };
    }
    match value {
        AMQPValue::Boolean(flag) => Value::from(*flag),
        AMQPValue::Float(number) => Value::from(*number),
        AMQPValue::Double(number) => Value::from(*number),
        AMQPValue::Timestamp(seconds) => Value::from(*seconds),
        AMQPValue::FieldArray(list) => list.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => {
            let fields = table.inner().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), json(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::FieldArray;
    use serde_json::json;

    #[test]
    fn of_too_many_headers_ours_are_kept() {
        let (much, past) = ("x".repeat(25 * 1024), "y".repeat(16 * 1024));
        let ours = [("x-bellhop-attempt", "3"), ("x-bellhop-origin", "then")];
        let kept = |more: &[(&str, &str)]| {
            let all = ours.iter().chain(more).copied();
            headers_to_keep(all).into_keys().collect::<Vec<_>>()
        };
        let names = ours.map(|(name, _)| name);
        let history = (header::HISTORY, past.as_str());
        assert_eq!(kept(&[("theirs", &much)]), names);
        let some = "z".repeat(10 * 1024);
        assert_eq!(
            kept(&[("theirs", &some), history]),
            [names[0], header::HISTORY, names[1]]
        );
        assert_eq!(kept(&[(header::HISTORY, &much)]), names);
        // Not ours, whatever it is called: it would not fit into a frame.
        assert!(kept(&[("x-bellhop-much", &much)]).is_empty());
    }

    /// As py-amqp writes `[30, None]`, `[1.5, True]` and `{"a": "b"}`.
    #[test]
    fn lists_and_tables_are_json() {
        let text = |text: &str| AMQPValue::LongString(text.into());
        let list = |values: Vec<AMQPValue>| AMQPValue::FieldArray(FieldArray::from(values));
        let limits = list(vec![AMQPValue::LongInt(30), AMQPValue::Void]);
        assert_eq!(super::json(&limits), json!([30, null]));
        let mixed = list(vec![AMQPValue::Double(1.5), AMQPValue::Boolean(true)]);
        assert_eq!(super::json(&mixed), json!([1.5, true]));
        let mut table = FieldTable::default();
        table.insert("a".into(), text("b"));
        assert_eq!(
            super::json(&AMQPValue::FieldTable(table)),
            json!({"a": "b"})
        );
    }
}
