//! The file's format, and how an older one becomes the newest.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::store::{Epoch, StoreError};

/// Marks a file as ours: "Bell".
pub(super) const APPLICATION_ID: i64 = 0x4265_6c6c;

/// Each step makes the next format of the one before. What is released is never changed.
pub(super) const STEPS: &[&str] = &[
    include_str!("format_1.sql"),
    include_str!("format_2.sql"),
    include_str!("format_3.sql"),
    include_str!("format_4.sql"),
    include_str!("format_5.sql"),
];

/// How long one connection waits for another.
const BUSY: Duration = Duration::from_secs(5);

/// How long the write-ahead log gets, in pages of 4 KiB.
const LOG_PAGES: i64 = 16 * 1024;

/// Of the file in memory, in KiB; negative is KiB in SQLite's words.
const CACHE_KIB: i64 = -32 * 1024;

/// How many statements are kept ready: more than there are.
const STATEMENTS: usize = 64;

/// Opens a file, makes it if there is none, and brings it to the newest format.
pub(super) fn open(path: &Path) -> Result<Connection, StoreError> {
    make_private(path)?;
    let mut connection = connect(path, OpenFlags::default())?;
    // One that reads first and writes then would fail where another process writes meanwhile, instead of
    // waiting for it.
    connection.set_transaction_behavior(TransactionBehavior::Immediate);
    let prepared = prepare(&mut connection, path);
    prepared.map(|()| connection)
}

/// Opens a file to read it. It must be there and of the newest format.
pub(super) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = connect(path, flags)?;
    let found = format_of(&connection, path)?;
    if found != newest() {
        return Err(StoreError::Older { path: path.into() });
    }
    Ok(connection)
}

/// The events are people's own: nobody else on the machine may read the file.
fn make_private(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true).mode(0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(source) => Err(StoreError::Create {
            path: path.into(),
            source,
        }),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Open {
        path: path.into(),
        source,
    };
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Otherwise a statement with a limit among its parameters is planned anew for each value
    // (<https://sqlite.org/c3ref/c_dbconfig_defensive.html#sqlitedbconfigenableqpsg>), which takes
    // longer than to run it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(failed)?;
    connection
        .pragma_update(None, "cache_size", CACHE_KIB)
        .map_err(|error| damage(path, error))?;
    Ok(connection)
}

fn newest() -> i64 {
    i64::try_from(STEPS.len()).unwrap_or(i64::MAX)
}

/// Which format a file of ours has.
fn format_of(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let read = || Ok((number("application_id")?, number("user_version")?));
    let (application, format) = read().map_err(|error| damage(path, error))?;
    let tables = "SELECT count(*) FROM sqlite_schema";
    let tables: i64 = connection
        .query_row(tables, [], |row| row.get(0))
        .map_err(|error| damage(path, error))?;
    match application {
        APPLICATION_ID if format > newest() => Err(StoreError::Newer {
            path: path.into(),
            found: format,
            known: newest(),
        }),
        APPLICATION_ID => Ok(format),
        0 if format == 0 && tables == 0 => Ok(0),
        _ => Err(StoreError::Foreign { path: path.into() }),
    }
}

fn prepare(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let format = format_of(connection, path)?;
    let damaged = |error| damage(path, error);
    if format == 0 {
        // Only in an empty file it can be chosen.
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(damaged)?;
    }
    connection
        .pragma_update(None, "journal_mode", "WAL")
        .map_err(damaged)?;
    // The log is long, because a page of an index is changed again and again, and written back once
    // for each time that the log is emptied.
    connection
        .pragma_update(None, "wal_autocheckpoint", LOG_PAGES)
        .map_err(damaged)?;
    // In WAL mode only FULL survives a power cut (<https://sqlite.org/pragma.html#pragma_synchronous>),
    // and what is committed is acknowledged to the broker.
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(damaged)?;
    for (next, step) in (1..).zip(STEPS) {
        if next > format {
            let change = connection.transaction()?;
            change.execute_batch(step)?;
            change.pragma_update(None, "user_version", next)?;
            change.commit()?;
        }
    }
    let epoch = "INSERT INTO meta (name, value) VALUES ('epoch', ?1) ON CONFLICT DO NOTHING";
    connection.execute(epoch, [Epoch::fresh().number().cast_signed()])?;
    Ok(())
}

/// What SQLite says of a file that is none of its own, in words that help.
pub(super) fn damage(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => StoreError::Corrupt {
            path: path.into(),
            what: error.to_string(),
        },
        _ => StoreError::Open {
            path: path.into(),
            source: error,
        },
    }
}
