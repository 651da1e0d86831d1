//! What the notifier sends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::wire::{Event, EventKey, Status, TASK_STATUS_CHANGED};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::close::Close;
use super::frame::{At, Frame};
use super::place::{Place, PlaceKind};
use crate::store::{Epoch, Position, StreamName};

/// What a connection learns first.
#[derive(Debug)]
pub struct Welcome<'a> {
    /// The connection's id.
    pub connection_id: &'a str,
    /// Who is connected.
    pub user_id: &'a str,
    /// The name of this instance.
    pub instance: &'a str,
    /// What time it is here.
    pub now: Timestamp,
    /// How often we ping.
    pub ping_interval: Duration,
    /// Where the connection is already.
    pub places: &'a [Place],
    /// What the store says, where there is one.
    pub kept: Option<Kept<'a>>,
}

/// What the store says of a user.
#[derive(Debug)]
pub struct Kept<'a> {
    /// Where the streams stand from which the connection goes on.
    pub streams: &'a [(StreamName, Position)],
    /// How many events of the inbox are not read.
    pub unread: u64,
    /// The tasks that changed last.
    pub tasks: &'a [&'a RawValue],
}

#[derive(Serialize)]
struct Connected<'a> {
    r#type: &'a str,
    connection_id: &'a str,
    user_id: &'a str,
    instance: &'a str,
    server_time: Timestamp,
    ping_interval_ms: u64,
    rooms: Vec<&'a str>,
    chats: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<Vec<OfStream<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<&'a [&'a RawValue]>,
}

/// The first frame of a connection.
#[must_use]
pub fn connected(welcome: &Welcome<'_>) -> Frame {
    let ids = |kind: PlaceKind| -> Vec<&str> {
        let places = welcome.places.iter();
        let of_kind = places.filter(|place| place.kind == kind);
        of_kind.map(|place| &*place.id).collect()
    };
    let kept = welcome.kept.as_ref();
    let streams = kept.map(|kept| kept.streams.iter());
    plain(&Connected {
        r#type: "connected",
        connection_id: welcome.connection_id,
        user_id: welcome.user_id,
        instance: welcome.instance,
        server_time: welcome.now,
        ping_interval_ms: milliseconds(welcome.ping_interval),
        rooms: ids(PlaceKind::Room),
        chats: ids(PlaceKind::Chat),
        streams: streams.map(|streams| {
            let each = streams.map(|(name, position)| OfStream::new(name, *position));
            each.collect()
        }),
        unread: kept.map(|kept| kept.unread),
        tasks: kept.map(|kept| kept.tasks),
    })
}

/// A stream and where it stands.
#[derive(Serialize)]
struct OfStream<'a> {
    audience: &'a str,
    epoch: Epoch,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<bool>,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<&'static str>,
}

impl<'a> OfStream<'a> {
    fn new(name: &'a StreamName, Position { epoch, seq }: Position) -> Self {
        let (audience, id) = name.parts();
        Self {
            audience,
            epoch,
            id,
            recovered: None,
            seq,
            r#type: None,
        }
    }
}

/// Events of a stream may be lost: what is shown from now on follows this position.
#[must_use]
pub fn stream_reset(name: &StreamName, position: Position) -> Frame {
    let frame = plain(&OfStream {
        r#type: Some("stream_reset"),
        ..OfStream::new(name, position)
    });
    frame.with_start(vec![(name.clone(), position)])
}

/// What a client missed has been sent before this, where `recovered` says so.
#[must_use]
pub fn resumed(streams: &[(StreamName, Position, bool)], id: Option<&Value>) -> Frame {
    let each = streams.iter().map(|(name, position, recovered)| OfStream {
        recovered: Some(*recovered),
        ..OfStream::new(name, *position)
    });
    let each: Vec<_> = each.collect();
    let all = streams.iter().all(|(.., recovered)| *recovered);
    let frame = json!({ "type": "resumed", "recovered": all, "streams": each });
    plain(&with_id(frame, id))
}

/// The answer to `ack`, and to `read`: how many are not read now.
#[must_use]
pub fn marked(kind: &str, unread: Option<u64>, id: Option<&Value>) -> Frame {
    let mut frame = json!({ "type": kind });
    if let (Some(fields), Some(unread)) = (frame.as_object_mut(), unread) {
        fields.insert("unread".into(), unread.into());
    }
    plain(&with_id(frame, id))
}

/// The answer to `ping`.
#[must_use]
pub fn pong(id: Option<&Value>) -> Frame {
    plain(&with_id(json!({ "type": "pong" }), id))
}

/// The answer to a frame that could not be done.
#[must_use]
pub fn error(code: &str, message: &str, id: Option<&Value>) -> Frame {
    let frame = json!({ "type": "error", "code": code, "message": message });
    plain(&with_id(frame, id))
}

/// The answer to `subscribe`; after this position stored events come by themselves. `recovered`:
/// whether what was missed comes before.
#[must_use]
pub fn subscribed(
    place: &Place,
    position: Option<Position>,
    recovered: Option<bool>,
    id: Option<&Value>,
) -> Frame {
    let mut frame = of_place("subscribed", place);
    if let (Some(fields), Some(Position { epoch, seq })) = (frame.as_object_mut(), position) {
        fields.insert("epoch".into(), epoch.to_string().into());
        fields.insert("seq".into(), seq.into());
    }
    if let (Some(fields), Some(recovered)) = (frame.as_object_mut(), recovered) {
        fields.insert("recovered".into(), recovered.into());
    }
    plain(&with_id(frame, id))
}

/// The answer to `unsubscribe`, or the news that the connection was taken out for a `reason`.
#[must_use]
pub fn unsubscribed(place: &Place, reason: Option<&str>, id: Option<&Value>) -> Frame {
    let mut frame = of_place("unsubscribed", place);
    if let (Some(fields), Some(reason)) = (frame.as_object_mut(), reason) {
        fields.insert("reason".into(), reason.into());
    }
    plain(&with_id(frame, id))
}

/// Somebody entered a room or chat who was not in it on any connection.
#[must_use]
pub fn user_joined(place: &Place, user_id: &str) -> Frame {
    plain(&with_user(of_place("user_joined", place), user_id))
}

/// Somebody left a room or chat with the last connection.
#[must_use]
pub fn user_left(place: &Place, user_id: &str) -> Frame {
    plain(&with_user(of_place("user_left", place), user_id))
}

/// Who is in a room or chat: how many users in all, and some of them.
#[must_use]
pub fn presence(place: &Place, count: usize, users: &[String], id: Option<&Value>) -> Frame {
    let mut frame = of_place("presence", place);
    if let Some(fields) = frame.as_object_mut() {
        fields.insert("count".into(), count.into());
        fields.insert("users".into(), users.into());
    }
    plain(&with_id(frame, id))
}

/// The token ends soon: send a new one with `auth`.
#[must_use]
pub fn token_expiring(expires_at: Timestamp) -> Frame {
    plain(&json!({ "type": "token_expiring", "expires_at": expires_at }))
}

/// This instance stops: open another connection in so many milliseconds.
#[must_use]
pub fn reconnect(after: Duration) -> Frame {
    plain(&json!({ "type": "reconnect", "after_ms": milliseconds(after) }))
}

/// The last words where there is no close code.
#[must_use]
pub fn closed(close: Close) -> Frame {
    plain(&json!({ "type": "closed", "code": close.code, "reason": close.reason }))
}

/// The client has been here before, and what it missed meanwhile is not known.
#[must_use]
pub fn not_recovered(id: Option<&Value>) -> Frame {
    let frame = json!({ "type": "resumed", "recovered": false });
    plain(&with_id(frame, id))
}

fn plain(value: &impl Serialize) -> Frame {
    // Texts, numbers and lists of them always can be written.
    Frame::new(&serde_json::to_string(value).unwrap_or_default())
}

fn of_place(kind: &str, place: &Place) -> Value {
    json!({ "type": kind, place.kind.field(): &*place.id })
}

fn with_user(mut frame: Value, user_id: &str) -> Value {
    if let Some(fields) = frame.as_object_mut() {
        fields.insert("user_id".into(), user_id.into());
    }
    frame
}

fn with_id(mut frame: Value, id: Option<&Value>) -> Value {
    if let (Some(fields), Some(id)) = (frame.as_object_mut(), id) {
        fields.insert("id".into(), id.clone());
    }
    frame
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// An event as clients see it: under the name that clients know, with the room or chat it is for,
/// and, if it was stored, its number and how many its user has not read; everything else untouched.
#[must_use]
pub fn event(
    key: &EventKey,
    mut event: Event,
    number: Option<(Position, Option<u64>)>,
) -> Option<Frame> {
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
    say_where(&mut event.extra, Place::of(&key.audience).as_ref())?;
    for name in ["audience", "epoch", "seq", "unread"] {
        event.extra.remove(name);
    }
    if let Some((Position { epoch, seq }, unread)) = number {
        let mut say = |name: &str, value: Value| {
            let value = serde_json::value::to_raw_value(&value).ok()?;
            event.extra.insert(name.to_owned(), value);
            Some(())
        };
        say("audience", key.audience.word().into())?;
        say("epoch", epoch.to_string().into())?;
        say("seq", seq.into())?;
        if let Some(unread) = unread {
            say("unread", unread.into())?;
        }
    }
    let text = String::from_utf8(event.to_bytes().ok()?).ok()?;
    let mut frame = Frame::new(&text);
    frame.subject = subject.map(Into::into);
    frame.at = number
        .zip(StreamName::of(&key.audience))
        .map(|((position, _), name)| Arc::new(At::Event(name, position)));
    Some(frame)
}

/// The routing key decides which room it is, whatever the body says.
fn say_where(fields: &mut BTreeMap<String, Box<RawValue>>, place: Option<&Place>) -> Option<()> {
    let Some(place) = place else { return Some(()) };
    fields.remove(PlaceKind::Room.field());
    fields.remove(PlaceKind::Chat.field());
    let id = serde_json::value::to_raw_value(&*place.id).ok()?;
    fields.insert(place.kind.field().into(), id);
    Some(())
}

/// Only a running task's state may be replaced by a newer one; an end must be seen. One task's
/// states for its owner and for its room are different frames, and do not replace each other.
fn subject(key: &EventKey, event: &Event) -> Option<String> {
    #[derive(Deserialize)]
    struct Subject<'a> {
        #[serde(borrow)]
        task_id: std::borrow::Cow<'a, str>,
        status: Status,
    }
    if event.kind != TASK_STATUS_CHANGED || !key.topic.ends_with(Status::Running.as_str()) {
        return None;
    }
    let subject: Subject<'_> = serde_json::from_str(event.data.as_ref()?.get()).ok()?;
    let place = Place::of(&key.audience).map(|place| place.to_string());
    (subject.status == Status::Running)
        .then(|| format!("{} {}", subject.task_id, place.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(key: &str, kind: &str, data: &str) -> Frame {
        let body = format!(
            r#"{{"type":"{kind}","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":{data},"later":1.50}}"#
        );
        let parsed = Event::parse(body.as_bytes()).unwrap();
        event(&EventKey::parse(key).unwrap(), parsed, None).unwrap()
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
            assert!(frame.text().contains(&format!(r#""type":"{name}""#)));
            assert!(frame.text().contains(r#""data":{"n":1.0},"later":1.50"#));
        }
    }

    #[test]
    fn an_event_says_where_it_is_for_as_its_key_does() {
        for (key, wants, lie) in [
            ("live.chat.a%2Eb.x", r#""chat_id":"a.b""#, "room_id"),
            ("live.room.r.x", r#""room_id":"r""#, "chat_id"),
        ] {
            let body = r#"{"type":"x","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":1,"room_id":"lie","chat_id":"lie"}"#;
            let parsed = Event::parse(body.as_bytes()).unwrap();
            let frame = event(&EventKey::parse(key).unwrap(), parsed, None).unwrap();
            assert!(frame.text().contains(wants), "{}", frame.text());
            assert!(!frame.text().contains(lie), "{}", frame.text());
        }
    }

    #[test]
    fn only_a_running_state_can_be_replaced() {
        let key = |status: &str| format!("live.user.u.task.status_changed.{status}");
        let data = |status: &str| format!(r#"{{"task_id":"t1","status":"{status}"}}"#);
        let of = |status: &str| frame(&key(status), "task.status_changed", &data(status)).subject;
        assert_eq!(of("running").as_deref(), Some("t1 "));
        assert_eq!(of("succeeded"), None);
        let room = "live.room.r.task.status_changed.running";
        let room = frame(room, "task.status_changed", &data("running"));
        assert_eq!(room.subject.as_deref(), Some("t1 room:r"));
        let lying = frame(&key("running"), "task.status_changed", &data("failed"));
        assert_eq!(lying.subject, None, "the body decides");
    }

    #[test]
    fn ids_are_echoed() {
        assert_eq!(
            pong(Some(&json!("a"))).text(),
            r#"{"id":"a","type":"pong"}"#
        );
        assert_eq!(pong(None).text(), r#"{"type":"pong"}"#);
        let frame = error("bad_frame", "no", Some(&json!(1)));
        assert!(frame.text().contains(r#""id":1"#));
        let left = unsubscribed(&Place::chat("c"), None, Some(&json!(2)));
        let wants = r#"{"chat_id":"c","id":2,"type":"unsubscribed"}"#;
        assert_eq!(left.text(), wants);
    }
}
