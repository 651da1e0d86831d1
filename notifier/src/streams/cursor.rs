//! Where a client is in its streams, as a text that it gives back when it returns. Pure.
//!
//! `user.<epoch>.<seq>,room.<id>.<epoch>.<seq>,all.<epoch>.<seq>`: the id of each Server-Sent Event,
//! and `since` in an address or in `auth`. A user is not named, because it is whoever is logged in.

use bellhop_common::wire::decode_word;
use thiserror::Error;

use crate::store::{Epoch, Position, StreamName};

/// The longest text, in bytes: twenty rooms with long names.
pub(crate) const MAX_CURSOR: usize = 8 * 1024;

/// Positions in streams, each stream once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(Vec<(StreamName, Position)>);

/// Not a cursor of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "a cursor is what the notifier gave: the id of an event, or parts such as `user.<epoch>.<seq>`"
)]
pub(crate) struct CursorError;

impl Cursor {
    /// Reads the text of a client that is logged in as `user`.
    ///
    /// # Errors
    /// [`CursorError`].
    pub(crate) fn parse(text: &str, user: &str) -> Result<Self, CursorError> {
        let mut cursor = Self::default();
        if text.len() > MAX_CURSOR {
            return Err(CursorError);
        }
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let words: Vec<_> = part.split('.').collect();
            let (name, epoch, seq) = match *words.as_slice() {
                ["user", epoch, seq] => (StreamName::user(user), epoch, seq),
                ["all", epoch, seq] => (StreamName::all(), epoch, seq),
                [kind @ ("room" | "chat"), id, epoch, seq] => {
                    let id = decode_word(id).ok_or(CursorError)?;
                    let name = format!("{kind}:{id}").parse().map_err(|_| CursorError)?;
                    (name, epoch, seq)
                }
                _ => return Err(CursorError),
            };
            let position = Position {
                epoch: epoch.parse().map_err(|_| CursorError)?,
                seq: seq.parse().map_err(|_| CursorError)?,
            };
            cursor.set(&name, position);
        }
        Ok(cursor)
    }

    /// Of a client that has been here before, and whose text cannot be read: in no life of its streams.
    pub(crate) fn lost(user: &str) -> Self {
        let nowhere = Position {
            epoch: Epoch::new(0),
            seq: 0,
        };
        Self(vec![
            (StreamName::user(user), nowhere),
            (StreamName::all(), nowhere),
        ])
    }

    /// Where it is in a stream.
    #[must_use]
    pub(crate) fn get(&self, name: &StreamName) -> Option<Position> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, position)| *position)
    }

    /// Moves it in a stream.
    pub(crate) fn set(&mut self, name: &StreamName, position: Position) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = position,
            None => self.0.push((name.clone(), position)),
        }
    }

    /// Forgets a stream.
    pub(crate) fn remove(&mut self, name: &StreamName) {
        self.0.retain(|(known, _)| known != name);
    }

    /// Forgets all streams but these.
    pub(crate) fn retain(&mut self, mut is_kept: impl FnMut(&StreamName) -> bool) {
        self.0.retain(|(known, _)| is_kept(known));
    }

    /// Whether it is in no stream.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let parts = self.0.iter().map(|(name, Position { epoch, seq })| {
            match name.as_str().split_once(':') {
                Some(("user", _)) => format!("user.{epoch}.{seq}"),
                Some((kind, id)) => format!("{kind}.{}.{epoch}.{seq}", encode(id)),
                None => format!("all.{epoch}.{seq}"),
            }
        });
        parts.collect::<Vec<_>>().join(",")
    }
}

/// Only what is safe in a header, a line of an event stream, an address and between our own signs.
fn encode(id: &str) -> String {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let encoded = id.bytes().map(|byte| match byte {
        byte if is_safe(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    });
    encoded.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_is_safe_everywhere() {
        let mut cursor = Cursor::default();
        let names = [
            StreamName::user("ann, the.first"),
            StreamName::all(),
            "room:a.b,c %\r\n\u{0}ü".parse().unwrap(),
            "chat:all".parse().unwrap(),
        ];
        for (seq, name) in (0..).zip(&names) {
            let epoch = Epoch::new(u64::MAX - seq);
            cursor.set(name, Position { epoch, seq });
        }
        let text = cursor.text();
        let is_safe = |c: char| c.is_ascii_alphanumeric() || ".,-_%".contains(c);
        assert!(text.chars().all(is_safe), "{text}");
        assert_eq!(Cursor::parse(&text, "ann, the.first"), Ok(cursor.clone()));
        // Another user cannot be asked for.
        let other = Cursor::parse(&text, "eve").unwrap();
        assert_eq!(other.get(&names[0]), None);
        assert!(other.get(&StreamName::user("eve")).is_some());
        cursor.remove(&names[2]);
        assert_eq!(cursor.get(&names[2]), None);
    }

    #[test]
    fn what_is_no_cursor_is_said_to_be_none() {
        for text in [
            "x",
            "user",
            "user.1",
            "user.x.1",
            "user.1.-1",
            "user.1.1.1",
            "room.%zz.1.1",
            "room..1.1",
            "team.x.1.1",
            "0197f0a0-0000-7000-8000-000000000001",
        ] {
            assert_eq!(Cursor::parse(text, "ann"), Err(CursorError), "{text}");
        }
        assert_eq!(Cursor::parse("", "ann"), Ok(Cursor::default()));
        let long = "all.1.1,".repeat(MAX_CURSOR);
        assert_eq!(Cursor::parse(&long, "ann"), Err(CursorError));
    }
}
