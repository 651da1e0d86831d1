//! Stored events on their way from the instance that keeps them to all that show them. Pure.
//!
//! They are for notifiers that share a store, or have none; one alone has [`batches`](super::batches).
//! Many go into one message, since RabbitMQ's work is for each message, and in one message they
//! cannot overtake each other. Each is a line that says what it is, and the event as it was
//! published.

use bellhop_common::wire::{EventKey, KeyError};
use bytes::{Buf as _, Bytes};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::store::{Epoch, Kept, Position};

/// The first word of its routing key.
pub(crate) const KEY_WORD: &str = "bundle";

/// An event that was kept, or that is only passed on where nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Its routing key.
    pub(crate) key: EventKey,
    /// Its place in its stream.
    pub(crate) position: Option<Position>,
    /// How many its user has not read.
    pub(crate) unread: Option<u64>,
    /// The event as it was published.
    pub(crate) body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    key: std::borrow::Cow<'a, str>,
    epoch: Option<String>,
    seq: Option<u64>,
    unread: Option<u64>,
    bytes: usize,
}

/// Why a bundle cannot be read.
#[derive(Debug, Error)]
pub(crate) enum BundleError {
    /// A line is missing or is none of ours.
    #[error("a bundle's line is malformed")]
    Line(#[from] serde_json::Error),
    /// An event's key is none.
    #[error("a bundle has an event with a malformed key")]
    Key(#[from] KeyError),
    /// It ends too early.
    #[error("a bundle ends in the middle of an event")]
    Short,
}

impl Told {
    /// What becomes of an event with this key when it was kept.
    pub(crate) fn new(key: EventKey, kept: Option<&Kept>, body: Bytes) -> Self {
        Self {
            key,
            position: kept.map(|kept| kept.position),
            unread: kept.and_then(|kept| kept.unread),
            body,
        }
    }

    /// Adds it to a bundle.
    pub(crate) fn write(&self, bundle: &mut Vec<u8>) -> Result<(), BundleError> {
        let line = Line {
            key: self.key.to_string().into(),
            epoch: self.position.map(|position| position.epoch.to_string()),
            seq: self.position.map(|position| position.seq),
            unread: self.unread,
            bytes: self.body.len(),
        };
        serde_json::to_writer(&mut *bundle, &line)?;
        bundle.push(b'\n');
        bundle.extend_from_slice(&self.body);
        bundle.push(b'\n');
        Ok(())
    }

    /// Takes the first of a bundle; `None` at its end.
    pub(crate) fn read(bundle: &mut Bytes) -> Result<Option<Self>, BundleError> {
        if bundle.is_empty() {
            return Ok(None);
        }
        let end = bundle.iter().position(|byte| *byte == b'\n');
        let head = bundle.split_to(end.ok_or(BundleError::Short)?);
        bundle.advance(1);
        let line: Line<'_> = serde_json::from_slice(&head)?;
        if bundle.len() <= line.bytes {
            return Err(BundleError::Short);
        }
        let body = bundle.split_to(line.bytes);
        bundle.advance(1);
        let epoch = line.epoch.and_then(|epoch| epoch.parse::<Epoch>().ok());
        let position = epoch
            .zip(line.seq)
            .map(|(epoch, seq)| Position { epoch, seq });
        Ok(Some(Self {
            key: EventKey::parse(&line.key)?,
            position,
            unread: line.unread,
            body,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(n: u64) -> Told {
        Told {
            key: EventKey::parse(&format!("live.user.u{n}.x")).unwrap(),
            position: (n > 0).then(|| Position {
                epoch: Epoch::new(n),
                seq: n,
            }),
            unread: (n > 1).then_some(n),
            body: Bytes::from(format!("{{\n\"n\":{n}\r\n}}\n")),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let all: Vec<_> = (0..4).map(told).collect();
        let mut bundle = Vec::new();
        for told in &all {
            told.write(&mut bundle).unwrap();
        }
        let mut bundle = Bytes::from(bundle);
        let mut read = Vec::new();
        while let Some(told) = Told::read(&mut bundle).unwrap() {
            read.push(told);
        }
        assert_eq!(read, all);
    }

    #[test]
    fn a_bundle_that_is_cut_is_an_error_and_no_panic() {
        let mut whole = Vec::new();
        told(3).write(&mut whole).unwrap();
        for length in 1..whole.len() {
            let mut bundle = Bytes::copy_from_slice(&whole[..length]);
            assert!(Told::read(&mut bundle).is_err(), "{length}");
        }
    }
}
