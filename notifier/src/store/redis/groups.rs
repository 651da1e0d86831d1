//! Groups of jobs.

use std::collections::HashMap;

use bytes::{Buf as _, Bytes};
use jiff::Timestamp;
use redis::Pipeline;

use super::Redis;
use super::keys::{COUNT_JOBS, GROUP, Slot};
use crate::store::{
    GroupCount, GroupJob, GroupPart, GroupRecord, JobEnd, MAX_RESULTS_BYTES, NewEvent, StoreError,
    StreamName,
};

/// What the script says of a group: its size, how many of its jobs ended how, its `rev`, and whether
/// it was complete before.
pub(super) type Counted = (u32, u32, u32, u32, u64, bool);

/// How many bytes a kept job has before its id.
const HEAD: usize = 31;

/// Where in a batch the jobs of one user's groups are.
pub(super) type Places = Vec<(StreamName, Vec<usize>)>;

/// Adds calls that count the jobs of a batch, one for each user; where those jobs are.
pub(super) fn count(
    pipeline: &mut Pipeline,
    prefix: &str,
    events: &[NewEvent],
    now: Timestamp,
) -> Places {
    let mut users: HashMap<StreamName, Vec<usize>> = HashMap::new();
    let mut parts = Vec::new();
    for (place, event) in events.iter().enumerate() {
        if let Some(part) = &event.group {
            let user = StreamName::user(&part.owner);
            users.entry(user).or_default().push(parts.len());
            parts.push((place, part));
        }
    }
    let mut places = Places::new();
    for (user, some) in users {
        let mut call = COUNT_JOBS.call(&Slot::of(prefix, &user));
        call.arg(now.as_millisecond())
            .arg(now.as_microsecond())
            .arg(MAX_RESULTS_BYTES);
        let some: Vec<_> = some.iter().filter_map(|at| parts.get(*at)).collect();
        for (_, part) in &some {
            add(&mut call, part);
        }
        pipeline.add_command(call);
        places.push((user, some.iter().map(|(place, _)| *place).collect()));
    }
    places
}

fn add(call: &mut redis::Cmd, part: &GroupPart) {
    call.arg(&part.group_id).arg(part.size);
    call.arg(format!("{:05}", part.index));
    call.arg(format!("{:020}", part.rev));
    call.arg(part.end.number()).arg(&part.task_id);
    let result = part.result.as_deref();
    call.arg(result.map_or_else(Vec::new, |result| [b"r", result].concat()));
}

pub(super) fn count_of(
    (size, succeeded, failed, cancelled, rev, was_complete): Counted,
) -> GroupCount {
    GroupCount {
        size,
        succeeded,
        failed,
        cancelled,
        rev,
        was_complete,
    }
}

impl Redis {
    pub(super) async fn group(
        &self,
        owner: &str,
        group_id: &str,
    ) -> Result<Option<GroupRecord>, StoreError> {
        let mut call = GROUP.call(&self.slot(&StreamName::user(owner)));
        call.arg(group_id);
        let found: Option<(u32, Vec<(u32, Bytes)>)> = self.ask(call).await?;
        Ok(found.map(|(size, jobs)| GroupRecord {
            size,
            jobs: jobs.into_iter().filter_map(job).collect(),
        }))
    }
}

fn job((index, mut kept): (u32, Bytes)) -> Option<GroupJob> {
    let mut rest = (kept.len() >= HEAD).then(|| kept.split_off(HEAD))?;
    let end = JobEnd::from_number(kept.get(20)?.checked_sub(b'0')?);
    let bytes: usize = std::str::from_utf8(kept.get(21..)?).ok()?.parse().ok()?;
    let mut result = (rest.len() >= bytes).then(|| rest.split_off(bytes))?;
    let is_kept = !result.is_empty();
    result.advance(usize::from(is_kept));
    Some(GroupJob {
        index,
        task_id: String::from_utf8(rest.into()).ok()?,
        end,
        result: is_kept.then_some(result),
    })
}
