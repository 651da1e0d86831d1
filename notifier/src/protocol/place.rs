//! Rooms and chats: where people meet. Two kinds with names of their own, otherwise alike.

use std::fmt;
use std::sync::Arc;

use bellhop_common::wire::Audience;

/// Which field of a frame names a place, and which audience of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlaceKind {
    /// `room_id`.
    Room,
    /// `chat_id`.
    Chat,
}

/// A room or a chat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Room or chat.
    pub kind: PlaceKind,
    /// Its id, as the backend gave it.
    pub id: Arc<str>,
}

impl PlaceKind {
    /// The name of the field that holds the id in frames, in both directions.
    #[must_use]
    pub const fn field(self) -> &'static str {
        match self {
            Self::Room => "room_id",
            Self::Chat => "chat_id",
        }
    }

    /// The word before the colon in a pattern such as `room:proj-*`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Room => "room",
            Self::Chat => "chat",
        }
    }
}

impl Place {
    /// A room.
    #[must_use]
    pub fn room(id: impl Into<Arc<str>>) -> Self {
        let (kind, id) = (PlaceKind::Room, id.into());
        Self { kind, id }
    }

    /// A chat.
    #[must_use]
    pub fn chat(id: impl Into<Arc<str>>) -> Self {
        let (kind, id) = (PlaceKind::Chat, id.into());
        Self { kind, id }
    }

    /// The place that an event is for, if it is for one.
    #[must_use]
    pub fn of(audience: &Audience) -> Option<Self> {
        match audience {
            Audience::Room(id) => Some(Self::room(id.as_str())),
            Audience::Chat(id) => Some(Self::chat(id.as_str())),
            Audience::User(_) | Audience::All | Audience::Team(_) => None,
        }
    }

    /// Whom an event to this place is for.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match self.kind {
            PlaceKind::Room => Audience::Room(self.id.to_string()),
            PlaceKind::Chat => Audience::Chat(self.id.to_string()),
        }
    }
}

/// `room:lobby`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind.word(), self.id)
    }
}
