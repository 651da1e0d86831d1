//! What is kept: streams of events with their numbers, what users have read, where each task stands,
//! and how far groups of jobs are. One interface, and for each kind of store one implementation that passes the same tests.

mod group;
mod page;
mod stream;

#[cfg(test)]
mod conformance;
mod redis;
mod sqlite;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use thiserror::Error;
use uuid::Uuid;

pub use self::group::{
    GroupCount, GroupJob, GroupPart, GroupRecord, JobEnd, MAX_RESULT_BYTES, MAX_RESULTS_BYTES,
};
pub use self::page::{PAGE_BYTES, Page};
pub use self::redis::{Connected, Connections, Redis};
pub use self::sqlite::{Sqlite, backup, check, vacuum};
pub use self::stream::{Epoch, EpochError, Head, Position, StreamName, StreamNameError};

/// An event to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Where.
    pub stream: StreamName,
    /// Its id: the same one again is the same event.
    pub id: Uuid,
    /// The event as it was published.
    pub body: Bytes,
    /// The state of a task that it tells, kept in the same step.
    pub task: Option<TaskRecord>,
    /// The end of a job of a group that it tells, counted in the same step.
    pub group: Option<GroupPart>,
}

/// What became of an event to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Where it stands.
    pub position: Position,
    /// It was not there before.
    pub is_new: bool,
    /// Of a user's stream: how many are not read now.
    pub unread: Option<u64>,
    /// Of the end of a job of a group: how far the group is after the whole batch.
    pub group: Option<GroupCount>,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub seq: u64,
    /// The event as it was published.
    pub body: Bytes,
}

/// An event in a user's inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// Its number.
    pub seq: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Whether the user has read it.
    pub is_read: bool,
    /// Whether the user has put it away.
    pub is_archived: bool,
    /// The event as it was published.
    pub body: Bytes,
}

/// Which part of an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxQuery {
    /// Only what is older than this number.
    pub before: Option<u64>,
    /// Only what is not read.
    pub unread_only: bool,
    /// What is put away, instead of what is not.
    pub archived: bool,
    /// How many at most.
    pub limit: u32,
    /// How many bytes of bodies at most; one event in any case.
    pub max_bytes: usize,
}

/// What a user says of events in his inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Read.
    Read,
    /// Put away, and so read.
    Archived,
}

/// Which events are marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Marked {
    /// Those up to this number.
    UpTo(u64),
    /// Those with these ids; others are passed over.
    Ids(Vec<Uuid>),
}

/// How many events of a user's inbox are not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread {
    /// How many.
    pub count: u64,
    /// The newest event that there was; `None` if there never was one.
    pub counted_at: Option<Position>,
}

/// How many tries to deliver one event are kept.
pub const ATTEMPTS_MAX: u32 = 200;

/// Where a task stands, for the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskRecord {
    /// Whose it is.
    pub user_id: String,
    /// The task.
    pub task_id: String,
    /// Grows with each state of the task; an older one never replaces a newer one. Of two tasks it says
    /// nothing: all that wait have the same.
    pub rev: u64,
    /// It has ended.
    pub is_final: bool,
    /// The state, as the `data` of its event.
    pub state: Bytes,
}

/// Where a task is among a user's: those whose state was kept last come first, and of one moment those
/// whose id is greater.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskPlace {
    /// When its state was kept, in milliseconds since 1970.
    pub stored_at: i64,
    /// The task. Ids are compared byte by byte.
    pub task_id: String,
}

/// Which tasks of a user, those that changed last first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskQuery {
    /// Only those that have ended, or only those that have not.
    pub ended: Option<bool>,
    /// Only those that come after this place.
    pub before: Option<TaskPlace>,
    /// How many at most.
    pub limit: u32,
    /// How many bytes of states at most; one task in any case.
    pub max_bytes: usize,
}

/// A small piece of state under a name: a user's preferences, the open alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Grows by one with each change, from 1.
    pub version: u64,
    /// What it holds.
    pub body: Bytes,
}

/// One try to reach somebody, for the log of deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// What was to be delivered: the id of the event.
    pub event_id: Uuid,
    /// The try and its outcome, as JSON.
    pub body: Bytes,
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Events of a stream.
    pub events: u64,
    /// Events, tasks and groups.
    pub age: Duration,
}

/// What a sweep removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Events.
    pub events: u64,
    /// Tasks.
    pub tasks: u64,
    /// Groups of jobs.
    pub groups: u64,
    /// Tries to reach somebody.
    pub attempts: u64,
    /// There is more to remove.
    pub more: bool,
}

/// Why a store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("the store at {} cannot be opened", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file cannot be made.
    #[error("the store at {} cannot be made (store.path says where it is)", path.display())]
    Create {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is damaged, or no database at all.
    #[error(
        "the store at {} is damaged or no SQLite file ({what}); move it away and put a backup in its place \
         (`notifier store backup` makes them), or start without: clients are then told that events were lost",
        path.display()
    )]
    Corrupt {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The file belongs to another program.
    #[error("the file at {} is the database of another program; name another in store.path", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
    },
    /// The file was written by a later version.
    #[error(
        "the store at {} was written by a newer notifier (format {found}, this one knows {known}): \
         run that one, or use a backup from before the upgrade", path.display()
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The newest that is known here.
        known: i64,
    },
    /// The file was written by an earlier version, or is empty.
    #[error(
        "the store at {} is empty or was written by an older notifier: a notifier that starts with it brings it \
         up to date", path.display()
    )]
    Older {
        /// Where.
        path: PathBuf,
    },
    /// It does not do what it is asked.
    #[error("the store cannot do it")]
    Sqlite(#[from] rusqlite::Error),
    /// The address of the server is none.
    #[error("the URL of the store cannot be read")]
    Url(#[source] ::redis::RedisError),
    /// The server is there, and cannot be the store.
    #[error("the Redis server cannot be the store: {0}")]
    Unfit(String),
    /// The server does not do what it is asked, or is not there.
    #[error("the store cannot do it")]
    Redis(#[from] ::redis::RedisError),
    /// It does not answer.
    #[error("the store does not answer within {0:?}")]
    Timeout(Duration),
    /// Others change the same document all the time.
    #[error("the document {0:?} changes too often")]
    Contended(String),
    /// It was closed.
    #[error("the store is closed")]
    Closed,
}

/// An answer of a store.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place where events, read marks and tasks are kept.
pub trait Store: fmt::Debug + Send + Sync {
    /// Keeps events in their order, all or (with an error) perhaps some. Those that are there
    /// already keep their numbers.
    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Answer<'_, Vec<Kept>>;

    /// Where streams stand, in the order of the question.
    fn heads(&self, streams: Vec<StreamName>) -> Answer<'_, Vec<Head>>;

    /// The events above `after`, up to and with `up_to`, as far as they are kept; of those as many as
    /// have `max_bytes` together, but one in any case.
    fn read(
        &self,
        stream: StreamName,
        after: u64,
        up_to: u64,
        max_bytes: usize,
    ) -> Answer<'_, Vec<Entry>>;

    /// Notes that of these users' streams everything up to a position has arrived. A cursor never
    /// goes back.
    fn move_cursors(&self, cursors: Vec<(StreamName, Position)>) -> Answer<'_, ()>;

    /// A part of a user's inbox, the newest first.
    fn inbox(&self, user_id: String, query: InboxQuery) -> Answer<'_, Page<InboxEntry, u64>>;

    /// Marks events of a user's inbox; how many are not read then.
    fn mark(&self, user_id: String, marked: Marked, mark: Mark) -> Answer<'_, Unread>;

    /// Keeps the states of tasks that are newer than what is there.
    fn put_tasks(&self, tasks: Vec<TaskRecord>, now: Timestamp) -> Answer<'_, ()>;

    /// A task of a user.
    fn task(&self, user_id: String, task_id: String) -> Answer<'_, Option<TaskRecord>>;

    /// Tasks of a user.
    fn tasks(&self, user_id: String, query: TaskQuery) -> Answer<'_, Page<TaskRecord, TaskPlace>>;

    /// Where streams stand, and tasks of a user: what each connection begins with. In one step where
    /// that is cheaper.
    fn open(
        &self,
        streams: Vec<StreamName>,
        user_id: String,
        query: TaskQuery,
    ) -> Answer<'_, (Vec<Head>, Page<TaskRecord, TaskPlace>)> {
        Box::pin(async move {
            let heads = self.heads(streams).await?;
            Ok((heads, self.tasks(user_id, query).await?))
        })
    }

    /// A group of jobs, as far as its jobs have ended.
    fn group(&self, owner: String, group_id: String) -> Answer<'_, Option<GroupRecord>>;

    /// What is kept under a name.
    fn document(&self, name: String) -> Answer<'_, Option<Document>>;

    /// Puts something under a name, if what is there has this version (0: nothing is there); whether
    /// it was put. A document stays until it is changed: retention is for events.
    fn put_document(&self, name: String, expected: u64, body: Bytes) -> Answer<'_, bool>;

    /// Adds to the log of deliveries. A try says when it was: the same again is not added.
    fn log_attempts(&self, attempts: Vec<AttemptRecord>, now: Timestamp) -> Answer<'_, ()>;

    /// The tries to deliver an event, the last [`ATTEMPTS_MAX`] of them, in their order.
    fn attempts(&self, event_id: Uuid) -> Answer<'_, Vec<Bytes>>;

    /// Removes some of what is older than the retention allows.
    fn sweep(&self, now: Timestamp) -> Answer<'_, Swept>;
}

/// A store that several share.
pub type SharedStore = Arc<dyn Store>;
