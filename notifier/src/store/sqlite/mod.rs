//! The embedded store: one file, for one notifier.

mod append;
mod documents;
mod groups;
mod inbox;
mod lane;
mod names;
mod rows;
mod schema;
mod tasks;
mod upkeep;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use self::lane::Lane;
use self::names::Names;
use self::rows::Index;
pub use self::upkeep::{backup, check, vacuum};
use super::{
    Answer, AttemptRecord, Document, Entry, Epoch, GroupRecord, Head, InboxEntry, InboxQuery, Kept,
    Mark, Marked, NewEvent, Page, Position, Retention, Store, StoreError, StreamName, Swept,
    TaskPlace, TaskQuery, TaskRecord, Unread,
};

/// Events, read marks and tasks in an SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    retention: Retention,
    epoch: Epoch,
    names: Names,
    // Closed first: the last to close empties the log into the file, and one that only reads cannot.
    reads: Lane,
    writes: Lane,
}

impl Sqlite {
    /// Opens a file, or makes it.
    ///
    /// # Errors
    /// [`StoreError`] that says what is wrong with the file.
    pub fn open(path: &Path, retention: Retention) -> Result<Self, StoreError> {
        let to_write = schema::open(path)?;
        let to_read = schema::open_to_read(path)?;
        let look = || Ok((epoch_of(&to_write)?, names_in(&to_write)?));
        let (epoch, names) = look().map_err(|error| schema::damage(path, error))?;
        let start = |name, connection| {
            let started = Lane::start(name, connection);
            started.map_err(|source| StoreError::Create {
                path: PathBuf::from(path),
                source,
            })
        };
        Ok(Self {
            retention,
            epoch,
            names,
            writes: start("store-writes", to_write)?,
            reads: start("store-reads", to_read)?,
        })
    }
}

fn epoch_of(connection: &Connection) -> rusqlite::Result<Epoch> {
    let query = "SELECT value FROM meta WHERE name = 'epoch'";
    let number: i64 = connection.query_row(query, [], |row| row.get(0))?;
    Ok(Epoch::new(number.cast_unsigned()))
}

/// Who has a stream or a task.
fn names_in(connection: &Connection) -> rusqlite::Result<Names> {
    let names = Names::new();
    let query = "SELECT name FROM stream UNION ALL SELECT DISTINCT 'user:' || user_id FROM task";
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        names.add(row.get_ref(0)?.as_str()?);
    }
    Ok(names)
}

impl Store for Sqlite {
    fn append(&self, events: Vec<NewEvent>, now: Timestamp) -> Answer<'_, Vec<Kept>> {
        for event in &events {
            self.names.add(event.stream.as_str());
            if let Some(task) = &event.task {
                self.names.add(StreamName::user(&task.user_id).as_str());
            }
        }
        let (epoch, limit) = (self.epoch, self.retention.events);
        let work = move |connection: &mut Connection| {
            append::append(connection, &events, epoch, limit, now)
        };
        Box::pin(self.writes.run(work))
    }

    fn heads(&self, streams: Vec<StreamName>) -> Answer<'_, Vec<Head>> {
        let epoch = self.epoch;
        let work = move |connection: &mut Connection| {
            let heads = streams.iter().map(|name| head(connection, name, epoch));
            heads.collect()
        };
        Box::pin(self.reads.run(work))
    }

    fn read(
        &self,
        stream: StreamName,
        after: u64,
        up_to: u64,
        max_bytes: usize,
    ) -> Answer<'_, Vec<Entry>> {
        let work =
            move |connection: &mut Connection| read(connection, &stream, after, up_to, max_bytes);
        Box::pin(self.reads.run(work))
    }

    fn move_cursors(&self, cursors: Vec<(StreamName, Position)>) -> Answer<'_, ()> {
        let epoch = self.epoch;
        let work = move |connection: &mut Connection| {
            let change = connection.transaction()?;
            for (stream, position) in cursors.iter().filter(|(_, at)| at.epoch == epoch) {
                let query = "UPDATE stream SET cursor = min(?2, last) \
                             WHERE name = ?1 AND cursor < ?2";
                let mut statement = change.prepare_cached(query)?;
                statement.execute(params![stream.as_str(), number(position.seq)])?;
            }
            change.commit()
        };
        Box::pin(self.writes.run(work))
    }

    fn inbox(&self, user_id: String, query: InboxQuery) -> Answer<'_, Page<InboxEntry, u64>> {
        let work = move |connection: &mut Connection| inbox::page(connection, &user_id, &query);
        Box::pin(self.reads.run(work))
    }

    fn mark(&self, user_id: String, marked: Marked, mark: Mark) -> Answer<'_, Unread> {
        let epoch = self.epoch;
        let work = move |connection: &mut Connection| {
            inbox::mark(connection, &user_id, &marked, mark, epoch)
        };
        Box::pin(self.writes.run(work))
    }

    fn put_tasks(&self, tasks: Vec<TaskRecord>, now: Timestamp) -> Answer<'_, ()> {
        for task in &tasks {
            self.names.add(StreamName::user(&task.user_id).as_str());
        }
        let work = move |connection: &mut Connection| {
            let change = connection.transaction()?;
            for task in &tasks {
                tasks::put(&change, task, now.as_millisecond())?;
            }
            change.commit()
        };
        Box::pin(self.writes.run(work))
    }

    fn task(&self, user_id: String, task_id: String) -> Answer<'_, Option<TaskRecord>> {
        let work = move |connection: &mut Connection| tasks::one(connection, &user_id, &task_id);
        Box::pin(self.reads.run(work))
    }

    fn tasks(&self, user_id: String, query: TaskQuery) -> Answer<'_, Page<TaskRecord, TaskPlace>> {
        let work = move |connection: &mut Connection| tasks::list(connection, &user_id, &query);
        Box::pin(self.reads.run(work))
    }

    fn open(
        &self,
        streams: Vec<StreamName>,
        user_id: String,
        query: TaskQuery,
    ) -> Answer<'_, (Vec<Head>, Page<TaskRecord, TaskPlace>)> {
        let epoch = self.epoch;
        let has = |name: &StreamName| self.names.may_have(name.as_str());
        if !streams.iter().any(has) && !has(&StreamName::user(&user_id)) {
            let heads = vec![Head::empty(epoch); streams.len()];
            return Box::pin(async move { Ok((heads, Page::empty())) });
        }
        let work = move |connection: &mut Connection| {
            let look = connection.transaction()?;
            let heads = streams.iter().map(|name| head(&look, name, epoch));
            let heads = heads.collect::<rusqlite::Result<_>>()?;
            Ok((heads, tasks::list(&look, &user_id, &query)?))
        };
        Box::pin(self.reads.run(work))
    }

    fn group(&self, owner: String, group_id: String) -> Answer<'_, Option<GroupRecord>> {
        let work = move |connection: &mut Connection| groups::get(connection, &owner, &group_id);
        Box::pin(self.reads.run(work))
    }

    fn document(&self, name: String) -> Answer<'_, Option<Document>> {
        let work = move |connection: &mut Connection| documents::get(connection, &name);
        Box::pin(self.reads.run(work))
    }

    fn put_document(&self, name: String, expected: u64, body: Bytes) -> Answer<'_, bool> {
        let work =
            move |connection: &mut Connection| documents::put(connection, &name, expected, &body);
        Box::pin(self.writes.run(work))
    }

    fn log_attempts(&self, attempts: Vec<AttemptRecord>, now: Timestamp) -> Answer<'_, ()> {
        let work = move |connection: &mut Connection| {
            documents::log(connection, &attempts, now.as_millisecond())
        };
        Box::pin(self.writes.run(work))
    }

    fn attempts(&self, event_id: Uuid) -> Answer<'_, Vec<Bytes>> {
        let work = move |connection: &mut Connection| documents::attempts(connection, event_id);
        Box::pin(self.reads.run(work))
    }

    fn sweep(&self, now: Timestamp) -> Answer<'_, Swept> {
        let age = jiff::SignedDuration::try_from(self.retention.age).unwrap_or_default();
        let oldest = now
            .saturating_sub(age)
            .map_or(i64::MIN, Timestamp::as_millisecond);
        let work = move |connection: &mut Connection| upkeep::sweep(connection, oldest);
        Box::pin(self.writes.run(work))
    }
}

/// SQLite's numbers have a sign.
fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn head(connection: &Connection, name: &StreamName, epoch: Epoch) -> rusqlite::Result<Head> {
    let query = "SELECT last, first, cursor, unread FROM stream WHERE name = ?1";
    let mut statement = connection.prepare_cached(query)?;
    let found = statement.query_row([name.as_str()], |row| {
        let number = |index| row.get::<_, i64>(index).map(i64::cast_unsigned);
        Ok(Head {
            epoch,
            last: number(0)?,
            first: number(1)?,
            cursor: number(2)?,
            unread: number(3)?,
        })
    });
    Ok(found.optional()?.unwrap_or(Head::empty(epoch)))
}

fn read(
    connection: &mut Connection,
    stream: &StreamName,
    after: u64,
    up_to: u64,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let look = connection.transaction()?;
    let Some(index) = Index::find(&look, stream)? else {
        return Ok(Vec::new());
    };
    let mut statement = look.prepare_cached("SELECT seq, body FROM event WHERE id = ?1")?;
    let (mut entries, mut bytes) = (Vec::new(), 0_usize);
    for rows in index.blocks(&look, after.saturating_add(1)..=up_to) {
        for row in rows? {
            let found = statement.query_row([row], |row| {
                Ok(Entry {
                    seq: row.get::<_, i64>(0)?.cast_unsigned(),
                    body: row.get::<_, Vec<u8>>(1)?.into(),
                })
            });
            if let Some(entry) = found.optional()? {
                bytes = bytes.saturating_add(entry.body.len());
                if bytes > max_bytes && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
