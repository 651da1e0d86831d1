//! What a client that comes, or comes back, is told from the store.

use bytes::Bytes;
use metrics::counter;

use tokio::time::Instant;

use super::catch_up::{self, told_of, within};
use super::{Cursor, Missing, STORE_WAIT, Settled, Streams};
use crate::gateway::Gateway;
use crate::inbound;
use crate::metric;
use crate::protocol::Frame;
use crate::store::{Head, Position, StoreError, StreamName, TaskQuery};

/// A client that missed more asks for it by HTTP, page by page.
const MAX_REPLAYED: u64 = 1000;

/// The same in bytes: 1,000 events of 4 KiB. A replay waits beside `websocket.queue_size`, and of the
/// largest events 1,000 would be 250 MiB for one client.
const MAX_REPLAYED_BYTES: usize = 4 * 1024 * 1024;

/// How many tasks a client is shown at once.
const MAX_TASKS: u32 = 50;

/// The same in bytes: 50 states of 5 KiB, a quarter of what waits for a client by default. Many clients
/// come at once when an instance ends.
const MAX_TASKS_BYTES: usize = 256 * 1024;

/// How much may still be replayed to a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    events: u64,
    bytes: usize,
}

impl Left {
    /// Of a client that was replayed nothing yet.
    pub(crate) const ALL: Self = Self {
        events: MAX_REPLAYED,
        bytes: MAX_REPLAYED_BYTES,
    };
}

/// A client in one stream.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) name: StreamName,
    /// What comes after this reaches the client by itself.
    pub(crate) from: Position,
    /// What it missed.
    pub(crate) missed: Vec<Frame>,
    /// Where it was before, if that is known.
    pub(crate) since: Option<Position>,
    /// Whether that is all it missed, if it is known where it was.
    pub(crate) recovered: Option<bool>,
    /// It has seen everything up to here, which is more than this instance has shown.
    pub(crate) ahead: Option<Position>,
}

impl Joined {
    /// With nothing that was missed.
    fn at(name: StreamName, from: Position) -> Self {
        Self {
            name,
            from,
            missed: Vec::new(),
            since: None,
            recovered: None,
            ahead: None,
        }
    }
}

/// What a user's connection begins with.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) streams: Vec<Joined>,
    pub(crate) unread: u64,
    /// His tasks that changed last, each as the `data` of its event.
    pub(crate) tasks: Vec<Bytes>,
}

/// Where a client was in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// It said so.
    Told(Position),
    /// It did not; its user has left once, and is shown what came since.
    LastLeft,
    /// It did not.
    Unknown,
}

/// Opens a user's own stream and everybody's, which he has followed since `own` and `all`.
pub(crate) async fn open(
    gateway: &Gateway,
    streams: &Streams,
    user: &str,
    (own, all): (Option<Position>, Option<Position>),
    since: Option<&Cursor>,
) -> Result<Opened, StoreError> {
    let (own_name, all_name) = (StreamName::user(user), StreamName::all());
    let told = |name| since.and_then(|since| since.get(name)).map(Since::Told);
    let own_since = told(&own_name).unwrap_or(Since::LastLeft);
    let all_since = told(&all_name).unwrap_or(Since::Unknown);
    // Where everybody's stands is known here, once the first has come.
    let all_is_known = all.filter(|_| all_since == Since::Unknown);
    let mut names = vec![own_name.clone()];
    if all_is_known.is_none() {
        names.push(all_name.clone());
    }
    let query = TaskQuery {
        ended: None,
        before: None,
        limit: MAX_TASKS,
        max_bytes: MAX_TASKS_BYTES,
    };
    let opening = streams.store.open(names, user.to_owned(), query);
    let (heads, tasks) = within(opening).await?;
    let own_head = heads.first().copied().ok_or(StoreError::Closed)?;
    let own = join_at(gateway, streams, own_name, own, own_since, own_head).await?;
    let all = if let Some(from) = all_is_known {
        Joined::at(all_name, from)
    } else {
        let head = heads.get(1).copied().ok_or(StoreError::Closed)?;
        join_at(gateway, streams, all_name, all, all_since, head).await?
    };
    Ok(Opened {
        streams: vec![own, all],
        unread: own_head.unread,
        tasks: tasks.items.into_iter().map(|task| task.state).collect(),
    })
}

/// Joins a stream that has been followed since `followed`.
pub(crate) async fn join(
    gateway: &Gateway,
    streams: &Streams,
    name: StreamName,
    followed: Option<Position>,
    since: Since,
) -> Result<Joined, StoreError> {
    let heads = within(streams.store.heads(vec![name.clone()])).await?;
    let head = heads.first().copied().ok_or(StoreError::Closed)?;
    join_at(gateway, streams, name, followed, since, head).await
}

async fn join_at(
    gateway: &Gateway,
    streams: &Streams,
    name: StreamName,
    followed: Option<Position>,
    since: Since,
    head: Head,
) -> Result<Joined, StoreError> {
    let from = followed.unwrap_or_else(|| begin(gateway, streams, &name, &head));
    let mut left = Left::ALL;
    let (since, missed) = match since {
        Since::Told(since) => {
            let missed = replay(streams, &name, since, from, &head, &mut left).await?;
            (since, missed)
        }
        Since::LastLeft => {
            let since = last_left(streams, &name, &head);
            let missed = read(streams, &name, since, from, &head, &mut left).await?;
            (since, missed)
        }
        Since::Unknown => return Ok(Joined::at(name, from)),
    };
    Ok(Joined {
        since: Some(since),
        recovered: Some(missed.is_some()),
        // Of a position that the store knows nothing of, what comes up to there was not seen.
        ahead: (missed.is_some() && since.epoch == from.epoch && since.seq > from.seq)
            .then_some(since),
        missed: missed.unwrap_or_default(),
        from,
        name,
    })
}

/// How far a user had come when he left, which the store may not know yet.
fn last_left(streams: &Streams, name: &StreamName, head: &Head) -> Position {
    let kept = Position {
        seq: head.cursor,
        ..head.position()
    };
    let newer = streams.leaving.cursor(name);
    newer
        .filter(|newer| newer.epoch == kept.epoch && newer.seq > kept.seq)
        .unwrap_or(kept)
}

/// Nobody here has followed the stream before.
fn begin(gateway: &Gateway, streams: &Streams, name: &StreamName, head: &Head) -> Position {
    let followed = streams.followed(name);
    let standing = followed.standing(name);
    let missing = standing.map(|standing| standing.missing(Instant::now(), STORE_WAIT));
    let settled = if missing == Some(Missing::Unknown) {
        // Somebody came before, had no answer in time, and has to be told.
        catch_up::begin(gateway, streams, name, head)
    } else {
        followed.settle(name, None, head.position(), |told| {
            if let Some(told) = told {
                inbound::show(gateway, &told);
            }
        })
    };
    if let Settled::Behind(_) = settled {
        streams.catch_up(name);
    }
    followed.begun(name).unwrap_or(head.position())
}

/// What a client missed that says it was at `since`, up to and with `up_to`; `None` if not all of
/// it is there, or if it is more than is left, of which it is taken.
pub(crate) async fn replay(
    streams: &Streams,
    name: &StreamName,
    since: Position,
    up_to: Position,
    head: &Head,
    left: &mut Left,
) -> Result<Option<Vec<Frame>>, StoreError> {
    let missed = read(streams, name, since, up_to, head, left).await?;
    let outcome = if missed.is_some() {
        "recovered"
    } else {
        "lost"
    };
    counter!(metric::RESUMES, "outcome" => outcome).increment(1);
    Ok(missed)
}

async fn read(
    streams: &Streams,
    name: &StreamName,
    since: Position,
    up_to: Position,
    head: &Head,
    left: &mut Left,
) -> Result<Option<Vec<Frame>>, StoreError> {
    let is_known = head.has_all_since(since) && up_to.epoch == since.epoch;
    let count = up_to.seq.saturating_sub(since.seq);
    if !is_known || count > left.events {
        return Ok(None);
    }
    let entries = if count == 0 {
        Vec::new()
    } else {
        let (name, bytes) = (name.clone(), left.bytes);
        within(streams.store.read(name, since.seq, up_to.seq, bytes)).await?
    };
    let bytes: usize = entries.iter().map(|entry| entry.body.len()).sum();
    // The store gives one in any case.
    if entries.len() as u64 != count || bytes > left.bytes {
        return Ok(None);
    }
    left.events -= count;
    left.bytes -= bytes;
    counter!(metric::REPLAYED).increment(count);
    // What cannot be read was never shown to anybody either.
    let told = entries
        .iter()
        .filter_map(|entry| told_of(name, up_to, entry));
    Ok(Some(
        told.filter_map(|told| inbound::frame_of(&told)).collect(),
    ))
}
