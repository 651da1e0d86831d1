//! What is said to a browser, and how long it matters. Pure.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellhop_common::wire::{Event, Status, TASK_STATUS_CHANGED, TaskStatus, cut};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::alerts::markdown::is_hidden;
use crate::stranger::line;

/// The most that fits into what every push service takes (RFC 8291, 4): 4,096 bytes without the head
/// and the end of what is encrypted.
pub const MAX_BODY: usize = 3993;

/// The longest title, in bytes; a screen shows less.
const MAX_TITLE: usize = 300;

/// The same where the push service wants less of everything.
const MAX_STUB_TITLE: usize = 100;

/// The longest of the other texts that are not cut to fit, in bytes.
const MAX_WORD: usize = 256;

/// A message for browsers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushNote {
    /// What the service worker gets.
    pub body: Bytes,
    /// How long the push service keeps it for a device that is off.
    pub ttl: Duration,
    /// Whether it is worth waking a device.
    pub urgency: Urgency,
    /// What it replaces, if that still waits at the push service.
    pub topic: Option<Topic>,
}

/// Whether a message is worth a device's battery (RFC 8030, 5.3). Nothing is `very-low`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// On power, or in a network that costs nothing.
    Low,
    /// Unless the battery is low.
    Normal,
    /// Always.
    High,
}

impl Urgency {
    /// What an event says of itself: a job that failed for good is worth waking a device, and so is
    /// what has the `severity` `critical`; what has `info` can wait.
    pub(crate) fn of(event: &Event) -> Self {
        #[derive(Default, Deserialize)]
        struct Said {
            severity: Option<Value>,
            status: Option<Value>,
        }
        let data = event.data.as_deref().map_or("null", RawValue::get);
        let said: Said = serde_json::from_str(data).unwrap_or_default();
        let is = |said: &Option<Value>, word: &str| said.as_ref().is_some_and(|it| it == word);
        let failed = event.kind == TASK_STATUS_CHANGED && is(&said.status, "failed");
        if failed || is(&said.severity, "critical") {
            Self::High
        } else if is(&said.severity, "info") {
            Self::Low
        } else {
            Self::Normal
        }
    }

    /// The word in the header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// A name for what a message is about: one with the same name replaces it while it waits (RFC 8030,
/// 5.4). 32 characters that say nothing to the push service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic(String);

impl Topic {
    /// Always the same for the same text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let hash = Sha256::digest(text);
        Self(URL_SAFE_NO_PAD.encode(hash.get(..24).unwrap_or_default()))
    }

    /// As it stands in the header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PushNote {
    /// Tells of an event. The body has [`MAX_BODY`] bytes at most, whatever the event holds.
    #[must_use]
    pub fn of_event(event: &Event, seq: Option<u64>, ttl: Duration) -> Self {
        let told = Told::of(event);
        let mut payload = told.payload(event, seq, MAX_TITLE);
        payload.body.clone_from(&told.body);
        Self::with(&payload.cut_to_fit(), &told, event, ttl)
    }

    /// The same in a few hundred bytes, for a push service that takes no more.
    #[must_use]
    pub fn stub_of_event(event: &Event, seq: Option<u64>, ttl: Duration) -> Self {
        let told = Told::of(event);
        let payload = told.payload(event, seq, MAX_STUB_TITLE);
        Self::with(&payload.cut_to_fit(), &told, event, ttl)
    }

    fn with(body: &[u8], told: &Told, event: &Event, ttl: Duration) -> Self {
        Self {
            body: Bytes::copy_from_slice(body),
            ttl,
            urgency: Urgency::of(event),
            topic: Some(Topic::of(&told.tag)),
        }
    }
}

/// An event in words.
struct Told {
    title: String,
    body: String,
    url: String,
    /// Of two notifications with one tag a device shows the last.
    tag: String,
}

/// What events say about themselves; whatever is of another kind is not there.
#[derive(Default, Deserialize)]
struct Said {
    title: Option<Value>,
    body: Option<Value>,
    text: Option<Value>,
    message: Option<Value>,
    url: Option<Value>,
}

impl Told {
    fn of(event: &Event) -> Self {
        let data = event.data.as_deref().map_or("null", RawValue::get);
        let named = event.extra.get("title");
        let named = named.and_then(|title| serde_json::from_str::<String>(title.get()).ok());
        let named = named
            .map(|title| line(&title))
            .filter(|title| !title.is_empty());
        if event.kind == TASK_STATUS_CHANGED
            && let Ok(task) = serde_json::from_str::<TaskStatus>(data)
        {
            return Self::of_task(&task, named);
        }
        let said: Said = serde_json::from_str(data).unwrap_or_default();
        let text = |value: Option<Value>| {
            let text = value.as_ref().and_then(Value::as_str).map(line);
            text.filter(|text| !text.is_empty())
        };
        let title = named.or_else(|| text(said.title));
        let body = text(said.body).or_else(|| text(said.text));
        Self {
            title: title.unwrap_or_else(|| line(&event.kind)),
            body: body.or_else(|| text(said.message)).unwrap_or_default(),
            url: path_of(said.url.as_ref().and_then(Value::as_str)),
            // The same event told twice is shown once.
            tag: event.id.to_string(),
        }
    }

    fn of_task(task: &TaskStatus, named: Option<String>) -> Self {
        let title = task
            .title
            .as_deref()
            .map(line)
            .filter(|title| !title.is_empty());
        let why = task.error.as_ref().map(|error| line(&error.message));
        let why = why.filter(|why| !why.is_empty());
        let body = match (task.status, why) {
            (Status::Succeeded, _) => "Succeeded.".into(),
            (Status::Cancelled, _) => "Cancelled.".into(),
            (Status::Failed, None) => "Failed.".into(),
            (Status::Failed, Some(why)) => format!("Failed: {why}"),
            (Status::Retrying, None) => "Failed, to be tried again.".into(),
            (Status::Retrying, Some(why)) => format!("Failed, to be tried again: {why}"),
            (Status::Queued | Status::Scheduled, _) => "Waiting.".into(),
            (Status::Running, _) => "Running.".into(),
        };
        Self {
            title: named.or(title).unwrap_or_else(|| line(&task.kind)),
            body,
            url: "/".into(),
            tag: format!("task:{}", task.task_id),
        }
    }

    fn payload<'a>(&'a self, event: &'a Event, seq: Option<u64>, max_title: usize) -> Payload<'a> {
        Payload {
            title: shortened(&self.title, max_title),
            body: String::new(),
            url: &self.url,
            tag: cut(&self.tag, MAX_WORD),
            event: Named {
                id: event.id,
                kind: cut(&event.kind, MAX_WORD),
            },
            seq,
        }
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    title: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    body: String,
    url: &'a str,
    tag: &'a str,
    event: Named<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

#[derive(Serialize)]
struct Named<'a> {
    id: Uuid,
    #[serde(rename = "type")]
    kind: &'a str,
}

impl Payload<'_> {
    /// As JSON, with as much of the body as there is room for. The rest always fits: it is some 1,100 bytes
    /// at most, and six times as many if JSON must write each of them as an escape, which it does for none
    /// that is visible.
    fn cut_to_fit(mut self) -> Vec<u8> {
        let json = self.json();
        let over = json.len().saturating_sub(MAX_BODY);
        if over == 0 {
            return json;
        }
        // Each byte less of the text is at least one less of the JSON.
        let room = self.body.len().saturating_sub(over);
        self.body = shortened(&self.body, room);
        self.json()
    }

    fn json(&self) -> Vec<u8> {
        // Texts and numbers can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// At most so many bytes, with a sign that there was more.
fn shortened(text: &str, max_bytes: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= max_bytes {
        return text.to_owned();
    }
    match max_bytes.checked_sub(MORE.len()) {
        Some(room) => format!("{}{MORE}", cut(text, room).trim_end()),
        None => String::new(),
    }
}

/// Where a click leads: a path of the page's own site, because a stranger may have written it.
fn path_of(url: Option<&str>) -> String {
    let is_path = |url: &&str| {
        let mut chars = url.chars();
        url.len() <= MAX_WORD
            && chars.next() == Some('/')
            // `//host` and `/\host` are other sites.
            && !matches!(chars.next(), Some('/' | '\\'))
            && !url.chars().any(|c| is_hidden(c) || c.is_whitespace())
    };
    url.filter(is_path).unwrap_or("/").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;
    use serde_json::json;

    const TTL: Duration = Duration::from_mins(1);

    fn event(kind: &str, data: &Value, title: Option<&str>) -> Event {
        let id = "0197f0a0-0000-7000-8000-000000000001".parse().unwrap();
        let time = "2026-01-15T10:30:00Z".parse().unwrap();
        let mut event = Event::new(kind, id, time, data).unwrap();
        if let Some(title) = title {
            let title = serde_json::value::to_raw_value(title).unwrap();
            event.extra.insert("title".into(), title);
        }
        event
    }

    fn payload(event: &Event) -> Value {
        let note = PushNote::of_event(event, Some(7), TTL);
        serde_json::from_slice(&note.body).unwrap()
    }

    fn task(status: &str, more: &Value) -> Value {
        let mut task = json!({"task_id": "t1", "kind": "files.checksum", "user_id": "ann", "status": status,
            "attempt": 1, "max_attempts": 1, "rev": 1, "timestamp": "2026-01-15T10:30:00Z"});
        let fields = more.as_object().unwrap().clone();
        task.as_object_mut().unwrap().extend(fields);
        task
    }

    #[test]
    fn only_what_matters_now_wakes_a_device() {
        let of_task = |status| event(TASK_STATUS_CHANGED, &task(status, &json!({})), None);
        let severe = |severity: Value| event("x", &json!({"severity": severity}), None);
        for (event, wants) in [
            (of_task("failed"), Urgency::High),
            (of_task("succeeded"), Urgency::Normal),
            (
                event("x", &json!({"status": "failed"}), None),
                Urgency::Normal,
            ),
            (severe(json!("critical")), Urgency::High),
            (severe(json!("error")), Urgency::Normal),
            (severe(json!("info")), Urgency::Low),
            (severe(json!(7)), Urgency::Normal),
            (event("x", &json!([]), None), Urgency::Normal),
        ] {
            let told = PushNote::of_event(&event, None, TTL).urgency;
            let stub = PushNote::stub_of_event(&event, None, TTL).urgency;
            assert_eq!((told, stub), (wants, wants), "{event:?}");
        }
        assert!(Urgency::Low < Urgency::Normal && Urgency::Normal < Urgency::High);
    }

    #[test]
    fn a_task_is_told_by_its_name_and_how_it_ended() {
        let failed = json!({"error": {"code": "x", "message": "no disk\nat all"}});
        for (status, more, title, wants) in [
            (
                "succeeded",
                json!({"title": "Sums"}),
                None,
                ("Sums", "Succeeded."),
            ),
            (
                "succeeded",
                json!({}),
                None,
                ("files.checksum", "Succeeded."),
            ),
            (
                "succeeded",
                json!({"title": "Sums"}),
                Some("Done!"),
                ("Done!", "Succeeded."),
            ),
            (
                "failed",
                failed,
                None,
                ("files.checksum", "Failed: no disk at all"),
            ),
            (
                "cancelled",
                json!({}),
                Some("\u{202e}"),
                ("files.checksum", "Cancelled."),
            ),
        ] {
            let event = event(TASK_STATUS_CHANGED, &task(status, &more), title);
            assert_eq!(
                payload(&event),
                json!({"title": wants.0, "body": wants.1, "url": "/", "tag": "task:t1", "seq": 7,
                    "event": {"id": event.id, "type": TASK_STATUS_CHANGED}})
            );
        }
    }

    #[test]
    fn other_events_are_told_by_what_they_say() {
        let id = json!("0197f0a0-0000-7000-8000-000000000001");
        for (data, title, wants) in [
            (
                json!({"title": "Paid", "body": "7 €", "url": "/orders/7?x=1#y"}),
                None,
                ("Paid", "7 €", "/orders/7?x=1#y"),
            ),
            (
                json!({"title": "Paid", "text": "7"}),
                Some("Order"),
                ("Order", "7", "/"),
            ),
            (json!({"message": "hi"}), None, ("note.made", "hi", "/")),
            (
                json!({"title": 7, "body": [], "url": 1}),
                None,
                ("note.made", "", "/"),
            ),
            (json!("text"), None, ("note.made", "", "/")),
            (Value::Null, None, ("note.made", "", "/")),
            (
                json!({"body": "a\u{202e}b\u{0}c\td\u{200b}"}),
                None,
                ("note.made", "abc d", "/"),
            ),
        ] {
            let said = payload(&event("note.made", &data, title));
            assert_eq!(
                (&said["title"], &said["url"]),
                (&json!(wants.0), &json!(wants.2)),
                "{data}"
            );
            assert_eq!(said["body"].as_str().unwrap_or_default(), wants.1, "{data}");
            assert_eq!(said["tag"], id);
        }
    }

    #[test]
    fn a_click_leads_to_the_pages_own_site() {
        for url in [
            "https://evil.example/",
            "//evil.example/",
            "/\\evil.example",
            "javascript:alert(1)",
            "orders",
            "/a\tb",
            "/\n/evil.example",
            "",
            &format!("/{}", "x".repeat(MAX_WORD)),
        ] {
            let said = payload(&event("note", &json!({ "url": url }), None));
            assert_eq!(said["url"], "/", "{url:?}");
        }
    }

    #[test]
    fn a_newer_state_of_the_same_task_replaces_the_older() {
        let topic = |event: &Event| PushNote::of_event(event, None, TTL).topic.unwrap();
        let running = event(TASK_STATUS_CHANGED, &task("running", &json!({})), None);
        let ended = event(TASK_STATUS_CHANGED, &task("succeeded", &json!({})), None);
        let other = event(
            TASK_STATUS_CHANGED,
            &task("succeeded", &json!({"task_id": "t2"})),
            None,
        );
        assert_eq!(topic(&running), topic(&ended));
        assert_ne!(topic(&other), topic(&ended));
        let text = topic(&ended).as_str().to_owned();
        let is_base64url = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        assert!(text.len() == 32 && text.chars().all(is_base64url), "{text}");
    }

    #[test]
    fn it_fits_whatever_the_event_holds() {
        let mut random = random();
        let pieces = [
            "x",
            "\"",
            "\\",
            "🙂",
            "é",
            "\u{202e}",
            "\n",
            " ",
            "\u{7f}",
            "</script>",
        ];
        for n in 0..200 {
            let mut text = |most: u64| -> String {
                let length = random(most);
                let one = random(2) == 0;
                let first = random(10);
                (0..length)
                    .map(|_| pieces[usize::try_from(if one { first } else { random(10) }).unwrap()])
                    .collect()
            };
            let data = if n % 2 == 0 {
                json!({"title": text(1000), "body": text(9000), "url": format!("/{}", text(300))})
            } else {
                let error = json!({"code": "x", "message": text(9000)});
                task(
                    "failed",
                    &json!({"task_id": text(600), "title": text(1000), "error": error}),
                )
            };
            let kind = if n % 2 == 0 {
                text(400)
            } else {
                TASK_STATUS_CHANGED.into()
            };
            let event = event(&kind, &data, None);
            let note = PushNote::of_event(&event, Some(u64::MAX), TTL);
            assert!(note.body.len() <= MAX_BODY, "{}", note.body.len());
            serde_json::from_slice::<Value>(&note.body).unwrap();
            let stub = PushNote::stub_of_event(&event, Some(u64::MAX), TTL);
            assert!(stub.body.len() <= note.body.len() && stub.topic == note.topic);
        }
        let long = event(
            "note",
            &json!({"title": "Hi", "body": "é".repeat(9000)}),
            None,
        );
        let note = PushNote::of_event(&long, None, TTL);
        assert!(
            (MAX_BODY - 3..=MAX_BODY).contains(&note.body.len()),
            "nothing is wasted"
        );
        assert!(payload(&long)["body"].as_str().unwrap().ends_with("é…"));
        let stub = PushNote::stub_of_event(&long, None, TTL);
        assert!(stub.body.len() < 200);
    }
}
