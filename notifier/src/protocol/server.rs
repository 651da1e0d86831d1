//! What the notifier sends.

use std::sync::Arc;

use bellhop_common::wire::{Event, EventKey, Status, TASK_STATUS_CHANGED};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// A text frame, encoded once; clones share its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The JSON.
    pub text: Utf8Bytes,
    /// A frame that waits in a queue is replaced by a newer one of the same subject: of a task's
    /// progress only the newest counts.
    pub subject: Option<Arc<str>>,
}

impl Frame {
    fn plain(value: &Value) -> Self {
        Self {
            text: value.to_string().into(),
            subject: None,
        }
    }
}

/// The first frame of a connection.
#[must_use]
pub fn connected(
    connection_id: &str,
    user_id: &str,
    instance: &str,
    now: Timestamp,
    ping_interval: std::time::Duration,
) -> Frame {
    Frame::plain(&json!({
        "type": "connected",
        "connection_id": connection_id,
        "user_id": user_id,
        "instance": instance,
        "server_time": now,
        "ping_interval_ms": u64::try_from(ping_interval.as_millis()).unwrap_or(u64::MAX),
    }))
}

/// The answer to `ping`.
#[must_use]
pub fn pong(id: Option<&Value>) -> Frame {
    Frame::plain(&with_id(json!({ "type": "pong" }), id))
}

/// The answer to a frame that could not be done.
#[must_use]
pub fn error(code: &str, message: &str, id: Option<&Value>) -> Frame {
    let frame = json!({ "type": "error", "code": code, "message": message });
    Frame::plain(&with_id(frame, id))
}

fn with_id(mut frame: Value, id: Option<&Value>) -> Value {
    if let (Some(fields), Some(id)) = (frame.as_object_mut(), id) {
        fields.insert("id".into(), id.clone());
    }
    frame
}

/// An event as clients see it: under the name that clients know, everything else untouched.
#[must_use]
pub fn event(key: &EventKey, mut event: Event) -> Option<Frame> {
    let subject = subject(key, &event);
    let name = match event.kind.as_str() {
        TASK_STATUS_CHANGED => "task.updated",
        "message.sent" => "message.new",
        "notification.created" => "notification.new",
        _ => "",
    };
    if !name.is_empty() {
        name.clone_into(&mut event.kind);
    }
    let text = String::from_utf8(event.to_bytes().ok()?).ok()?;
    Some(Frame {
        text: text.into(),
        subject,
    })
}

/// Only a running task's state may be replaced by a newer one; an end must be seen.
fn subject(key: &EventKey, event: &Event) -> Option<Arc<str>> {
    #[derive(Deserialize)]
    struct Subject<'a> {
        #[serde(borrow)]
        task_id: std::borrow::Cow<'a, str>,
        status: Status,
    }
    if event.kind != TASK_STATUS_CHANGED || !key.topic.ends_with(Status::Running.as_str()) {
        return None;
    }
    let subject: Subject<'_> = serde_json::from_str(event.data.get()).ok()?;
    (subject.status == Status::Running).then(|| subject.task_id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: &str, kind: &str, data: &str) -> Frame {
        let body = format!(
            r#"{{"type":"{kind}","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":{data},"later":1.50}}"#
        );
        let parsed = Event::parse(body.as_bytes()).unwrap();
        event(&EventKey::parse(key).unwrap(), parsed).unwrap()
    }

    #[test]
    fn events_get_the_names_that_clients_know_and_keep_the_rest() {
        for (kind, name) in [
            ("task.status_changed", "task.updated"),
            ("message.sent", "message.new"),
            ("chat.updated", "chat.updated"),
            ("notification.created", "notification.new"),
            ("anything.else", "anything.else"),
        ] {
            let frame = frame("live.user.u.x", kind, r#"{"n":1.0}"#);
            assert!(frame.text.contains(&format!(r#""type":"{name}""#)));
            assert!(frame.text.contains(r#""data":{"n":1.0},"later":1.50"#));
        }
    }

    #[test]
    fn only_a_running_state_can_be_replaced() {
        let key = |status: &str| format!("live.user.u.task.status_changed.{status}");
        let data = |status: &str| format!(r#"{{"task_id":"t1","status":"{status}"}}"#);
        let of = |status: &str| frame(&key(status), "task.status_changed", &data(status)).subject;
        assert_eq!(of("running").as_deref(), Some("t1"));
        assert_eq!(of("succeeded"), None);
        let lying = frame(&key("running"), "task.status_changed", &data("failed"));
        assert_eq!(lying.subject, None, "the body decides");
    }

    #[test]
    fn ids_are_echoed() {
        assert_eq!(
            pong(Some(&json!("a"))).text.as_str(),
            r#"{"id":"a","type":"pong"}"#
        );
        assert_eq!(pong(None).text.as_str(), r#"{"type":"pong"}"#);
        let frame = error("bad_frame", "no", Some(&json!(1)));
        assert!(frame.text.contains(r#""id":1"#));
    }
}
