//! Streams: whose they are, and where in one something stands. Pure.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bellhop_common::wire::Audience;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::protocol::Place;

/// The stream of a user, a room, a chat, or of all: `user:ann`, `room:lobby`, `chat:c1`, `all`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamName(Arc<str>);

/// One life of a stream. Another one says that events were lost, and that numbers mean nothing
/// across the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

/// An event's place in its stream. The first has the number 1, and there are no gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Which life of the stream.
    pub epoch: Epoch,
    /// Its number.
    pub seq: u64,
}

/// Not an epoch of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an epoch has 1 to 16 hexadecimal digits")]
pub struct EpochError;

/// Not the name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a stream is `user:<id>`, `room:<id>`, `chat:<id>` or `all`, not {0:?}")]
pub struct StreamNameError(String);

const USER: &str = "user:";

impl StreamName {
    /// The stream that events for this audience are kept in; a team has none.
    #[must_use]
    pub fn of(audience: &Audience) -> Option<Self> {
        let name = match audience {
            Audience::User(id) => return Some(Self::user(id)),
            Audience::Room(id) => format!("room:{id}"),
            Audience::Chat(id) => format!("chat:{id}"),
            Audience::All => return Some(Self::all()),
            Audience::Team(_) => return None,
        };
        Some(Self(name.into()))
    }

    /// A user's own.
    #[must_use]
    pub fn user(id: &str) -> Self {
        Self(format!("{USER}{id}").into())
    }

    /// Everybody's.
    #[must_use]
    pub fn all() -> Self {
        Self("all".into())
    }

    /// A room's or chat's.
    #[must_use]
    pub fn place(place: &Place) -> Self {
        Self(place.to_string().into())
    }

    /// As it is kept.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user whose it is, if it is a user's.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.0.strip_prefix(USER)
    }

    /// Whether it is the stream for all.
    #[must_use]
    pub fn is_everybodys(&self) -> bool {
        &*self.0 == "all"
    }

    /// The word and the id of whom its events are for, as in a routing key.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once(':').unwrap_or(("all", "all"))
    }

    /// Whom its events are for.
    #[must_use]
    pub fn audience(&self) -> Audience {
        let (word, id) = self.parts();
        let id = id.to_owned();
        match word {
            "user" => Audience::User(id),
            "room" => Audience::Room(id),
            "chat" => Audience::Chat(id),
            _ => Audience::All,
        }
    }
}

impl FromStr for StreamName {
    type Err = StreamNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = match text.split_once(':') {
            Some(("user" | "room" | "chat", id)) => !id.is_empty(),
            Some(_) => false,
            None => text == "all",
        };
        known
            .then(|| Self(text.into()))
            .ok_or_else(|| StreamNameError(text.to_owned()))
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Epoch {
    /// From what a store keeps.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// A new one, which no stream had before.
    #[must_use]
    pub fn fresh() -> Self {
        // Version 4, whose lower half is random but for two bits.
        Self(uuid::Uuid::new_v4().as_u64_pair().1)
    }

    /// What a store keeps.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = EpochError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `from_str_radix` takes a sign.
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(text, 16);
        number.ok().filter(|_| is_hex).map(Self).ok_or(EpochError)
    }
}

impl Serialize for Epoch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Epoch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// What a store knows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its life.
    pub epoch: Epoch,
    /// The number of its newest event; 0 if there was none.
    pub last: u64,
    /// The number of the oldest that is kept, one above the newest if none is.
    pub first: u64,
    /// Of a user's stream: up to here somebody had it all.
    pub cursor: u64,
    /// Of a user's stream: how many are not read.
    pub unread: u64,
}

impl Head {
    /// A stream without events.
    #[must_use]
    pub const fn empty(epoch: Epoch) -> Self {
        Self {
            epoch,
            last: 0,
            first: 1,
            cursor: 0,
            unread: 0,
        }
    }

    /// Where the stream stands.
    #[must_use]
    pub const fn position(&self) -> Position {
        Position {
            epoch: self.epoch,
            seq: self.last,
        }
    }

    /// Whether all that came after a position is still there.
    #[must_use]
    pub fn has_all_since(&self, since: Position) -> bool {
        since.epoch == self.epoch && since.seq <= self.last && since.seq + 1 >= self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_reads_back_as_the_audience_it_is_of() {
        for audience in [
            Audience::User("a:b".into()),
            Audience::Room("all".into()),
            Audience::Chat("ünï.*#%".into()),
            Audience::All,
        ] {
            let name = StreamName::of(&audience).unwrap();
            assert_eq!(name.audience(), audience);
            assert_eq!(name.as_str().parse(), Ok(name));
        }
        assert_eq!(StreamName::of(&Audience::Team("ops".into())), None);
        for text in ["", "user:", "team:x", "ALL", "room"] {
            assert!(text.parse::<StreamName>().is_err(), "{text}");
        }
        assert_eq!(StreamName::user("a:b").owner(), Some("a:b"));
        assert_eq!(StreamName::all().owner(), None);
    }

    #[test]
    fn an_epoch_reads_back() {
        for number in [0, 1, u64::MAX] {
            let epoch = Epoch::new(number);
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }
        for text in ["", "+1", "g", "11112222333344445"] {
            assert_eq!(text.parse::<Epoch>(), Err(EpochError), "{text}");
        }
        assert_ne!(Epoch::fresh(), Epoch::fresh());
    }

    #[test]
    fn what_was_trimmed_or_never_was_is_not_all_there() {
        let epoch = Epoch::new(7);
        let head = Head {
            last: 10,
            first: 6,
            ..Head::empty(epoch)
        };
        let has = |seq| head.has_all_since(Position { epoch, seq });
        assert!(has(5) && has(10) && !has(4) && !has(11));
        let other = Epoch::new(8);
        assert!(!head.has_all_since(Position {
            epoch: other,
            seq: 7
        }));
        let empty = Head::empty(epoch);
        assert!(empty.has_all_since(Position { epoch, seq: 0 }));
    }
}
