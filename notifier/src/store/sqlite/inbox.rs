//! What users have read.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::number;
use crate::store::{InboxEntry, InboxQuery, Mark, Marked, StreamName};

const READ: i64 = 1;
const ARCHIVED: i64 = 2;

/// A part of a user's inbox.
pub(super) fn page(
    connection: &Connection,
    user_id: &str,
    query: &InboxQuery,
) -> rusqlite::Result<Vec<InboxEntry>> {
    let (least, most) = match (query.archived, query.unread_only) {
        (true, _) => (ARCHIVED, ARCHIVED),
        (false, true) => (0, 0),
        (false, false) => (0, READ),
    };
    let select = "SELECT seq, stored_at, state, body FROM event \
                  WHERE stream = (SELECT id FROM stream WHERE name = ?1) AND seq < ?2 \
                  AND state BETWEEN ?3 AND ?4 ORDER BY seq DESC LIMIT ?5";
    let mut statement = connection.prepare_cached(select)?;
    let before = query.before.map_or(i64::MAX, number);
    let name = StreamName::user(user_id);
    let rows = statement.query_map(
        params![name.as_str(), before, least, most, query.limit],
        entry,
    )?;
    rows.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<InboxEntry> {
    let state: i64 = row.get(2)?;
    Ok(InboxEntry {
        seq: row.get::<_, i64>(0)?.cast_unsigned(),
        stored_at: Timestamp::from_millisecond(row.get(1)?).unwrap_or_default(),
        is_read: state >= READ,
        is_archived: state == ARCHIVED,
        body: row.get::<_, Vec<u8>>(3)?.into(),
    })
}

/// Marks events; how many are not read then.
pub(super) fn mark(
    connection: &mut Connection,
    user_id: &str,
    marked: &Marked,
    mark: Mark,
) -> rusqlite::Result<u64> {
    let change = connection.transaction()?;
    let name = StreamName::user(user_id);
    let query = "SELECT id, last, unread FROM stream WHERE name = ?1";
    let found = change
        .query_row(query, [name.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((stream, last, unread)): Option<(i64, i64, i64)> = found else {
        return Ok(0);
    };
    let state = match mark {
        Mark::Read => READ,
        Mark::Archived => ARCHIVED,
    };
    let read = match marked {
        Marked::UpTo(seq) => mark_up_to(&change, stream, number(*seq).min(last), state)?,
        Marked::Ids(ids) => {
            let mut read = 0;
            for id in ids {
                read += mark_one(&change, stream, id.as_bytes(), state)?;
            }
            read
        }
    };
    let unread = i64::max(0, unread - read);
    let update = "UPDATE stream SET unread = ?2 WHERE id = ?1";
    change.execute(update, params![stream, unread])?;
    change.commit()?;
    Ok(unread.cast_unsigned())
}

/// How many were not read before.
fn mark_up_to(
    change: &Transaction<'_>,
    stream: i64,
    up_to: i64,
    state: i64,
) -> rusqlite::Result<i64> {
    // What is below was read before; archiving goes further back.
    let query = "SELECT read_up_to FROM stream WHERE id = ?1";
    let read_up_to: i64 = change.query_row(query, [stream], |row| row.get(0))?;
    let after = if state == READ { read_up_to } else { 0 };
    let count = "SELECT count(*) FROM event WHERE stream = ?1 AND seq > ?2 AND seq <= ?3 \
                 AND state = 0";
    let read = change.query_row(count, params![stream, after, up_to], |row| row.get(0))?;
    let update = "UPDATE event SET state = ?4 WHERE stream = ?1 AND seq > ?2 AND seq <= ?3 \
                  AND state < ?4";
    change.execute(update, params![stream, after, up_to, state])?;
    let update = "UPDATE stream SET read_up_to = max(read_up_to, ?2) WHERE id = ?1";
    change.execute(update, params![stream, up_to])?;
    Ok(read)
}

/// 1 if it was not read before.
fn mark_one(
    change: &Transaction<'_>,
    stream: i64,
    event_id: &[u8],
    state: i64,
) -> rusqlite::Result<i64> {
    let query = "SELECT state FROM event WHERE stream = ?1 AND event_id = ?2";
    let mut statement = change.prepare_cached(query)?;
    let before: Option<i64> = statement
        .query_row(params![stream, event_id], |row| row.get(0))
        .optional()?;
    let Some(before) = before.filter(|before| *before < state) else {
        return Ok(0);
    };
    let update = "UPDATE event SET state = ?3 WHERE stream = ?1 AND event_id = ?2";
    change
        .prepare_cached(update)?
        .execute(params![stream, event_id, state])?;
    Ok(i64::from(before == 0))
}
