//! In which row of the table an event of a stream is, by its number.
//!
//! Events lie in the order in which they came, whatever their stream. So each stream notes the rows of its
//! own: of 16 numbers in a block, and of those that fill no block yet in the stream's own row. A step of
//! events of many streams thus touches one page in 16 events more than it must, where an index of stream
//! and number would touch one for each.

use std::ops::RangeInclusive;

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::number;
use crate::store::StreamName;

/// How many numbers a block has. Files depend on it, as on the next.
const NUMBERS: u64 = 16;

/// How many bytes a row's id takes: enough for eight million events a second for a year.
const BYTES: usize = 6;

/// Rows of numbers that follow each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rows(Vec<u8>);

impl Rows {
    fn get(&self, place: usize) -> Option<i64> {
        let bytes = self.0.chunks_exact(BYTES).nth(place)?;
        let mut id = [0; 8];
        id[8 - BYTES..].copy_from_slice(bytes);
        Some(i64::from_be_bytes(id))
    }

    fn push(&mut self, row: i64) {
        self.0.extend_from_slice(&row.to_be_bytes()[8 - BYTES..]);
    }
}

impl FromSql for Rows {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        value.as_blob().map(|bytes| Self(bytes.to_vec()))
    }
}

impl ToSql for Rows {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Blob(&self.0)))
    }
}

/// In which block a number is.
fn block_of(seq: u64) -> u64 {
    (seq - 1) / NUMBERS
}

/// Which numbers a block has.
fn numbers_of(block: u64) -> RangeInclusive<u64> {
    block * NUMBERS + 1..=(block + 1) * NUMBERS
}

/// A stream in the file, with what it takes to find its events.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) id: i64,
    /// The number of the newest event; 0 if there never was one.
    pub(super) last: u64,
    /// The number of the oldest event that is still there, or of the next one.
    pub(super) first: u64,
    /// Of the numbers after the last whole block.
    pub(super) tail: Rows,
}

impl Index {
    /// Of a stream, if the file has it.
    pub(super) fn find(
        connection: &Connection,
        name: &StreamName,
    ) -> rusqlite::Result<Option<Self>> {
        let query = "SELECT id, last, first, tail FROM stream WHERE name = ?1";
        let mut statement = connection.prepare_cached(query)?;
        let found = statement.query_row([name.as_str()], Self::of);
        found.optional()
    }

    /// From `id, last, first, tail`, and what a query asks for after those.
    pub(super) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            last: row.get::<_, i64>(1)?.cast_unsigned(),
            first: row.get::<_, i64>(2)?.cast_unsigned(),
            tail: row.get(3)?,
        })
    }

    /// Gives the next number to a row. The stream's own row is still to be saved.
    pub(super) fn push(&mut self, connection: &Connection, row: i64) -> rusqlite::Result<u64> {
        self.last += 1;
        self.tail.push(row);
        if self.last.is_multiple_of(NUMBERS) {
            let insert = "INSERT OR REPLACE INTO block (stream, number, rows) VALUES (?1, ?2, ?3)";
            let block = number(block_of(self.last));
            let mut statement = connection.prepare_cached(insert)?;
            statement.execute(params![self.id, block, self.tail])?;
            self.tail = Rows::default();
        }
        Ok(self.last)
    }

    /// Takes the oldest number away; its row. The stream's own row is still to be saved.
    pub(super) fn pop(&mut self, connection: &Connection) -> rusqlite::Result<Option<i64>> {
        let oldest = self.blocks(connection, self.first..=self.first).next();
        let row = oldest.transpose()?.and_then(|rows| rows.first().copied());
        forget(connection, self.id, self.first)?;
        self.first += 1;
        Ok(row)
    }

    /// The rows of those numbers of a range that are there: of each block on its own, from the oldest.
    pub(super) fn blocks(
        &self,
        connection: &Connection,
        numbers: RangeInclusive<u64>,
    ) -> impl DoubleEndedIterator<Item = rusqlite::Result<Vec<i64>>> {
        let first = self.first.max(*numbers.start());
        let last = self.last.min(*numbers.end());
        let blocks = if first <= last {
            block_of(first)..block_of(last) + 1
        } else {
            0..0
        };
        blocks.map(move |block| {
            let rows = self.block(connection, block)?;
            let wanted = numbers_of(block)
                .zip(0..)
                .filter(|(seq, _)| (first..=last).contains(seq));
            Ok(wanted.filter_map(|(_, place)| rows.get(place)).collect())
        })
    }

    fn block(&self, connection: &Connection, block: u64) -> rusqlite::Result<Rows> {
        if block == self.last / NUMBERS {
            return Ok(self.tail.clone());
        }
        let query = "SELECT rows FROM block WHERE stream = ?1 AND number = ?2";
        let mut statement = connection.prepare_cached(query)?;
        let found = statement.query_row(params![self.id, number(block)], |row| row.get(0));
        Ok(found.optional()?.unwrap_or_default())
    }
}

/// Takes note that an event, the oldest of its stream, is no longer there.
pub(super) fn forget(connection: &Connection, stream: i64, seq: u64) -> rusqlite::Result<()> {
    if seq.is_multiple_of(NUMBERS) {
        let delete = "DELETE FROM block WHERE stream = ?1 AND number = ?2";
        let mut statement = connection.prepare_cached(delete)?;
        statement.execute(params![stream, number(block_of(seq))])?;
    }
    Ok(())
}
