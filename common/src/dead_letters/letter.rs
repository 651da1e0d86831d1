//! What a dead letter says of itself.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::amqp::{Death, Message, Names, Properties};
use crate::wire::{TaskError, cut, header};

/// The reason of a message that is no job.
pub(super) const UNREADABLE: &str = "unreadable";

/// The routing key of an alert that was given up. A job's letter has the header
/// [`header::QUEUE`], even if its queue has this name.
const ALERTS_KEY: &str = "alerts";

/// What the routing key of an order begins with that could not be delivered; the channel follows.
const DELIVER_KEY: &str = "deliver.";

/// A foreign publisher may write anything of any length; this much of a text is kept.
const MAX_TEXT_BYTES: usize = 1024;

/// A longer id, kind or user cannot be a job's (see [`crate::wire::MAX_ID_BYTES`]).
const MAX_NAME_BYTES: usize = 256;

/// Makes a message one for the dead letters: why, from which queue, when.
pub fn bury(message: &mut Message, queue: &str, error: &TaskError, now: Timestamp) {
    // Headers share one frame with the properties; a long error is cut.
    let text = cut(&error.message, MAX_TEXT_BYTES);
    for (name, value) in [
        (header::REASON, error.code.clone()),
        (header::ERROR, text.to_owned()),
        (header::QUEUE, queue.to_owned()),
        (header::DIED_AT, now.to_string()),
    ] {
        message.headers.insert(name.to_owned(), value);
    }
}

/// A message in the dead letters, without its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// The job's id. A message without one gets a UUID made from what it says, so that it has the
    /// same each time it is seen.
    pub id: String,
    /// The job's kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where it came from: a job queue's short name, or another queue's whole name.
    #[serde(rename = "queue", skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The error's code; `delivery_limit`, `rejected`, `expired` or `maxlen` from the broker.
    pub reason: String,
    /// The error's message, cut to 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How many attempts were made since it was put in or replayed; 0 for what is no job.
    pub attempts: u32,
    /// When it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub died_at: Option<Timestamp>,
    /// How often it was brought back.
    pub replays: u32,
    /// What became of it before each replay, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Past>,
    /// The size of its body.
    pub bytes: usize,
}

/// Which queue a letter came from, and goes back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// A queue of jobs, by its short name.
    Jobs(String),
    /// Another queue, by its whole name.
    Queue(String),
}

impl Origin {
    /// The name as it is shown.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Jobs(name) | Self::Queue(name) => name,
        }
    }
}

/// One end that was not the last: an entry of the header [`header::HISTORY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// The error's code.
    pub reason: String,
    /// The error's message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub died_at: Option<Timestamp>,
    /// How many attempts were made.
    pub attempts: u32,
}

/// Of a body, what may be of use. Not a [`crate::wire::Job`]: the body of a letter may be wrong.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Face {
    id: Option<Value>,
    kind: Option<Value>,
    user_id: Option<Value>,
    title: Option<Value>,
}

impl DeadLetter {
    /// Reads a message of the queue `bellhop.dead`. Whatever it is, something can be said of it.
    #[must_use]
    pub fn read(
        names: &Names,
        routing_key: &str,
        properties: &Properties,
        death: Option<&Death>,
        body: &[u8],
    ) -> Self {
        let headers = &properties.headers;
        let face: Face = serde_json::from_slice(body).unwrap_or_default();
        let origin = origin(names, routing_key, headers, death);
        let by_broker = death.filter(|_| !headers.contains_key(header::REASON));
        let (reason, error, died_at) = match by_broker {
            Some(death) => {
                let Death { queue, reason, at } = death;
                let error = format!("the broker took it out of {queue} ({reason})");
                (reason.clone(), Some(error), *at)
            }
            None => (
                text(headers, header::REASON).unwrap_or_else(|| "unknown".to_owned()),
                text(headers, header::ERROR),
                headers.get(header::DIED_AT).and_then(|at| at.parse().ok()),
            ),
        };
        let is_job = matches!(origin, Some(Origin::Jobs(_))) && reason != UNREADABLE;
        let property = |text: &Option<String>| text.clone();
        Self {
            id: name(face.id)
                .or_else(|| property(&properties.message_id))
                .or_else(|| headers.get("id").cloned())
                .unwrap_or_else(|| stand_in(routing_key, died_at, body)),
            kind: name(face.kind)
                .or_else(|| property(&properties.kind))
                // Celery's.
                .or_else(|| headers.get("task").cloned()),
            user_id: name(face.user_id),
            title: name(face.title),
            attempts: number(headers, header::ATTEMPT).unwrap_or(u32::from(is_job)),
            replays: number(headers, header::REPLAYS).unwrap_or(0),
            history: history(headers),
            bytes: body.len(),
            origin,
            reason,
            error,
            died_at,
        }
    }

    /// Whether a worker could not make sense of it, and would not now.
    #[must_use]
    pub fn is_unreadable(&self) -> bool {
        self.reason == UNREADABLE
    }

    /// This end, as an entry for the history.
    #[must_use]
    pub fn past(&self) -> Past {
        Past {
            reason: self.reason.clone(),
            error: self.error.clone(),
            died_at: self.died_at,
            attempts: self.attempts,
        }
    }
}

fn origin(
    names: &Names,
    routing_key: &str,
    headers: &BTreeMap<String, String>,
    death: Option<&Death>,
) -> Option<Origin> {
    if let Some(queue) = headers.get(header::QUEUE) {
        return Some(Origin::Jobs(queue.clone()));
    }
    if let Some(Death { queue, .. }) = death {
        let short = names.short_name(queue).map(str::to_owned);
        return Some(short.map_or_else(|| Origin::Queue(queue.clone()), Origin::Jobs));
    }
    if !headers.contains_key(header::REASON) {
        return None;
    }
    let channel = routing_key.strip_prefix(DELIVER_KEY);
    match channel {
        Some(channel) => Some(Origin::Queue(names.deliver(channel))),
        None if routing_key == ALERTS_KEY => Some(Origin::Queue(names.alerts())),
        None => None,
    }
}

pub(super) fn number(headers: &BTreeMap<String, String>, name: &str) -> Option<u32> {
    headers.get(name)?.parse().ok()
}

fn text(headers: &BTreeMap<String, String>, name: &str) -> Option<String> {
    Some(cut(headers.get(name)?, MAX_TEXT_BYTES).to_owned())
}

fn name(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(name) if (1..=MAX_NAME_BYTES).contains(&name.len()) => Some(name),
        _ => None,
    }
}

fn history(headers: &BTreeMap<String, String>) -> Vec<Past> {
    let list = headers.get(header::HISTORY);
    list.and_then(|list| serde_json::from_str(list).ok())
        .unwrap_or_default()
}

fn stand_in(routing_key: &str, died_at: Option<Timestamp>, body: &[u8]) -> String {
    let at = died_at.map(|at| at.to_string()).unwrap_or_default();
    let says = [routing_key.as_bytes(), at.as_bytes(), body].join(&0);
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &says).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmqpConfig;

    fn read(
        key: &str,
        headers: &[(&str, &str)],
        death: Option<(&str, &str)>,
        body: &str,
    ) -> DeadLetter {
        let headers = headers.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        let properties = Properties {
            headers: headers.collect(),
            ..Properties::default()
        };
        let death = death.map(|(queue, reason)| Death {
            queue: queue.into(),
            reason: reason.into(),
            at: "2026-01-15T10:30:00Z".parse().ok(),
        });
        let names = Names::new(&AmqpConfig::default());
        DeadLetter::read(&names, key, &properties, death.as_ref(), body.as_bytes())
    }

    #[test]
    fn a_job_that_a_worker_gave_up_says_it_all() {
        let letter = read(
            "mail",
            &[
                (header::QUEUE, "mail"),
                (header::REASON, "exit_3"),
                (header::ERROR, "no disk"),
                (header::DIED_AT, "2026-01-15T10:30:00Z"),
                (header::ATTEMPT, "5"),
                (header::REPLAYS, "1"),
                (header::HISTORY, r#"[{"reason":"timeout","attempts":5}]"#),
            ],
            // Left over from the delay ladder: the worker's own word counts.
            Some(("bellhop.delay.03", "expired")),
            r#"{"id":"t1","kind":"k","user_id":"ann","title":"Sums","args":{}}"#,
        );
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "id": "t1", "kind": "k", "user_id": "ann", "title": "Sums", "queue": "mail",
                "reason": "exit_3", "error": "no disk", "attempts": 5, "bytes": 63,
                "died_at": "2026-01-15T10:30:00Z", "replays": 1,
                "history": [{"reason": "timeout", "attempts": 5}],
            })
        );
    }

    #[test]
    fn what_the_broker_took_out_itself_is_told_by_its_own_word() {
        let limit = Some(("bellhop.jobs.a.b", "delivery_limit"));
        let letter = read("a.b", &[], limit, r#"{"id":"t1","kind":"k"}"#);
        assert_eq!(letter.origin, Some(Origin::Jobs("a.b".into())));
        assert_eq!(
            (letter.reason.as_str(), letter.attempts),
            ("delivery_limit", 1)
        );
        assert_eq!(letter.died_at, "2026-01-15T10:30:00Z".parse().ok());
        let from_inbox = read(
            "stored.x",
            &[],
            Some(("bellhop.inbox", "delivery_limit")),
            "{}",
        );
        let inbox = Some(Origin::Queue("bellhop.inbox".into()));
        assert_eq!((from_inbox.origin, from_inbox.attempts), (inbox, 0));
    }

    #[test]
    fn an_alert_is_no_job_of_a_queue_named_alerts() {
        let refused = (header::REASON, "alert_refused");
        let alert = read("alerts", &[refused], None, r#"{"id":"e1","type":"t"}"#);
        assert_eq!(alert.origin, Some(Origin::Queue("bellhop.alerts".into())));
        let job = read("alerts", &[refused, (header::QUEUE, "alerts")], None, "{}");
        assert_eq!(job.origin, Some(Origin::Jobs("alerts".into())));
    }

    #[test]
    fn anything_at_all_can_be_listed_and_named_again() {
        let long = format!(r#"{{"id":"{}","kind":7}}"#, "x".repeat(1000));
        for body in ["", "not json", "[1]", "null", "\u{0}", &long] {
            let letter = read("q", &[(header::HISTORY, "no list")], None, body);
            assert_eq!(letter.reason, "unknown");
            assert_eq!((letter.origin, letter.kind), (None, None), "{body}");
            assert!(Uuid::parse_str(&letter.id).is_ok(), "{body}: {}", letter.id);
            assert_eq!(
                letter.id,
                read("q", &[], None, body).id,
                "the same each time"
            );
        }
        assert_ne!(read("q", &[], None, "a").id, read("q", &[], None, "b").id);
    }
}
