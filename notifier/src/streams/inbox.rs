//! What a user has read: kept, and told to all his devices.

use bellhop_common::amqp::{Message, PublishError, Route};
use bellhop_common::wire::{Audience, Event, EventClass, EventError, EventKey, KeyError};
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tracing::warn;
use uuid::Uuid;

use super::catch_up::within;
use crate::gateway::Gateway;
use crate::store::{Epoch, Mark, Marked, StoreError, Unread};

/// The event that tells a user's devices.
const UPDATED: &str = "inbox.updated";

/// Why something could not be marked.
#[derive(Debug, Error)]
pub(crate) enum MarkError {
    /// There is none.
    #[error("nothing is kept here (store.kind = \"none\")")]
    NoStore,
    /// It cannot be kept.
    #[error("the store does not answer: try again")]
    Store(#[from] StoreError),
}

#[derive(Debug, Error)]
enum TellError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Marks events of a user's inbox; how many are not read then.
pub(crate) async fn mark(
    gateway: &Gateway,
    user: String,
    marked: Marked,
    mark: Mark,
) -> Result<u64, MarkError> {
    let streams = gateway.streams.as_ref().ok_or(MarkError::NoStore)?;
    let marking = streams.store.mark(user.clone(), marked.clone(), mark);
    let unread = within(marking).await?;
    // It is kept; other devices that do not hear of it learn it when they come again.
    if let Err(error) = tell(gateway, user, &marked, mark, unread).await {
        warn!(%error, "a user's devices could not be told what was read");
    }
    Ok(unread.count)
}

/// The `data` of `inbox.updated`.
#[derive(Serialize)]
struct Updated<'a> {
    unread: u64,
    mark: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ids: Option<&'a [Uuid]>,
    // Of the newest event that is counted: one that was kept before may be told after this, with a number
    // that is older.
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<Epoch>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
}

async fn tell(
    gateway: &Gateway,
    user: String,
    marked: &Marked,
    mark: Mark,
    unread: Unread,
) -> Result<(), TellError> {
    let mark = match mark {
        Mark::Read => "read",
        Mark::Archived => "archived",
    };
    let (up_to, ids) = match marked {
        Marked::UpTo(seq) => (Some(*seq), None),
        Marked::Ids(ids) => (None, Some(&ids[..])),
    };
    let counted_at = unread.counted_at.map(|at| (at.epoch, at.seq));
    let (epoch, seq) = counted_at.unzip();
    let data = Updated {
        unread: unread.count,
        mark,
        up_to,
        ids,
        epoch,
        seq,
    };
    let event = Event::new(UPDATED, Uuid::now_v7(), Timestamp::now(), &data)?;
    let key = EventKey {
        class: EventClass::Live,
        audience: Audience::User(user),
        topic: UPDATED.into(),
    };
    let (exchange, key) = (gateway.names.events(), key.encode()?);
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: false,
    };
    let message = Message {
        body: event.to_bytes()?,
        ..Message::default()
    };
    gateway.publisher.publish(route, &message).await?;
    Ok(())
}
