//! The body of an event.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
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
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

/// A field's name, which is only copied where it has escapes in it.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Fields {
    type Value = Event;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Event, A::Error> {
        let (mut kind, mut id, mut time, mut data) = (None, None, None, None);
        let mut extra = BTreeMap::new();
        // As in any JSON reader, the last of two fields with one name counts.
        while let Some(Name(name)) = fields.next_key()? {
            match &*name {
                "type" => kind = Some(field(&name, &mut fields)?),
                "id" => id = Some(field(&name, &mut fields)?),
                "time" => time = Some(field(&name, &mut fields)?),
                "data" => data = Some(fields.next_value()?),
                _ => drop(extra.insert(name.into_owned(), fields.next_value()?)),
            }
        }
        let missing = A::Error::missing_field;
        Ok(Event {
            kind: kind.ok_or_else(|| missing("type"))?,
            id: id.ok_or_else(|| missing("id"))?,
            time: time.ok_or_else(|| missing("time"))?,
            data,
            extra,
        })
    }
}

fn field<'de, T: Deserialize<'de>, A: MapAccess<'de>>(
    name: &str,
    fields: &mut A,
) -> Result<T, A::Error> {
    let value = fields.next_value();
    value.map_err(|error| A::Error::custom(format_args!("field `{name}`: {error}")))
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
    fn names_with_escapes_and_fields_that_come_twice_are_read_as_anywhere() {
        let body = r#"{"ty\u0070e":"a","type":"b","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":1,"data":2,"x":1,"x":[2]}"#;
        let event = Event::parse(body.as_bytes()).unwrap();
        assert_eq!(event.kind, "b");
        assert_eq!(event.data.unwrap().get(), "2");
        assert_eq!(event.extra["x"].get(), "[2]");
        let null = body.replace(r#""data":2"#, r#""data":null"#);
        let event = Event::parse(null.as_bytes()).unwrap();
        assert_eq!(event.data.unwrap().get(), "null", "said is not left out");
    }

    #[test]
    fn a_missing_or_wrong_field_is_named() {
        for (body, wants) in [
            (
                r#"{"id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z"}"#,
                "`type`",
            ),
            (r#"{"type":1}"#, "`type`"),
            (r#"{"type":"a","id":1}"#, "`id`"),
            (r#"{"type":"a","time":"soon"}"#, "`time`"),
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
