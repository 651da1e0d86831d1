//! An event as an alert: what routes ask of it, and what of it is shown. Pure.

use bellhop_common::wire::{Audience, Event, EventKey, TASK_STATUS_CHANGED};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Refused;
use crate::alerts::markdown::excerpt;

/// The type of the event that a post becomes which a receiver refused.
pub(crate) const REFUSED: &str = "alerts.refused";

/// Longest id that is kept, in bytes.
const ID_MAX: usize = 64;

/// Longest address that is kept, in bytes.
const LINK_MAX: usize = 1_000;

/// How much an alert matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it some time.
    Warning,
    /// Look at it.
    Error,
    /// Look at it now, at night too.
    Critical,
}

/// What an alert says of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Something is wrong.
    Firing {
        /// It says so itself, and will say when it is over.
        stated: bool,
    },
    /// Nothing is wrong any more.
    Resolved,
}

/// An event that somebody may want to be told.
#[derive(Debug)]
pub(crate) struct Alert {
    pub(crate) id: Uuid,
    pub(crate) time: Timestamp,
    pub(crate) routing_key: String,
    audience: Audience,
    kind: String,
    data: Value,
}

/// What a message in the queue of alerts is.
#[derive(Debug)]
pub(crate) enum Message {
    Alert(Box<Alert>),
    /// A post that was refused once and comes back from the dead letters.
    Again(Uuid, Box<Refused>),
}

/// What of an alert is kept until it is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) id: Uuid,
    pub(crate) time: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) task_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<String>,
    /// The attempt that failed, and how many there could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<(u64, u64)>,
}

/// How much of alerts is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Detail {
    /// How many of a group.
    pub(crate) shown: usize,
    /// Bytes of a text.
    pub(crate) text: usize,
    /// Bytes of a name or code.
    pub(crate) short: usize,
    /// Also titles and links.
    pub(crate) all: bool,
}

impl Shown {
    /// Something that nobody published.
    pub(crate) fn of_ours(id: Uuid, time: Timestamp, text: &str) -> Self {
        Self {
            id,
            time,
            task_id: None,
            title: None,
            user_id: None,
            code: None,
            text: Some(text.to_owned()),
            link: None,
            attempt: None,
        }
    }
}

impl Message {
    /// Reads a message of the queue.
    pub(crate) fn read(routing_key: &str, body: &[u8]) -> Result<Self, String> {
        let event = Event::parse(body).map_err(|error| error.to_string())?;
        let data = event.data.as_deref().map_or("null", RawValue::get);
        let bad = |error| format!("the data of the event {}: {error}", event.kind);
        if event.kind == REFUSED {
            let refused = serde_json::from_str(data).map_err(bad)?;
            return Ok(Self::Again(event.id, refused));
        }
        let data: Value = serde_json::from_str(data).map_err(bad)?;
        let (routing_key, key) = match EventKey::parse(routing_key) {
            Ok(key) => (routing_key.to_owned(), key),
            // Back from the dead letters it comes by its queue's name.
            Err(error) => {
                let key = key_of_task(&event.kind, &data).ok_or_else(|| error.to_string())?;
                (key.to_string(), key)
            }
        };
        Ok(Self::Alert(Box::new(Alert {
            id: event.id,
            time: event.time,
            routing_key,
            audience: key.audience,
            kind: event.kind,
            data,
        })))
    }
}

fn key_of_task(kind: &str, data: &Value) -> Option<EventKey> {
    let (user_id, status) = (text(data.get("user_id"))?, text(data.get("status"))?);
    (kind == TASK_STATUS_CHANGED).then(|| EventKey {
        class: bellhop_common::wire::EventClass::Stored,
        audience: Audience::User(user_id),
        topic: format!("{kind}.{status}"),
    })
}

impl Alert {
    /// A label's value; `None` if there is no such label here.
    pub(crate) fn label(&self, name: &str) -> Option<String> {
        match name {
            "type" => Some(self.kind.clone()),
            "audience" => Some(self.audience.word().to_owned()),
            "channel" => match &self.audience {
                Audience::Team(channel) => Some(channel.clone()),
                _ => None,
            },
            "user_id" => match &self.audience {
                Audience::User(user_id) => Some(user_id.clone()),
                _ => self.text("user_id"),
            },
            "error_code" => text(self.data.pointer("/error/code")),
            "fingerprint" => self.text(name).or_else(|| Some(self.kind.clone())),
            _ => {
                let path = name.strip_prefix("data.").unwrap_or(name);
                let found = path
                    .split('.')
                    .try_fold(&self.data, |at, word| at.get(word));
                text(found)
            }
        }
    }

    pub(crate) fn signal(&self) -> Signal {
        // The states of tasks are no such statement: routes say what they mean by them.
        let stated = match self.audience {
            Audience::Team(_) => self.text("status"),
            _ => None,
        };
        match stated.as_deref() {
            Some("resolved") => Signal::Resolved,
            stated => Signal::Firing {
                stated: stated == Some("firing"),
            },
        }
    }

    pub(crate) fn severity(&self) -> Option<Severity> {
        serde_json::from_value(self.data.get("severity")?.clone()).ok()
    }

    /// What of it is kept.
    pub(crate) fn shown(&self, detail: Detail) -> Shown {
        let short = |text: String| excerpt(&text, detail.short);
        let full = |name| {
            let text = detail.all.then(|| self.text(name)).flatten();
            text.map(short)
        };
        let message = text(self.data.pointer("/error/message")).or_else(|| self.text("text"));
        let number = |name| self.data.get(name).and_then(Value::as_u64);
        Shown {
            id: self.id,
            time: self.time,
            task_id: self.text("task_id").map(|id| excerpt(&id, ID_MAX)),
            title: full("title"),
            user_id: self.label("user_id").map(short),
            code: self.label("error_code").map(short),
            text: message.map(|text| excerpt(&text, detail.text)),
            link: (self.text("link")).filter(|link| detail.all && link.len() <= LINK_MAX),
            attempt: number("attempt").zip(number("max_attempts")),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        text(self.data.get(name))
    }
}

/// Texts, numbers and flags as text; nothing else.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::String(text) => Some(text.clone()),
        value @ (Value::Number(_) | Value::Bool(_)) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn alert(key: &str, data: &Value) -> Alert {
        let body = json!({"type": "task.status_changed", "data": data,
            "id": "0197f0a0-0000-7000-8000-000000000001", "time": "2026-01-15T10:30:00Z"});
        match Message::read(key, body.to_string().as_bytes()) {
            Ok(Message::Alert(alert)) => *alert,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn labels_come_from_the_key_and_the_data() {
        let data = json!({"kind": "report", "user_id": "x", "error": {"code": "timeout"},
            "host": {"name": "db1", "port": 5432}, "list": [1]});
        let of_user = alert("stored.user.a%2Eb.task.status_changed.failed", &data);
        let of_team = alert("live.team.ops.disk.full", &data);
        for (alert, name, wants) in [
            (&of_user, "kind", Some("report")),
            (&of_user, "user_id", Some("a.b")),
            (&of_team, "user_id", Some("x")),
            (&of_user, "audience", Some("user")),
            (&of_user, "channel", None),
            (&of_team, "channel", Some("ops")),
            (&of_team, "fingerprint", Some("task.status_changed")),
            (&of_user, "error_code", Some("timeout")),
            (&of_user, "data.host.name", Some("db1")),
            (&of_user, "host.port", Some("5432")),
            (&of_user, "data.list", None),
            (&of_user, "data.host", None),
            (&of_user, "nothing", None),
        ] {
            assert_eq!(alert.label(name).as_deref(), wants, "{name}");
        }
    }

    #[test]
    fn only_a_team_says_that_something_is_over() {
        let signal = |key, status| alert(key, &json!({ "status": status })).signal();
        let stated = Signal::Firing { stated: true };
        let silent = Signal::Firing { stated: false };
        assert_eq!(signal("live.team.ops.x", "firing"), stated);
        assert_eq!(signal("live.team.ops.x", "resolved"), Signal::Resolved);
        assert_eq!(signal("live.team.ops.x", "odd"), silent);
        assert_eq!(signal("live.user.ann.x", "resolved"), silent);
    }

    #[test]
    fn a_task_from_the_dead_letters_is_known_by_its_data() {
        let data = json!({"user_id": "a.b", "status": "failed"});
        let key = alert("bellhop.alerts", &data).routing_key;
        assert_eq!(key, "stored.user.a%2Eb.task.status_changed.failed");
        let body = br#"{"type":"x","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z"}"#;
        assert!(Message::read("bellhop.alerts", body).is_err());
        assert!(Message::read("live.team.ops.x", body).is_ok());
        assert!(Message::read("live.team.ops.x", b"{").is_err());
    }

    #[test]
    fn long_and_hidden_text_is_cut() {
        let data = json!({"title": "t".repeat(500), "text": "ä\u{202e}".repeat(5000),
            "link": "x".repeat(2000)});
        let detail = Detail {
            shown: 10,
            text: 1000,
            short: 100,
            all: true,
        };
        let shown = alert("live.team.ops.x", &data).shown(detail);
        assert_eq!(shown.text.unwrap(), "ä".repeat(500) + "…");
        assert_eq!(shown.title.unwrap(), "t".repeat(100) + "…");
        assert_eq!(shown.link, None);
    }
}
