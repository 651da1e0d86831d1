//! Looking after the file: what is too old, whether it is sound, copies of it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::rows::Index;
use super::{groups, rows, schema};
use crate::store::{Epoch, StoreError, Swept};

/// How much one sweep removes at most, so that events need not wait long for it.
const AT_ONCE: u32 = 1000;

/// The same of ends of jobs in groups.
const JOBS_AT_ONCE: usize = 10_000;

/// Removes some of what was stored before a time, in milliseconds since 1970.
pub(super) fn sweep(connection: &mut Connection, oldest: i64) -> rusqlite::Result<Swept> {
    let change = connection.transaction()?;
    let events = sweep_events(&change, oldest)?;
    let delete = "DELETE FROM task WHERE (user_id, task_id) IN \
                  (SELECT user_id, task_id FROM task WHERE stored_at < ?1 LIMIT ?2)";
    let tasks = change.execute(delete, params![oldest, AT_ONCE])? as u64;
    let (groups, more_groups) = groups::sweep(&change, oldest, JOBS_AT_ONCE)?;
    let delete = "DELETE FROM attempt WHERE id IN \
                  (SELECT id FROM attempt ORDER BY id LIMIT ?2) AND stored_at < ?1";
    let attempts = change.execute(delete, params![oldest, AT_ONCE])? as u64;
    change.commit()?;
    let most = u64::from(AT_ONCE);
    Ok(Swept {
        events,
        tasks,
        groups,
        attempts,
        more: more_groups || events == most || tasks == most || attempts == most,
    })
}

/// The oldest events of all are at the beginning of the table, and in each stream before the others.
fn sweep_events(change: &Transaction<'_>, oldest: i64) -> rusqlite::Result<u64> {
    let select = "SELECT id, stream, seq, state, stored_at FROM event ORDER BY id LIMIT ?1";
    let mut statement = change.prepare_cached(select)?;
    let rows = statement.query_map([AT_ONCE], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, i64>(3)?,
            row.get::<_, i64>(4)?,
        ))
    })?;
    let rows: Vec<_> = rows.collect::<rusqlite::Result<_>>()?;
    let mut removed = 0;
    for (id, stream, seq, state, stored_at) in rows {
        if stored_at >= oldest {
            break;
        }
        change
            .prepare_cached("DELETE FROM event WHERE id = ?1")?
            .execute([id])?;
        rows::forget(change, stream, seq.cast_unsigned())?;
        let update = "UPDATE stream SET first = ?2 + 1, unread = unread - ?3 WHERE id = ?1";
        change
            .prepare_cached(update)?
            .execute(params![stream, seq, i64::from(state == 0)])?;
        removed += 1;
    }
    Ok(removed)
}

/// What is wrong with a file; nothing if the list is empty.
///
/// # Errors
/// [`StoreError`] if it cannot even be looked at.
pub fn check(path: &Path) -> Result<Vec<String>, StoreError> {
    let connection = schema::open_to_read(path)?;
    let damaged = |error| schema::damage(path, error);
    let mut found = Vec::new();
    let mut statement = connection
        .prepare("PRAGMA integrity_check(20)")
        .map_err(damaged)?;
    let lines = statement
        .query_map([], |row| row.get::<_, String>(0))
        .map_err(damaged)?;
    for line in lines {
        let line = line.map_err(damaged)?;
        if line != "ok" {
            found.push(line);
        }
    }
    found.extend(wrong_streams(&connection).map_err(damaged)?);
    Ok(found)
}

/// Streams whose events are not those that they say they have.
fn wrong_streams(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let query = "SELECT stream.id, last, first, tail, name, unread, coalesce(kept, 0), coalesce(new, 0) \
                 FROM stream LEFT JOIN \
                 (SELECT stream, count(*) AS kept, sum(state = 0) AS new FROM event GROUP BY stream) \
                 AS events ON events.stream = stream.id";
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    let mut wrong = Vec::new();
    while let Some(row) = rows.next()? {
        let index = Index::of(row)?;
        let name: String = row.get(4)?;
        let (unread, kept, new): (i64, i64, i64) = (row.get(5)?, row.get(6)?, row.get(7)?);
        let says = (index.last + 1).checked_sub(index.first);
        if says != Some(kept.cast_unsigned()) || says != Some(found_by_number(connection, &index)?)
        {
            wrong.push(format!("stream {name}: events are missing or too many"));
        }
        // Only users read; of all other streams every event counts as read.
        if new != unread {
            wrong.push(format!("stream {name}: {unread} unread are {new}"));
        }
    }
    Ok(wrong)
}

/// How many events of a stream are where their numbers lead to.
fn found_by_number(connection: &Connection, index: &Index) -> rusqlite::Result<u64> {
    let query = "SELECT seq FROM event WHERE id = ?1 AND stream = ?2";
    let mut statement = connection.prepare_cached(query)?;
    let (mut expected, mut found) = (index.first, 0);
    for rows in index.blocks(connection, index.first..=index.last) {
        for row in rows? {
            let seq = statement.query_row(params![row, index.id], |row| row.get::<_, i64>(0));
            found += u64::from(seq.optional()?.map(i64::cast_unsigned) == Some(expected));
            expected += 1;
        }
    }
    Ok(found)
}

/// Copies a file, also while a notifier uses it. The copy has an epoch of its own: who goes back
/// to it has lost what came after, and clients must learn that.
///
/// # Errors
/// [`StoreError`], also if there is a file already.
pub fn backup(path: &Path, copy: &Path) -> Result<(), StoreError> {
    let connection = schema::open_to_read(path)?;
    let failed = |error| schema::damage(path, error);
    let name = copy.to_string_lossy();
    connection
        .execute("VACUUM INTO ?1", [&*name])
        .map_err(failed)?;
    let made = Connection::open(copy).map_err(|error| schema::damage(copy, error))?;
    let update = "UPDATE meta SET value = ?1 WHERE name = 'epoch'";
    made.execute(update, [Epoch::fresh().number().cast_signed()])?;
    Ok(())
}

/// Gives the room of removed events back to the system. The file is locked meanwhile.
///
/// # Errors
/// [`StoreError`].
pub fn vacuum(path: &Path) -> Result<(), StoreError> {
    let connection = schema::open(path)?;
    let failed = |error| schema::damage(path, error);
    connection.execute_batch("VACUUM").map_err(failed)?;
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection
        .query_row(checkpoint, [], |_| Ok(()))
        .map_err(failed)
}
