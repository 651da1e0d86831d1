//! What comes of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::letter::DeadLetter;
use crate::amqp::{BrowseError, Delivery, Found, PublishError, SettleError};

/// What a listing came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// There are more that match than were asked for.
    pub more: bool,
    /// Ids that were asked for and have not been seen.
    pub missing: BTreeSet<String>,
    /// Whether every letter was looked at, as far as it was necessary.
    pub complete: bool,
}

/// A letter with all that is in it.
#[derive(Debug, Clone, Serialize)]
pub struct Opened {
    /// What it says of itself.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The exchange's key it came by.
    pub routing_key: String,
    /// Its headers, those that are texts or whole numbers.
    pub headers: BTreeMap<String, String>,
    /// The body, if it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// The body, if it is not; what is no UTF-8 is replaced by U+FFFD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// What replaying or dropping came to.
#[derive(Debug, Default)]
pub struct Report {
    /// How many letters were replayed, or dropped.
    pub done: usize,
    /// How many matched and were left, because nobody could read them then.
    pub unreadable: usize,
    /// How many matched and could not be replayed.
    pub failed: usize,
    /// Ids that were asked for and have not been seen.
    pub missing: BTreeSet<String>,
    /// Why the first of those that failed did, or why it ended early.
    pub problem: Option<ReplayError>,
    /// Whether every letter was looked at.
    pub complete: bool,
}

/// Why a letter is still where it was.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// Its queue is gone, or never was.
    #[error(
        "{id}: there is no queue `{queue}` (any more): run a worker that serves it, or give \
         another queue"
    )]
    NoSuchQueue {
        /// The letter.
        id: String,
        /// The queue's short name, or whole name if it is not one of jobs.
        queue: String,
    },
    /// Nothing in it says where it came from.
    #[error("{id}: it does not say which queue it came from: give one")]
    NoOrigin {
        /// The letter.
        id: String,
    },
    /// The broker did not take it.
    #[error("{id}: it could not be put into its queue")]
    Publish {
        /// The letter.
        id: String,
        /// Why.
        #[source]
        source: PublishError,
    },
    /// It is in its queue, but here, too.
    #[error("{id}: it could not be taken out of the dead letters")]
    Settle {
        /// The letter.
        id: String,
        /// Why.
        #[source]
        source: SettleError,
    },
    /// The rest could not be looked at.
    #[error(transparent)]
    Browse(#[from] BrowseError),
}

impl ReplayError {
    /// Whether it is about this letter alone.
    pub(super) fn spares_the_others(&self) -> bool {
        match self {
            Self::NoSuchQueue { .. } | Self::NoOrigin { .. } => true,
            Self::Publish { source, .. } => source.is_permanent(),
            Self::Settle { .. } | Self::Browse(_) => false,
        }
    }
}

impl Opened {
    pub(super) fn new(letter: DeadLetter, found: Found) -> Self {
        let Delivery {
            routing_key,
            properties,
            body,
            ..
        } = found.delivery;
        let (body, text) = match serde_json::from_slice(&body) {
            Ok(json) => (Some(json), None),
            Err(_) => (None, Some(String::from_utf8_lossy(&body).into_owned())),
        };
        Self {
            letter,
            routing_key,
            headers: properties.headers,
            body,
            text,
        }
    }
}
