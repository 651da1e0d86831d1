//! The body of an event.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, Error as _};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

/// Something that happened, as it travels over AMQP.
///
/// `data` and fields this version does not know are kept byte for byte, so that what a backend
/// published is what a client receives.
#[derive(Debug, Clone)]
pub struct Event {
    /// The event's name, e.g. `task.status_changed`. On the wire: `type`.
    pub kind: String,
    /// Identifies the event: repeats of a delivery carry the same id. Ours are UUID v7.
    pub id: Uuid,
    /// When it happened.
    pub time: Timestamp,
    /// What happened. Absent in what a client sent to a room without it.
    pub data: Option<Box<RawValue>>,
    /// Everything else (`source`, `title`, and fields of later versions).
    pub extra: BTreeMap<String, Box<RawValue>>,
}

/// Why a body is not an event.
#[derive(Debug, Error)]
#[error("the body is not an event: {0}")]
pub struct EventError(#[from] serde_json::Error);

impl Event {
    /// An event of our own making.
    ///
    /// # Errors
    /// [`EventError`] if `data` cannot be written as JSON (a map with keys that are no strings).
    pub fn new(
        kind: impl Into<String>,
        id: Uuid,
        time: Timestamp,
        data: &impl Serialize,
    ) -> Result<Self, EventError> {
        Ok(Self {
            kind: kind.into(),
            id,
            time,
            data: Some(serde_json::value::to_raw_value(data)?),
            extra: BTreeMap::new(),
        })
    }

    /// Reads a message body.
    ///
    /// # Errors
    /// [`EventError`] names what is missing or malformed.
    pub fn parse(body: &[u8]) -> Result<Self, EventError> {
        Ok(serde_json::from_slice(body)?)
    }

    /// Writes a message body.
    ///
    /// # Errors
    /// Never for an event that was parsed or made with [`Event::new`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, EventError> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4 + self.extra.len()))?;
        map.serialize_entry("type", &self.kind)?;
        map.serialize_entry("id", &self.id)?;
        map.serialize_entry("time", &self.time)?;
        if let Some(data) = &self.data {
            map.serialize_entry("data", data)?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

// By hand, because `#[serde(flatten)]` goes through serde's own buffer, which cannot hold raw JSON.
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        let mut take = |name: &'static str| {
            fields
                .remove(name)
                .ok_or_else(|| D::Error::missing_field(name))
        };
        let (kind, id, time) = (take("type")?, take("id")?, take("time")?);
        let data = fields.remove("data");
        Ok(Self {
            kind: field::<_, D>("type", &kind)?,
            id: field::<_, D>("id", &id)?,
            time: field::<_, D>("time", &time)?,
            data,
            extra: fields,
        })
    }
}

fn field<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    name: &str,
    raw: &RawValue,
) -> Result<T, D::Error> {
    serde_json::from_str(raw.get())
        .map_err(|error| D::Error::custom(format_args!("field `{name}`: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backend_wrote_comes_out_untouched() {
        let body = r#"{"type":"message.sent","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":{"big":12345678901234567890123,"f":1.10,"z":[null, true]},"later":{"x":1e400},"title":"Hi"}"#;
        let event = Event::parse(body.as_bytes()).unwrap();
        assert_eq!(event.kind, "message.sent");
        assert_eq!(
            String::from_utf8(event.to_bytes().unwrap()).unwrap(),
            body,
            "numbers, spacing and unknown fields must survive"
        );
    }

    #[test]
    fn a_missing_or_wrong_field_is_named() {
        for (body, wants) in [
            (r#"{"id":1,"time":"","data":1}"#, "`type`"),
            (
                r#"{"type":"a","id":"nope","time":"2026-01-15T10:30:00Z","data":1}"#,
                "`id`",
            ),
            ("[]", "map"),
            ("{", "EOF"),
        ] {
            let error = Event::parse(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(wants), "{body}: {error}");
        }
    }
}
