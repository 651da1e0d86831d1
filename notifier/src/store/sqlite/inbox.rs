//! What users have read.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction, params};

use super::number;
use super::rows::Index;
use crate::store::page::Filling;
use crate::store::{
    Epoch, InboxEntry, InboxQuery, Mark, Marked, Page, Position, StreamName, Unread,
};

const READ: i64 = 1;
const ARCHIVED: i64 = 2;

/// A part of a user's inbox.
pub(super) fn page(
    connection: &mut Connection,
    user_id: &str,
    query: &InboxQuery,
) -> rusqlite::Result<Page<InboxEntry, u64>> {
    let mut filling = Filling::new(query.limit, query.max_bytes);
    let states = match (query.archived, query.unread_only) {
        (true, _) => ARCHIVED..=ARCHIVED,
        (false, true) => 0..=0,
        (false, false) => 0..=READ,
    };
    let look = connection.transaction()?;
    let Some(index) = Index::find(&look, &StreamName::user(user_id))? else {
        return Ok(filling.page());
    };
    let select = "SELECT seq, stored_at, state, body FROM event \
                  WHERE id = ?1 AND state BETWEEN ?2 AND ?3";
    let mut statement = look.prepare_cached(select)?;
    let newest = query
        .before
        .map_or(u64::MAX, |before| before.saturating_sub(1));
    for rows in index.blocks(&look, 1..=newest).rev() {
        for row in rows?.into_iter().rev() {
            let found = statement.query_row(params![row, states.start(), states.end()], entry);
            if let Some(entry) = found.optional()? {
                let (seq, bytes) = (entry.seq, entry.body.len());
                if !filling.add(seq, entry, bytes) {
                    return Ok(filling.page());
                }
            }
        }
    }
    Ok(filling.page())
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
    epoch: Epoch,
) -> rusqlite::Result<Unread> {
    let change = connection.transaction()?;
    let name = StreamName::user(user_id);
    let Some(index) = Index::find(&change, &name)? else {
        return Ok(Unread {
            count: 0,
            counted_at: None,
        });
    };
    let state = match mark {
        Mark::Read => READ,
        Mark::Archived => ARCHIVED,
    };
    let read = match marked {
        Marked::UpTo(seq) => mark_up_to(&change, &index, index.last.min(*seq), state)?,
        Marked::Ids(ids) => {
            let mut read = 0;
            for id in ids {
                read += mark_one(&change, index.id, id.as_bytes(), state)?;
            }
            read
        }
    };
    let update = "UPDATE stream SET unread = max(0, unread - ?2) WHERE id = ?1 RETURNING unread";
    let unread: i64 = change.query_row(update, params![index.id, read], |row| row.get(0))?;
    change.commit()?;
    let seq = index.last;
    Ok(Unread {
        count: unread.cast_unsigned(),
        counted_at: (seq > 0).then_some(Position { epoch, seq }),
    })
}

/// How many were not read before.
fn mark_up_to(
    change: &Transaction<'_>,
    index: &Index,
    up_to: u64,
    state: i64,
) -> rusqlite::Result<i64> {
    // What is below was read before; archiving goes further back.
    let query = "SELECT read_up_to FROM stream WHERE id = ?1";
    let read_up_to: i64 = change.query_row(query, [index.id], |row| row.get(0))?;
    let after = if state == READ {
        read_up_to.cast_unsigned()
    } else {
        0
    };
    let mut select = change.prepare_cached("SELECT state FROM event WHERE id = ?1")?;
    let mut update = change.prepare_cached("UPDATE event SET state = ?2 WHERE id = ?1")?;
    let mut read = 0;
    for rows in index.blocks(change, after + 1..=up_to) {
        for row in rows? {
            let before: Option<i64> = select.query_row([row], |row| row.get(0)).optional()?;
            if let Some(before) = before.filter(|before| *before < state) {
                update.execute(params![row, state])?;
                read += i64::from(before == 0);
            }
        }
    }
    let update = "UPDATE stream SET read_up_to = max(read_up_to, ?2) WHERE id = ?1";
    change.execute(update, params![index.id, number(up_to)])?;
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
