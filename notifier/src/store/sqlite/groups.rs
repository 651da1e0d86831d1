//! Groups of jobs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bellhop_common::wire::next_rev;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::number;
use crate::store::{GroupCount, GroupJob, GroupPart, GroupRecord, JobEnd, MAX_RESULTS_BYTES};

/// The groups that a batch is about.
#[derive(Debug, Default)]
pub(super) struct Counting<'a>(HashMap<(&'a str, &'a str), Growing>);

/// A group while a batch is counted.
#[derive(Debug)]
struct Growing {
    id: i64,
    bytes: u64,
    count: GroupCount,
}

impl<'a> Counting<'a> {
    /// Counts the end of a job, unless a newer one of it is counted.
    pub(super) fn add(
        &mut self,
        batch: &Transaction<'_>,
        part: &'a GroupPart,
        now: Timestamp,
    ) -> rusqlite::Result<()> {
        let key = (part.owner.as_str(), part.group_id.as_str());
        let group = match self.0.entry(key) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(place) => place.insert(Growing::load(batch, part, now)?),
        };
        if part.index < group.count.size {
            group.add(batch, part)?;
        }
        Ok(())
    }

    /// How far the group of a job is.
    pub(super) fn of(&self, part: &GroupPart) -> Option<GroupCount> {
        let key = (part.owner.as_str(), part.group_id.as_str());
        self.0.get(&key).map(|group| group.count)
    }

    pub(super) fn save(&self, batch: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
        self.0.values().try_for_each(|group| group.save(batch, now))
    }
}

impl Growing {
    fn load(batch: &Transaction<'_>, part: &GroupPart, now: Timestamp) -> rusqlite::Result<Self> {
        let new = "INSERT INTO job_group (user_id, name, size, stored_at) VALUES (?1, ?2, ?3, ?4) \
                   ON CONFLICT DO NOTHING";
        let row = params![part.owner, part.group_id, part.size, now.as_millisecond()];
        batch.prepare_cached(new)?.execute(row)?;
        let query = "SELECT id, bytes, size, succeeded, failed, cancelled, rev FROM job_group \
                     WHERE user_id = ?1 AND name = ?2";
        let mut statement = batch.prepare_cached(query)?;
        statement.query_row([&part.owner, &part.group_id], |row| {
            let mut count = GroupCount {
                size: row.get(2)?,
                succeeded: row.get(3)?,
                failed: row.get(4)?,
                cancelled: row.get(5)?,
                rev: next_rev(row.get::<_, i64>(6)?.cast_unsigned(), now),
                was_complete: false,
            };
            count.was_complete = count.end().is_some();
            Ok(Self {
                id: row.get(0)?,
                bytes: row.get::<_, i64>(1)?.cast_unsigned(),
                count,
            })
        })
    }

    fn add(&mut self, batch: &Transaction<'_>, part: &GroupPart) -> rusqlite::Result<()> {
        let query = "SELECT rev, outcome, coalesce(length(result), 0) FROM job_group_part \
                     WHERE group_id = ?1 AND job = ?2";
        let mut statement = batch.prepare_cached(query)?;
        let last = statement.query_row(params![self.id, part.index], |row| {
            let [rev, bytes] = [row.get::<_, i64>(0)?, row.get(2)?];
            Ok((rev, JobEnd::from_number(row.get(1)?), bytes.cast_unsigned()))
        });
        match last.optional()? {
            Some((rev, ..)) if rev >= number(part.rev) => return Ok(()),
            Some((_, end, bytes)) => {
                *self.of(end) -= 1;
                self.bytes -= bytes;
            }
            None => {}
        }
        *self.of(part.end) += 1;
        let result = part.result.as_ref();
        let result = result.filter(|it| self.bytes + it.len() as u64 <= MAX_RESULTS_BYTES);
        self.bytes += result.map_or(0, |result| result.len() as u64);
        let put = "INSERT INTO job_group_part (group_id, job, rev, outcome, task_id, result) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (group_id, job) DO UPDATE \
                   SET rev = excluded.rev, outcome = excluded.outcome, \
                       task_id = excluded.task_id, result = excluded.result";
        let row = params![
            self.id,
            part.index,
            number(part.rev),
            part.end.number(),
            part.task_id,
            result.map(|result| &result[..])
        ];
        batch.prepare_cached(put)?.execute(row)?;
        Ok(())
    }

    fn of(&mut self, end: JobEnd) -> &mut u32 {
        match end {
            JobEnd::Succeeded => &mut self.count.succeeded,
            JobEnd::Failed => &mut self.count.failed,
            JobEnd::Cancelled => &mut self.count.cancelled,
        }
    }

    fn save(&self, batch: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
        let update = "UPDATE job_group SET succeeded = ?2, failed = ?3, cancelled = ?4, rev = ?5, \
                      bytes = ?6, stored_at = ?7 WHERE id = ?1";
        let row = params![
            self.id,
            self.count.succeeded,
            self.count.failed,
            self.count.cancelled,
            number(self.count.rev),
            number(self.bytes),
            now.as_millisecond()
        ];
        batch.prepare_cached(update)?.execute(row)?;
        Ok(())
    }
}

/// A group with its jobs.
pub(super) fn get(
    connection: &Connection,
    owner: &str,
    group_id: &str,
) -> rusqlite::Result<Option<GroupRecord>> {
    let select = "SELECT id, size FROM job_group WHERE user_id = ?1 AND name = ?2";
    let mut statement = connection.prepare_cached(select)?;
    let found = statement.query_row([owner, group_id], |row| {
        Ok((row.get::<_, i64>(0)?, row.get(1)?))
    });
    let Some((id, size)) = found.optional()? else {
        return Ok(None);
    };
    let select = "SELECT job, task_id, outcome, result FROM job_group_part \
                  WHERE group_id = ?1 ORDER BY job";
    let mut statement = connection.prepare_cached(select)?;
    let jobs = statement.query_map([id], |row| {
        Ok(GroupJob {
            index: row.get(0)?,
            task_id: row.get(1)?,
            end: JobEnd::from_number(row.get(2)?),
            result: row.get::<_, Option<Vec<u8>>>(3)?.map(Into::into),
        })
    })?;
    let jobs = jobs.collect::<rusqlite::Result<_>>()?;
    Ok(Some(GroupRecord { size, jobs }))
}

/// Removes some of the groups in which nothing has ended since a time; how many, and whether there
/// may be more.
pub(super) fn sweep(
    change: &Transaction<'_>,
    oldest: i64,
    jobs_at_once: usize,
) -> rusqlite::Result<(u64, bool)> {
    let (mut groups, mut jobs) = (0, 0);
    while jobs < jobs_at_once {
        let delete = "DELETE FROM job_group WHERE id = \
                      (SELECT id FROM job_group WHERE stored_at < ?1 LIMIT 1) RETURNING id";
        let mut statement = change.prepare_cached(delete)?;
        let id: Option<i64> = statement.query_row([oldest], |row| row.get(0)).optional()?;
        let Some(id) = id else {
            return Ok((groups, false));
        };
        let delete = "DELETE FROM job_group_part WHERE group_id = ?1";
        jobs += change.prepare_cached(delete)?.execute([id])? + 1;
        groups += 1;
    }
    Ok((groups, true))
}
