//! The task board.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::number;
use crate::store::page::Filling;
use crate::store::{Page, TaskPlace, TaskQuery, TaskRecord};

/// Keeps a state, if it is newer than what is there.
pub(super) fn put(connection: &Connection, task: &TaskRecord, now: i64) -> rusqlite::Result<()> {
    let insert = "INSERT INTO task (user_id, task_id, rev, is_final, stored_at, state) \
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (user_id, task_id) DO UPDATE \
                  SET rev = excluded.rev, is_final = excluded.is_final, \
                      stored_at = excluded.stored_at, state = excluded.state \
                  WHERE excluded.rev > task.rev AND excluded.is_final >= task.is_final";
    let row = params![
        task.user_id,
        task.task_id,
        number(task.rev),
        task.is_final,
        now,
        &task.state[..]
    ];
    connection.prepare_cached(insert)?.execute(row)?;
    Ok(())
}

/// A task of a user.
pub(super) fn one(
    connection: &Connection,
    user_id: &str,
    task_id: &str,
) -> rusqlite::Result<Option<TaskRecord>> {
    let select = "SELECT user_id, task_id, rev, is_final, state FROM task \
                  WHERE user_id = ?1 AND task_id = ?2";
    let mut statement = connection.prepare_cached(select)?;
    let found = statement.query_row(params![user_id, task_id], record);
    found.optional()
}

/// Tasks of a user, those that changed last first.
pub(super) fn list(
    connection: &Connection,
    user_id: &str,
    query: &TaskQuery,
) -> rusqlite::Result<Page<TaskRecord, TaskPlace>> {
    let select = "SELECT user_id, task_id, rev, is_final, state, stored_at FROM task \
                  WHERE user_id = ?1 AND (stored_at, task_id) < (?2, ?3) \
                  AND is_final BETWEEN ?4 AND ?5 \
                  ORDER BY stored_at DESC, task_id DESC LIMIT ?6";
    let mut statement = connection.prepare_cached(select)?;
    let before = query.before.as_ref();
    let (time, id) = before.map_or((i64::MAX, ""), |before| {
        (before.stored_at, &*before.task_id)
    });
    let (least, most) = match query.ended {
        None => (false, true),
        Some(ended) => (ended, ended),
    };
    // One more, to know whether there are more.
    let limit = i64::from(query.limit) + 1;
    let mut rows = statement.query(params![user_id, time, id, least, most, limit])?;
    let mut filling = Filling::new(query.limit, query.max_bytes);
    while let Some(row) = rows.next()? {
        let task = record(row)?;
        let place = TaskPlace {
            stored_at: row.get(5)?,
            task_id: task.task_id.clone(),
        };
        let bytes = task.state.len();
        if !filling.add(place, task, bytes) {
            break;
        }
    }
    Ok(filling.page())
}

fn record(row: &Row<'_>) -> rusqlite::Result<TaskRecord> {
    Ok(TaskRecord {
        user_id: row.get(0)?,
        task_id: row.get(1)?,
        rev: row.get::<_, i64>(2)?.cast_unsigned(),
        is_final: row.get(3)?,
        state: row.get::<_, Vec<u8>>(4)?.into(),
    })
}
