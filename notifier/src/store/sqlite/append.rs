//! Keeping events.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::groups::Counting;
use super::rows::Index;
use super::{number, tasks};
use crate::store::{Epoch, Kept, NewEvent, Position, StreamName};

/// A stream while a batch is added to it.
struct Growing {
    index: Index,
    unread: u64,
}

/// Keeps a batch, all of it or nothing.
pub(super) fn append(
    connection: &mut Connection,
    events: &[NewEvent],
    epoch: Epoch,
    limit: u64,
    now: Timestamp,
) -> rusqlite::Result<Vec<Kept>> {
    let stored_at = now.as_millisecond();
    let batch = connection.transaction()?;
    let (mut streams, mut groups) = (HashMap::new(), Counting::default());
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let name = &event.stream;
        if !streams.contains_key(name) {
            streams.insert(name, Growing::load(&batch, name)?);
        }
        let Some(stream) = streams.get_mut(name) else {
            continue;
        };
        let is_users = name.owner().is_some();
        let (seq, is_new) = stream.add(&batch, event, is_users, stored_at)?;
        stream.trim(&batch, limit)?;
        kept.push(Kept {
            position: Position { epoch, seq },
            is_new,
            unread: is_users.then_some(stream.unread),
            group: None,
        });
        if let Some(task) = &event.task {
            tasks::put(&batch, task, stored_at)?;
        }
        if let Some(part) = &event.group {
            groups.add(&batch, part, now)?;
        }
    }
    groups.save(&batch, now)?;
    for (kept, event) in kept.iter_mut().zip(events) {
        kept.group = event.group.as_ref().and_then(|part| groups.of(part));
    }
    for stream in streams.values() {
        stream.save(&batch)?;
    }
    batch.commit()?;
    Ok(kept)
}

impl Growing {
    fn load(batch: &Transaction<'_>, name: &StreamName) -> rusqlite::Result<Self> {
        let new = "INSERT INTO stream (name) VALUES (?1) ON CONFLICT DO NOTHING";
        batch.prepare_cached(new)?.execute([name.as_str()])?;
        let query = "SELECT id, last, first, tail, unread FROM stream WHERE name = ?1";
        let mut statement = batch.prepare_cached(query)?;
        statement.query_row([name.as_str()], |row| {
            Ok(Self {
                index: Index::of(row)?,
                unread: row.get::<_, i64>(4)?.cast_unsigned(),
            })
        })
    }

    /// Adds an event, if it is not there; its number, and whether it is new.
    fn add(
        &mut self,
        batch: &Transaction<'_>,
        event: &NewEvent,
        is_users: bool,
        now: i64,
    ) -> rusqlite::Result<(u64, bool)> {
        let insert = "INSERT INTO event (stream, seq, event_id, stored_at, state, body) \
                      VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (stream, event_id) DO NOTHING";
        let (id, seq) = (event.id.as_bytes(), self.index.last + 1);
        // Only a user reads.
        let state = i64::from(!is_users);
        let row = params![self.index.id, number(seq), id, now, state, &event.body[..]];
        if batch.prepare_cached(insert)?.execute(row)? == 0 {
            let query = "SELECT seq FROM event WHERE stream = ?1 AND event_id = ?2";
            let mut statement = batch.prepare_cached(query)?;
            let seq: i64 = statement.query_row(params![self.index.id, id], |row| row.get(0))?;
            return Ok((seq.cast_unsigned(), false));
        }
        self.index.push(batch, batch.last_insert_rowid())?;
        self.unread += u64::from(is_users);
        Ok((seq, true))
    }

    /// Removes the oldest beyond the limit.
    fn trim(&mut self, batch: &Transaction<'_>, limit: u64) -> rusqlite::Result<()> {
        let delete = "DELETE FROM event WHERE id = ?1 RETURNING state";
        while self.index.last + 1 - self.index.first > limit.max(1) {
            let Some(oldest) = self.index.pop(batch)? else {
                continue;
            };
            let mut statement = batch.prepare_cached(delete)?;
            let state = statement.query_row([oldest], |row| row.get::<_, i64>(0));
            if state.optional()? == Some(0) {
                self.unread = self.unread.saturating_sub(1);
            }
        }
        Ok(())
    }

    fn save(&self, batch: &Transaction<'_>) -> rusqlite::Result<()> {
        let update =
            "UPDATE stream SET last = ?2, first = ?3, tail = ?4, unread = ?5 WHERE id = ?1";
        let row = params![
            self.index.id,
            number(self.index.last),
            number(self.index.first),
            self.index.tail,
            number(self.unread)
        ];
        batch.prepare_cached(update)?.execute(row)?;
        Ok(())
    }
}
