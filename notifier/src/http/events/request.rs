//! What a backend asks to publish. Pure.

use std::collections::BTreeMap;

use bellhop_common::wire::{
    Audience, Event, EventClass, EventError, EventKey, KeyError, MAX_ID_BYTES, is_topic,
};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

/// How many events one request may have.
const MAX_EVENTS: usize = 100;

/// The fields of an event, in the order of the documentation.
const FIELDS: [&str; 7] = ["to", "type", "data", "id", "time", "stored", "topic"];

/// An event that is ready to go.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) id: Uuid,
    pub(super) audience: Audience,
    /// The routing key.
    pub(super) key: String,
    pub(super) kind: String,
    pub(super) body: Vec<u8>,
    pub(super) stored: bool,
}

/// Why nothing is published.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error(transparent)]
    Json(serde_json::Error),
    #[error("a request has 1 to {MAX_EVENTS} events, this one has {0}")]
    Count(usize),
    #[error("{at}`{field}`: {reason}")]
    Field {
        at: At,
        field: String,
        reason: String,
    },
    #[error("{at}`to`, `type` and `topic` make no routing key: {source}")]
    Key { at: At, source: KeyError },
}

/// Which event of a list: `event 3: `, counted from 0; nothing where there is no list.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(Option<usize>);

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(index) => write!(f, "event {index}: "),
            None => Ok(()),
        }
    }
}

/// Reads a body: one event, or a list. What does not say its `id` gets one by its place.
pub(super) fn prepare(
    body: &[u8],
    now: Timestamp,
    id: impl Fn(usize) -> Uuid,
) -> Result<Vec<Prepared>, RequestError> {
    let is_list = body.trim_ascii_start().starts_with(b"[");
    let events: Vec<&RawValue> = if is_list {
        serde_json::from_slice(body)
    } else {
        serde_json::from_slice(body).map(|event| vec![event])
    }
    .map_err(RequestError::Json)?;
    if !(1..=MAX_EVENTS).contains(&events.len()) {
        return Err(RequestError::Count(events.len()));
    }
    let events = events.into_iter().enumerate();
    events
        .map(|(index, event)| {
            let at = At(is_list.then_some(index));
            Fields::read(at, event)?.prepare(now, id(index))
        })
        .collect()
}

struct Fields {
    at: At,
    fields: BTreeMap<String, Box<RawValue>>,
}

impl Fields {
    fn read(at: At, event: &RawValue) -> Result<Self, RequestError> {
        let fields: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(event.get()).map_err(|error| RequestError::Field {
                at,
                field: "event".into(),
                reason: format!("must be an object: {error}"),
            })?;
        let known = |name: &str| FIELDS.contains(&name);
        let unknown = fields.keys().find(|name| !known(name)).cloned();
        let fields = Self { at, fields };
        match unknown {
            Some(name) => {
                let reason = format!("there are only {}", FIELDS.join(", "));
                Err(fields.wrong(&name, reason))
            }
            None => Ok(fields),
        }
    }

    fn prepare(mut self, now: Timestamp, id: Uuid) -> Result<Prepared, RequestError> {
        let audience = self.audience()?;
        let kind: String = self.required("type")?;
        self.must_be_topic("type", &kind)?;
        let id = self.optional("id")?.unwrap_or(id);
        let time = self.optional("time")?.unwrap_or(now);
        let stored = self.optional("stored")?.unwrap_or(false);
        let detail: Option<String> = self.optional("topic")?;
        let topic = match detail {
            Some(detail) => {
                self.must_be_topic("topic", &detail)?;
                format!("{kind}.{detail}")
            }
            None => kind.clone(),
        };
        let class = if stored {
            EventClass::Stored
        } else {
            EventClass::Live
        };
        let key = EventKey {
            class,
            audience,
            topic,
        };
        let at = self.at;
        let event = Event {
            kind: kind.clone(),
            id,
            time,
            data: Some(self.take("data")?),
            extra: BTreeMap::new(),
        };
        let unwritable = |error: EventError| self.wrong("data", error.to_string());
        Ok(Prepared {
            id,
            key: key
                .encode()
                .map_err(|source| RequestError::Key { at, source })?,
            body: event.to_bytes().map_err(unwritable)?,
            audience: key.audience,
            kind,
            stored,
        })
    }

    fn audience(&mut self) -> Result<Audience, RequestError> {
        let to = self.take("to")?;
        if serde_json::from_str::<String>(to.get()).is_ok_and(|word| word == "all") {
            return Ok(Audience::All);
        }
        let whom = serde_json::from_str::<BTreeMap<String, String>>(to.get());
        let mut whom = whom.unwrap_or_default();
        let (Some((audience, id)), true) = (whom.pop_first(), whom.is_empty()) else {
            let wants = "must be \"all\", or an object with one of \"user\", \"room\" and \"chat\"";
            return Err(self.wrong("to", wants));
        };
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            let wants = format!("the id must have 1 to {MAX_ID_BYTES} bytes");
            return Err(self.wrong(&format!("to.{audience}"), wants));
        }
        match audience.as_str() {
            "user" => Ok(Audience::User(id)),
            "room" => Ok(Audience::Room(id)),
            "chat" => Ok(Audience::Chat(id)),
            other => Err(self.wrong(
                &format!("to.{other}"),
                "an event goes to a \"user\", a \"room\" or a \"chat\"",
            )),
        }
    }

    fn must_be_topic(&self, field: &str, text: &str) -> Result<(), RequestError> {
        if is_topic(text) {
            return Ok(());
        }
        let wants = "must be words of letters, digits, `-`, `_` and `:` with dots between";
        Err(self.wrong(field, format!("{wants}, not {text:?}")))
    }

    fn take(&mut self, field: &str) -> Result<Box<RawValue>, RequestError> {
        let value = self.fields.remove(field);
        value.ok_or_else(|| self.wrong(field, "is missing"))
    }

    fn required<T: DeserializeOwned>(&mut self, field: &str) -> Result<T, RequestError> {
        let value = self.take(field)?;
        let read = serde_json::from_str(value.get());
        read.map_err(|error| self.wrong(field, error.to_string()))
    }

    fn optional<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, RequestError> {
        if self.fields.contains_key(field) {
            self.required(field)
        } else {
            Ok(None)
        }
    }

    fn wrong(&self, field: &str, reason: impl Into<String>) -> RequestError {
        RequestError::Field {
            at: self.at,
            field: field.to_owned(),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests;
