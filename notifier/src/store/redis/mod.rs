//! The shared store: a Redis or Valkey server, or a cluster of them, for as many notifiers as there are.
//!
//! It needs Redis 6.2 or newer, or any Valkey. All keys of a stream have one hash tag, no script works
//! on two streams, and each names its keys: so a stream is whole on one server of a cluster, and streams are
//! spread over all. One server is asked everything at once, in one pipeline; a cluster slot by slot.
//!
//! `rediss://` is TLS, with the system's certificates; `unix://` a socket. A cluster is named by some of
//! its servers, with commas between them.
//!
//! | key | kind | holds |
//! |---|---|---|
//! | `<prefix>streams` | sorted set | streams, by when their oldest event or task was stored |
//! | `<prefix>{<stream>}:meta` | hash | epoch, last, first, cursor; up to where all is read, and archived |
//! | `…:events` | stream | `<number>-0`: event id, time, body |
//! | `…:ids` | hash | event id → number |
//! | `…:read` | sorted set | numbers of read events that are above |
//! | `…:archived` | sorted set | numbers of archived events that are above |
//! | `…:tasks` | hash | task id → rank and state |
//! | `…:ages` | sorted set | task ids, by when the state was stored |
//! | `…:open` | sorted set | the same, of tasks that have not ended |
//! | `…:ranks` | sorted set | of an earlier version: rank and task id, until the board is looked at |
//! | `…:groups` | hash | group id → size, how many succeeded, failed, were cancelled, rev, bytes of results |
//! | `…:jobs` | hash | index in 5 digits and group id → rev, end, task id, result |
//! | `…:group_ages` | sorted set | group ids, by when the last of their jobs was counted |
//! | `<prefix>instances` | sorted set | runs of instances, by their last sign of life |
//! | `<prefix>{instance:<run>}:connections` | hash | connection id → [`Connected`] as JSON |
//! | `…:users` | hash | user id → the ids of his connections |
//! | `<prefix>{document:<name>}:document` | hash | version and body, and a mark of who put it |
//! | `<prefix>{event:<id>}:attempts` | list | tries to deliver the event, as JSON; expires with the age of the [`Retention`] |
//!
//! `<stream>` is the name, percent-encoded. A stream that has no events is forgotten when the age of
//! the [`Retention`] has passed (a day at least); it then has another [`Epoch`].

mod append;
mod cluster;
mod connections;
mod documents;
mod fitness;
mod groups;
mod inbox;
mod keys;
mod link;
mod tasks;
mod upkeep;

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use redis::{Cmd, FromRedisValue, Pipeline};
use uuid::Uuid;

pub use self::connections::{Connected, Connections};
use self::keys::{HEAD, MOVE_CURSOR, READ, Slot};
use self::link::Link;
use super::{
    Answer, AttemptRecord, Document, Entry, Epoch, GroupRecord, Head, InboxEntry, InboxQuery, Kept,
    Mark, Marked, NewEvent, Page, Position, Retention, Store, StoreError, StreamName, Swept,
    TaskPlace, TaskQuery, TaskRecord, Unread,
};

/// Events, read marks and tasks in Redis.
#[derive(Debug)]
pub struct Redis {
    link: Link,
    prefix: String,
    retention: Retention,
}

impl Redis {
    /// For the server at a URL, or the cluster that some name with commas between them. Keys shall begin
    /// with a prefix. The servers need not be there yet.
    ///
    /// # Errors
    /// [`StoreError::Url`] if there is no telling where a server is.
    pub fn open(url: &str, prefix: &str, retention: Retention) -> Result<Self, StoreError> {
        Ok(Self {
            link: Link::open(url)?,
            prefix: prefix.to_owned(),
            retention,
        })
    }

    fn slot(&self, stream: &StreamName) -> Slot {
        Slot::of(&self.prefix, stream)
    }

    /// Sends one command.
    async fn ask<T: FromRedisValue>(&self, command: Cmd) -> Result<T, StoreError> {
        let mut pipeline = Pipeline::with_capacity(1);
        pipeline.add_command(command);
        let (answer,) = self.link.ask(&pipeline).await?;
        Ok(answer)
    }

    /// Sends one command for each stream.
    async fn ask_each<T: FromRedisValue>(
        &self,
        commands: impl Iterator<Item = Cmd>,
    ) -> Result<Vec<T>, StoreError> {
        let mut pipeline = Pipeline::new();
        for command in commands {
            pipeline.add_command(command);
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        self.link.ask(&pipeline).await
    }

    /// For how many milliseconds a stream is known without events.
    fn memory(&self) -> u64 {
        const DAY: Duration = Duration::from_hours(24);
        // More is no time of Redis's.
        const LONGEST: Duration = Duration::from_hours(24 * 36_500);
        let age = self.retention.age.clamp(DAY, LONGEST);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    async fn heads(&self, streams: &[StreamName]) -> Result<Vec<Head>, StoreError> {
        let calls = streams.iter().map(|stream| {
            let mut call = HEAD.call(&self.slot(stream));
            call.arg(Epoch::fresh().number()).arg(self.memory());
            call
        });
        let heads: Vec<(u64, u64, u64, u64, u64)> = self.ask_each(calls).await?;
        let heads = streams.iter().zip(heads);
        let heads = heads.map(|(stream, (epoch, last, first, cursor, unread))| Head {
            epoch: Epoch::new(epoch),
            last,
            first,
            cursor,
            // Only users read.
            unread: stream.owner().map_or(0, |_| unread),
        });
        Ok(heads.collect())
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: u64,
        up_to: u64,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut call = READ.call(&self.slot(stream));
        call.arg(after.saturating_add(1)).arg(up_to).arg(max_bytes);
        let found: Vec<(String, Bytes)> = self.ask(call).await?;
        let entries = found.into_iter().filter_map(|(id, body)| {
            let seq = id.strip_suffix("-0")?.parse().ok()?;
            Some(Entry { seq, body })
        });
        Ok(entries.collect())
    }

    async fn move_cursors(&self, cursors: &[(StreamName, Position)]) -> Result<(), StoreError> {
        let calls = cursors.iter().map(|(stream, position)| {
            let mut call = MOVE_CURSOR.call(&self.slot(stream));
            call.arg(position.epoch.number()).arg(position.seq);
            call
        });
        let _: Vec<u64> = self.ask_each(calls).await?;
        Ok(())
    }
}

impl Store for Redis {
    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Answer<'_, Vec<Kept>> {
        Box::pin(async move { self.append(&events, now).await })
    }

    fn heads(&self, streams: Vec<StreamName>) -> Answer<'_, Vec<Head>> {
        Box::pin(async move { self.heads(&streams).await })
    }

    fn read(
        &self,
        stream: StreamName,
        after: u64,
        up_to: u64,
        max_bytes: usize,
    ) -> Answer<'_, Vec<Entry>> {
        Box::pin(async move { self.read(&stream, after, up_to, max_bytes).await })
    }

    fn move_cursors(&self, cursors: Vec<(StreamName, Position)>) -> Answer<'_, ()> {
        Box::pin(async move { self.move_cursors(&cursors).await })
    }

    fn inbox(&self, user_id: String, query: InboxQuery) -> Answer<'_, Page<InboxEntry, u64>> {
        Box::pin(async move { self.inbox(&user_id, &query).await })
    }

    fn mark(&self, user_id: String, marked: Marked, mark: Mark) -> Answer<'_, Unread> {
        Box::pin(async move { self.mark(&user_id, &marked, mark).await })
    }

    fn put_tasks(&self, tasks: Vec<TaskRecord>, now: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move { self.put_tasks(&tasks, now).await })
    }

    fn task(&self, user_id: String, task_id: String) -> Answer<'_, Option<TaskRecord>> {
        Box::pin(async move { self.task(user_id, task_id).await })
    }

    fn tasks(&self, user_id: String, query: TaskQuery) -> Answer<'_, Page<TaskRecord, TaskPlace>> {
        Box::pin(async move { self.tasks(&user_id, &query).await })
    }

    fn group(&self, owner: String, group_id: String) -> Answer<'_, Option<GroupRecord>> {
        Box::pin(async move { self.group(&owner, &group_id).await })
    }

    fn document(&self, name: String) -> Answer<'_, Option<Document>> {
        Box::pin(async move { self.document(&name).await })
    }

    fn put_document(&self, name: String, expected: u64, body: Bytes) -> Answer<'_, bool> {
        Box::pin(async move { self.put_document(&name, expected, &body).await })
    }

    fn log_attempts(&self, attempts: Vec<AttemptRecord>, _now: Timestamp) -> Answer<'_, ()> {
        Box::pin(async move { self.log_attempts(&attempts).await })
    }

    fn attempts(&self, event_id: Uuid) -> Answer<'_, Vec<Bytes>> {
        Box::pin(async move { self.attempts(event_id).await })
    }

    fn sweep(&self, now: Timestamp) -> Answer<'_, Swept> {
        Box::pin(async move { self.sweep(now).await })
    }
}

#[cfg(test)]
mod tests;
