//! Groups of jobs: what the end of a job says of its group, and what there is to tell of the group
//! then. Pure.

use std::collections::HashMap;

use bellhop_common::wire::{
    Ending, FollowUp, GROUP_FAILED, GROUP_KIND, GroupPlace, GroupSequel, Job, MAX_GROUP_SIZE,
    MAX_ID_BYTES, Parent, Progress, Status, TaskError, TaskStatus,
};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json, value::RawValue};

use super::state::State;
use crate::store::{
    GroupCount, GroupJob, GroupPart, GroupRecord, JobEnd, MAX_RESULT_BYTES, MAX_RESULTS_BYTES,
};

/// How many failed jobs a failed group names.
const NAMED: usize = 5;

/// What a group's progress counts.
const UNIT: &str = "jobs";

/// The end of a job of a group that a state tells.
pub(super) fn part_of(owner: &str, state: &State<'_>) -> Option<GroupPart> {
    let end = JobEnd::of(state.status)?;
    let place: GroupPlace = serde_json::from_str(state.group?.get()).ok()?;
    let is_sound = (1..=MAX_ID_BYTES).contains(&place.id.len())
        && (1..=MAX_GROUP_SIZE).contains(&place.size)
        && place.index < place.size;
    let result = state.result.map_or("null", RawValue::get);
    let is_kept = end == JobEnd::Succeeded && result.len() <= MAX_RESULT_BYTES;
    is_sound.then(|| GroupPart {
        owner: owner.to_owned(),
        group_id: place.id,
        size: place.size,
        index: place.index,
        task_id: state.task_id.to_string(),
        rev: state.rev,
        end,
        result: is_kept.then(|| Bytes::copy_from_slice(result.as_bytes())),
    })
}

/// A group of which jobs ended in a batch.
#[derive(Debug)]
pub(super) struct Touched {
    pub(super) owner: String,
    pub(super) id: String,
    pub(super) count: GroupCount,
    pub(super) sequel: GroupSequel,
}

/// The groups of a batch, each once.
#[derive(Debug, Default)]
pub(super) struct Groups(HashMap<(String, String), Touched>);

impl Groups {
    /// Of an end that was counted; `sequel` is the header that came with it.
    pub(super) fn add(&mut self, part: GroupPart, count: GroupCount, sequel: Option<&str>) {
        let key = (part.owner.clone(), part.group_id.clone());
        let touched = self.0.entry(key).or_insert_with(|| Touched {
            owner: part.owner,
            id: part.group_id,
            count,
            sequel: GroupSequel::default(),
        });
        // All say the same, but for those of foreign workers that say nothing.
        if touched.sequel == GroupSequel::default()
            && let Some(sequel) = sequel.and_then(|text| serde_json::from_str(text).ok())
        {
            touched.sequel = sequel;
        }
    }

    /// One after the other.
    pub(super) fn into_each(self) -> impl Iterator<Item = Touched> {
        self.0.into_values()
    }
}

impl Touched {
    /// Where the group stands.
    pub(super) fn running(&self, now: Timestamp) -> TaskStatus {
        self.status(Status::Running, now)
    }

    /// How the group ended.
    pub(super) fn ended(&self, end: Status, record: &GroupRecord, now: Timestamp) -> TaskStatus {
        TaskStatus {
            result: (end == Status::Succeeded).then(|| self.result(record)),
            error: (end == Status::Failed).then(|| self.error(record)),
            ..self.status(end, now)
        }
    }

    /// The jobs that follow an end, and their queues.
    pub(super) fn sequel(&self, status: &TaskStatus) -> Vec<(String, Job)> {
        let (follow_ups, ending) = match (&status.result, &status.error) {
            (Some(result), _) => (&self.sequel.then, Ending::Succeeded(result)),
            (_, Some(error)) => (&self.sequel.on_failure, Ending::Failed(error)),
            // Nothing follows what was cancelled.
            _ => return Vec::new(),
        };
        let parent = Parent::group(&self.owner, &self.id, self.sequel.room.as_deref());
        let queue = |follow_up: &FollowUp| {
            let queue = follow_up.queue.as_ref().or(self.sequel.queue.as_ref());
            queue.map_or_else(|| "default".to_owned(), Clone::clone)
        };
        let jobs = follow_ups.iter().enumerate();
        jobs.map(|(index, next)| (queue(next), next.job(&parent, ending, index)))
            .collect()
    }

    fn status(&self, status: Status, now: Timestamp) -> TaskStatus {
        let (done, size) = (u64::from(self.count.done()), u64::from(self.count.size));
        let mut progress = Progress::of(done, size, UNIT);
        progress.message = self.count_of_bad_ends();
        TaskStatus {
            task_id: self.id.clone(),
            kind: GROUP_KIND.into(),
            title: self.sequel.title.clone(),
            user_id: self.owner.clone(),
            status,
            attempt: 1,
            max_attempts: 1,
            rev: self.count.rev,
            progress: Some(progress),
            error: None,
            result: None,
            next_attempt_at: None,
            group: None,
            timestamp: now,
        }
    }

    fn count_of_bad_ends(&self) -> Option<String> {
        let (failed, cancelled) = (self.count.failed, self.count.cancelled);
        match (failed, cancelled) {
            (0, 0) => None,
            (_, 0) => Some(format!("{failed} failed")),
            (0, _) => Some(format!("{cancelled} cancelled")),
            _ => Some(format!("{failed} failed, {cancelled} cancelled")),
        }
    }

    fn result(&self, record: &GroupRecord) -> Value {
        let mut result = json!({"size": self.count.size, "succeeded": self.count.succeeded});
        let (name, value) = match results(record) {
            Some(results) => ("results", Value::Array(results)),
            None => ("results_omitted", Value::Bool(true)),
        };
        if let Value::Object(fields) = &mut result {
            fields.insert(name.to_owned(), value);
        }
        result
    }

    fn error(&self, record: &GroupRecord) -> TaskError {
        let failed = record.jobs.iter().filter(|job| job.end == JobEnd::Failed);
        let names: Vec<_> = failed.map(|job| job.task_id.as_str()).take(NAMED).collect();
        let GroupCount {
            size,
            failed,
            cancelled,
            ..
        } = self.count;
        let others = match cancelled {
            0 => String::new(),
            _ => format!(", {cancelled} cancelled"),
        };
        let more = match usize::try_from(failed).unwrap_or(usize::MAX) {
            count if count > names.len() => format!(" and {} more", count - names.len()),
            _ => String::new(),
        };
        let names = names.join(", ");
        let message = format!("{failed} of {size} jobs failed{others}: {names}{more}");
        TaskError::new(GROUP_FAILED, message)
    }
}

/// The results of all jobs, in the order of their index, if they are kept.
fn results(record: &GroupRecord) -> Option<Vec<Value>> {
    let size = usize::try_from(record.size).ok()?;
    let kept = |job: &GroupJob| job.result.as_ref().map(Bytes::len);
    let bytes = record.jobs.iter().map(kept).sum::<Option<usize>>()?;
    if record.jobs.len() != size || bytes as u64 > MAX_RESULTS_BYTES {
        return None;
    }
    let read = |job: &GroupJob| serde_json::from_slice(job.result.as_ref()?).ok();
    record.jobs.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
