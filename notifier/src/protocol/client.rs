//! What clients send.

use std::collections::HashSet;

use bellhop_common::wire::{Audience, MAX_ID_BYTES};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use thiserror::Error;
use uuid::Uuid;

use super::place::{Place, PlaceKind};
use crate::store::{Marked, Position};

/// The longest type of a frame that is relayed, in bytes: it becomes part of a routing key, which
/// has at most 255.
const MAX_TYPE_BYTES: usize = 64;

/// The longest `id` of a frame, in bytes of its JSON.
const MAX_CLIENT_ID: usize = 256;

/// Types that mean something when the notifier or a backend says them. A client that could send
/// them to others could speak in our name.
const RESERVED: &[&str] = &[
    "connected",
    "subscribed",
    "unsubscribed",
    "user_joined",
    "user_left",
    "presence",
    "pong",
    "error",
    "reconnect",
    "resumed",
    "stream_reset",
    "closed",
    "token_expiring",
    "message.sent",
    "message.new",
    "chat.updated",
    "chat.member_added",
    "chat.member_removed",
    "room.member_added",
    "room.member_removed",
];

/// All types that begin with these are reserved too.
const RESERVED_PREFIXES: &[&str] = &["task.", "notification.", "inbox."];

/// A client's frame, with the client's own `id`, which is echoed in the answer.
#[derive(Debug, Clone)]
pub struct ClientFrame {
    /// The client's id.
    pub id: Option<Value>,
    /// What it asks for.
    pub command: Command,
}

/// What a client asks for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Answered by `pong`.
    Ping,
    /// Log in, or renew the login.
    Auth {
        /// A JSON Web Token.
        token: String,
        /// Where the client was in its streams.
        since: Option<String>,
    },
    /// Enter a room or chat.
    Subscribe {
        /// Which.
        place: Place,
        /// Where the client was in its stream.
        since: Option<Position>,
    },
    /// Leave it.
    Unsubscribe(Place),
    /// Tell what was missed of these streams; a user's own has no id here.
    Resume(Vec<(Audience, Position)>),
    /// Everything up to this number of the user's stream has arrived.
    Ack(u64),
    /// The user has read these.
    Read(Marked),
    /// Who is there?
    Presence(Place),
    /// Anything else goes to the others in a room or chat.
    Relay(Relay),
}

/// A frame for the others.
#[derive(Debug, Clone)]
pub struct Relay {
    /// Where to; nowhere named means the one place that the client is in.
    pub place: Option<Place>,
    /// Its type.
    pub kind: String,
    /// Passed on untouched.
    pub payload: Option<Box<RawValue>>,
    /// Passed on untouched.
    pub data: Option<Box<RawValue>>,
}

/// Why a frame is not understood.
#[derive(Debug, Error)]
#[error("{problem}")]
pub struct FrameError {
    /// The client's id, as far as it could be read.
    pub id: Option<Value>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a frame.
#[derive(Debug, Error)]
pub enum Problem {
    /// Not JSON, or no object with a `type`.
    #[error("the frame is not a JSON object with a \"type\": {0}")]
    Malformed(serde_json::Error),
    /// A field is missing.
    #[error("a frame of type {kind:?} needs the field {field}")]
    MissingField {
        /// The type.
        kind: String,
        /// What is missing.
        field: &'static str,
    },
    /// Both a room and a chat are named.
    #[error("name either \"room_id\" or \"chat_id\", not both")]
    TwoPlaces,
    /// An id nobody can have.
    #[error("\"{0}\" must have 1 to {MAX_ID_BYTES} bytes")]
    BadId(&'static str),
    /// A field that is not what it must be.
    #[error("the field \"{0}\" is not what it must be here")]
    BadField(&'static str),
    /// A stream is resumed from one place.
    #[error("each stream may be named once in \"streams\"")]
    TwiceResumed,
    /// The client's own id is too long to be kept for the answer.
    #[error("a frame's \"id\" may have {MAX_CLIENT_ID} bytes")]
    LongId,
    /// A type that only the notifier or a backend may send.
    #[error("clients may not send frames of type {0:?}")]
    Reserved(String),
    /// A type that cannot be part of a routing key.
    #[error(
        "a type has words of letters, digits, `-`, `_` and `:` with dots between, {MAX_TYPE_BYTES} bytes at most"
    )]
    BadType,
}

impl Problem {
    /// The code in the answering `error` frame.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "bad_frame",
            Self::MissingField { .. } => "missing_field",
            Self::TwoPlaces
            | Self::BadId(_)
            | Self::BadField(_)
            | Self::TwiceResumed
            | Self::LongId => "bad_field",
            Self::Reserved(_) => "reserved_type",
            Self::BadType => "bad_type",
        }
    }
}

/// A stream and where the client was in it.
#[derive(Deserialize)]
struct RawStream {
    audience: String,
    #[serde(default)]
    id: String,
    epoch: String,
    seq: u64,
}

#[derive(Deserialize)]
struct Raw<'a> {
    r#type: String,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    token: Option<String>,
    room_id: Option<String>,
    chat_id: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    // Only looked at where they mean something: what is relayed may have its own of these names.
    #[serde(borrow)]
    since: Option<&'a RawValue>,
    #[serde(borrow)]
    epoch: Option<&'a RawValue>,
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    streams: Option<&'a RawValue>,
    #[serde(borrow)]
    ids: Option<&'a RawValue>,
    #[serde(borrow)]
    up_to: Option<&'a RawValue>,
}

/// How many events may be read, and streams resumed, in one frame.
const MAX_LIST: usize = 1000;

impl ClientFrame {
    /// Reads a text frame.
    ///
    /// # Errors
    /// [`FrameError`].
    pub fn parse(text: &str) -> Result<Self, FrameError> {
        let mut raw: Raw<'_> = serde_json::from_str(text).map_err(|error| FrameError {
            id: None,
            problem: Problem::Malformed(error),
        })?;
        let id = match raw.id.take().map(RawValue::get) {
            Some(id) if id.len() > MAX_CLIENT_ID => {
                let problem = Problem::LongId;
                return Err(FrameError { id: None, problem });
            }
            id => id.and_then(|id| serde_json::from_str(id).ok()),
        };
        match raw.command() {
            Ok(command) => Ok(Self { id, command }),
            Err(problem) => Err(FrameError { id, problem }),
        }
    }
}

impl Raw<'_> {
    fn command(self) -> Result<Command, Problem> {
        match self.r#type.as_str() {
            "ping" => Ok(Command::Ping),
            "auth" => {
                let since = field("since", self.since)?;
                match self.token {
                    Some(token) => Ok(Command::Auth { token, since }),
                    None => Err(self.missing("\"token\"")),
                }
            }
            "subscribe" | "join_room" => Ok(Command::Subscribe {
                since: self.position()?,
                place: self.named_place()?,
            }),
            "unsubscribe" | "leave_room" => self.named_place().map(Command::Unsubscribe),
            "resume" => self.resume(),
            "ack" => match field("seq", self.seq)? {
                Some(seq) => Ok(Command::Ack(seq)),
                None => Err(self.missing("\"seq\"")),
            },
            "read" => self.read(),
            "presence" => self.named_place().map(Command::Presence),
            kind if is_reserved(kind) => Err(Problem::Reserved(kind.to_owned())),
            kind if !is_type(kind) => Err(Problem::BadType),
            _ => self.relay(),
        }
    }

    fn relay(self) -> Result<Command, Problem> {
        Ok(Command::Relay(Relay {
            place: self.place()?,
            payload: self.payload.map(ToOwned::to_owned),
            data: self.data.map(ToOwned::to_owned),
            kind: self.r#type,
        }))
    }

    fn position(&self) -> Result<Option<Position>, Problem> {
        match (field("epoch", self.epoch)?, field("seq", self.seq)?) {
            (Some(epoch), Some(seq)) => position(epoch, seq).map(Some),
            (None, None) => Ok(None),
            _ => Err(self.missing("\"epoch\" and \"seq\" together")),
        }
    }

    fn resume(&self) -> Result<Command, Problem> {
        let streams: Option<Vec<RawStream>> = field("streams", self.streams)?;
        let streams = streams.ok_or_else(|| self.missing("\"streams\""))?;
        if streams.len() > MAX_LIST {
            return Err(Problem::BadField("streams"));
        }
        let read = |stream: RawStream| {
            let id = stream.id;
            let audience = match stream.audience.as_str() {
                "user" => Audience::User(String::new()),
                "all" => Audience::All,
                "room" if !id.is_empty() => Audience::Room(id),
                "chat" if !id.is_empty() => Audience::Chat(id),
                _ => return Err(Problem::BadField("streams")),
            };
            Ok((audience, position(&stream.epoch, stream.seq)?))
        };
        let streams: Vec<_> = streams.into_iter().map(read).collect::<Result<_, _>>()?;
        let named: HashSet<_> = streams.iter().map(|(audience, _)| audience).collect();
        if named.len() < streams.len() {
            return Err(Problem::TwiceResumed);
        }
        Ok(Command::Resume(streams))
    }

    fn read(&self) -> Result<Command, Problem> {
        let ids: Option<Vec<Uuid>> = field("ids", self.ids)?;
        match (ids, field("up_to", self.up_to)?) {
            (Some(ids), None) if ids.len() > MAX_LIST => Err(Problem::BadField("ids")),
            (Some(ids), None) => Ok(Command::Read(Marked::Ids(ids))),
            (None, Some(up_to)) => Ok(Command::Read(Marked::UpTo(up_to))),
            _ => Err(self.missing("either \"ids\" or \"up_to\"")),
        }
    }

    fn named_place(&self) -> Result<Place, Problem> {
        let missing = || self.missing("\"room_id\" or \"chat_id\"");
        self.place()?.ok_or_else(missing)
    }

    fn place(&self) -> Result<Option<Place>, Problem> {
        let (kind, id) = match (&self.room_id, &self.chat_id) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => return Err(Problem::TwoPlaces),
            (Some(id), None) => (PlaceKind::Room, id),
            (None, Some(id)) => (PlaceKind::Chat, id),
        };
        if !(1..=MAX_ID_BYTES).contains(&id.len()) {
            return Err(Problem::BadId(kind.field()));
        }
        let id = id.as_str().into();
        Ok(Some(Place { kind, id }))
    }

    fn missing(&self, field: &'static str) -> Problem {
        let kind = self.r#type.clone();
        Problem::MissingField { kind, field }
    }
}

/// A field of the type that it must have here.
fn field<'a, T: Deserialize<'a>>(
    name: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<T>, Problem> {
    let read = |value: &'a RawValue| serde_json::from_str::<Option<T>>(value.get());
    let read = value.map(read).transpose();
    read.map_err(|_| Problem::BadField(name))
        .map(Option::flatten)
}

fn position(epoch: &str, seq: u64) -> Result<Position, Problem> {
    let epoch = epoch.parse().map_err(|_| Problem::BadField("epoch"))?;
    Ok(Position { epoch, seq })
}

fn is_reserved(kind: &str) -> bool {
    RESERVED.contains(&kind)
        || RESERVED_PREFIXES
            .iter()
            .any(|prefix| kind.starts_with(prefix))
}

fn is_type(kind: &str) -> bool {
    kind.len() <= MAX_TYPE_BYTES && bellhop_common::wire::is_topic(kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn command(text: &str) -> Command {
        ClientFrame::parse(text).unwrap().command
    }

    #[test]
    fn frames_are_read_and_ids_kept() {
        let frame = ClientFrame::parse(r#"{"type":"ping","id":7,"more":[]}"#).unwrap();
        assert_eq!(frame.id, Some(json!(7)));
        assert!(matches!(frame.command, Command::Ping));
        let auth = command(r#"{"token":"t","type":"auth","id":null}"#);
        assert!(matches!(auth, Command::Auth { token, since: None } if token == "t"));
    }

    #[test]
    fn both_seeds_names_for_the_same_mean_the_same() {
        for text in [
            r#"{"type":"subscribe","room_id":"r"}"#,
            r#"{"type":"join_room","room_id":"r"}"#,
        ] {
            assert!(
                matches!(command(text), Command::Subscribe { place, since: None } if place == Place::room("r"))
            );
        }
        let chat = command(r#"{"type":"unsubscribe","chat_id":"c"}"#);
        assert!(matches!(chat, Command::Unsubscribe(place) if place == Place::chat("c")));
        let left = command(r#"{"type":"leave_room","room_id":"r"}"#);
        assert!(matches!(left, Command::Unsubscribe(place) if place == Place::room("r")));
    }

    #[test]
    fn any_other_type_is_relayed_with_its_content_as_it_was() {
        let text =
            r#"{"type":"custom_event","payload":{"n":1.50, "z":[ ]},"from":"somebody else"}"#;
        let Command::Relay(relay) = command(text) else {
            panic!("not a relay");
        };
        assert_eq!((relay.kind.as_str(), relay.place), ("custom_event", None));
        assert_eq!(relay.payload.unwrap().get(), r#"{"n":1.50, "z":[ ]}"#);
        assert!(relay.data.is_none());
    }

    #[test]
    fn where_a_client_was_is_read() {
        let text = r#"{"type":"subscribe","chat_id":"c","epoch":"0f","seq":3}"#;
        let epoch = crate::store::Epoch::new(15);
        let at = |seq| Position { epoch, seq };
        assert!(matches!(command(text), Command::Subscribe { since, .. } if since == Some(at(3))));
        let text = r#"{"type":"resume","streams":[{"audience":"user","epoch":"f","seq":1},
            {"audience":"room","id":"r","epoch":"f","seq":2}]}"#;
        let Command::Resume(streams) = command(text) else {
            panic!("not a resume");
        };
        let room = Audience::Room("r".into());
        assert_eq!(
            streams,
            [(Audience::User(String::new()), at(1)), (room, at(2))]
        );
        assert!(matches!(
            command(r#"{"type":"ack","seq":9}"#),
            Command::Ack(9)
        ));
        let read = command(r#"{"type":"read","up_to":9,"ids":null}"#);
        assert!(matches!(read, Command::Read(Marked::UpTo(9))));
        let read = command(r#"{"type":"read","ids":["0197f0a0-0000-7000-8000-000000000001"]}"#);
        assert!(matches!(read, Command::Read(Marked::Ids(ids)) if ids.len() == 1));
        // They are a relayed frame's own business.
        let relay = command(r#"{"type":"move","seq":"a","ids":7,"since":[],"up_to":{},"epoch":0}"#);
        assert!(matches!(relay, Command::Relay(_)));
    }

    #[test]
    fn every_mistake_has_its_code() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for (text, code) in [
            ("", "bad_frame"),
            ("not json", "bad_frame"),
            ("[]", "bad_frame"),
            (r#""ping""#, "bad_frame"),
            ("{}", "bad_frame"),
            (r#"{"type":1}"#, "bad_frame"),
            (r#"{"type":"ping"} {}"#, "bad_frame"),
            (r#"{"type":"ping","type":"ping"}"#, "bad_frame"),
            (r#"{"type":"subscribe","room_id":5}"#, "bad_frame"),
            (r#"{"type":"auth"}"#, "missing_field"),
            (r#"{"type":"subscribe"}"#, "missing_field"),
            (r#"{"type":"leave_room","room":"x"}"#, "missing_field"),
            (r#"{"type":"presence"}"#, "missing_field"),
            (r#"{"type":"join_room","room_id":""}"#, "bad_field"),
            (r#"{"type":"x","room_id":"a","chat_id":"b"}"#, "bad_field"),
            (r#"{"type":"task.updated","room_id":"r"}"#, "reserved_type"),
            (r#"{"type":"user_joined","room_id":"r"}"#, "reserved_type"),
            (r#"{"type":"message.new","room_id":"r"}"#, "reserved_type"),
            (r#"{"type":"room.member_removed"}"#, "reserved_type"),
            // Would end the others' event streams.
            (r#"{"type":"closed","code":4500}"#, "reserved_type"),
            // Would undo a removal.
            (r#"{"type":"room.member_added"}"#, "reserved_type"),
            (r#"{"type":"chat.member_added"}"#, "reserved_type"),
            (r#"{"type":"","room_id":"r"}"#, "bad_type"),
            (r#"{"type":"a..b","room_id":"r"}"#, "bad_type"),
            (r#"{"type":"a b","room_id":"r"}"#, "bad_type"),
            (r##"{"type":"#","room_id":"r"}"##, "bad_type"),
        ] {
            let error = ClientFrame::parse(text).unwrap_err();
            assert_eq!(error.problem.code(), code, "{text}: {error}");
        }
        let text = json!({"type": "ping", "id": "x".repeat(255)}).to_string();
        let error = ClientFrame::parse(&text).unwrap_err();
        assert_eq!((error.problem.code(), error.id), ("bad_field", None));
        let text = json!({"type": "subscribe", "chat_id": long, "id": "q"}).to_string();
        let error = ClientFrame::parse(&text).unwrap_err();
        assert_eq!(
            (error.problem.code(), error.id),
            ("bad_field", Some(json!("q")))
        );
    }

    #[test]
    fn every_mistake_about_streams_has_its_code() {
        for (text, code) in [
            (
                r#"{"type":"resume","streams":[{"audience":"user","epoch":"1","seq":1},
                                               {"audience":"user","id":"ann","epoch":"1","seq":2}]}"#,
                "bad_field",
            ),
            (r#"{"type":"resume"}"#, "missing_field"),
            (
                r#"{"type":"resume","streams":[{"audience":"team","id":"x","epoch":"1","seq":1}]}"#,
                "bad_field",
            ),
            (
                r#"{"type":"resume","streams":[{"audience":"room","epoch":"1","seq":1}]}"#,
                "bad_field",
            ),
            (
                r#"{"type":"resume","streams":[{"audience":"user","epoch":"x","seq":1}]}"#,
                "bad_field",
            ),
            (r#"{"type":"ack"}"#, "missing_field"),
            (r#"{"type":"ack","seq":-1}"#, "bad_field"),
            (r#"{"type":"read"}"#, "missing_field"),
            (r#"{"type":"read","ids":[],"up_to":1}"#, "missing_field"),
            (r#"{"type":"read","ids":["x"]}"#, "bad_field"),
            (
                r#"{"type":"subscribe","room_id":"r","seq":1}"#,
                "missing_field",
            ),
        ] {
            let error = ClientFrame::parse(text).unwrap_err();
            assert_eq!(error.problem.code(), code, "{text}: {error}");
        }
    }
}
