//! Small pieces of state, and the log of deliveries.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::number;
use crate::store::{ATTEMPTS_MAX, AttemptRecord, Document};

/// What is kept under a name.
pub(super) fn get(connection: &Connection, name: &str) -> rusqlite::Result<Option<Document>> {
    let select = "SELECT version, body FROM document WHERE name = ?1";
    let mut statement = connection.prepare_cached(select)?;
    let found = statement.query_row([name], |row| {
        Ok(Document {
            version: row.get::<_, i64>(0)?.cast_unsigned(),
            body: row.get::<_, Vec<u8>>(1)?.into(),
        })
    });
    found.optional()
}

/// Puts something under a name if the version is as expected; whether it did.
pub(super) fn put(
    connection: &Connection,
    name: &str,
    expected: u64,
    body: &[u8],
) -> rusqlite::Result<bool> {
    let change = match expected {
        0 => {
            "INSERT INTO document (name, version, body) VALUES (?1, ?2 + 1, ?3) ON CONFLICT DO NOTHING"
        }
        _ => {
            "UPDATE document SET version = version + 1, body = ?3 WHERE name = ?1 AND version = ?2"
        }
    };
    let mut statement = connection.prepare_cached(change)?;
    Ok(statement.execute(params![name, number(expected), body])? == 1)
}

/// Adds to the log, unless it is there.
pub(super) fn log(
    connection: &mut Connection,
    attempts: &[AttemptRecord],
    now: i64,
) -> rusqlite::Result<()> {
    let change = connection.transaction()?;
    for attempt in attempts {
        // It says when, so one that is there came before: its answer was lost.
        let insert = "INSERT INTO attempt (event_id, stored_at, body) SELECT ?1, ?2, ?3 \
                      WHERE NOT EXISTS (SELECT 1 FROM attempt WHERE event_id = ?1 AND body = ?3)";
        let mut statement = change.prepare_cached(insert)?;
        statement.execute(params![attempt.event_id.as_bytes(), now, &attempt.body[..]])?;
    }
    change.commit()
}

/// The last tries to deliver an event, in their order.
pub(super) fn attempts(connection: &Connection, event_id: Uuid) -> rusqlite::Result<Vec<Bytes>> {
    let select = "SELECT body FROM attempt WHERE event_id = ?1 ORDER BY id DESC LIMIT ?2";
    let mut statement = connection.prepare_cached(select)?;
    let rows = statement.query_map(params![event_id.as_bytes(), ATTEMPTS_MAX], |row| {
        row.get::<_, Vec<u8>>(0)
    })?;
    let mut found: Vec<_> = rows
        .map(|body| body.map(Bytes::from))
        .collect::<Result<_, _>>()?;
    found.reverse();
    Ok(found)
}
