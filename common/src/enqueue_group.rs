//! Putting the jobs of a group into their queues, as every producer of ours does it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use thiserror::Error;
use tokio::time::timeout;

use crate::amqp::{Names, Publisher};
use crate::enqueue::{ANNOUNCE_TIMEOUT, EnqueueError, Envelope, publish_status, put_in};
use crate::wire::{
    GROUP_KIND, Group, Job, JobError, MAX_GROUP_SIZE, Progress, Status, TaskStatus, header,
};

/// How many jobs are on their way at once.
const AT_ONCE: usize = 64;

/// Why a group is not in its queues, or not all of it.
#[derive(Debug, Error)]
pub enum GroupError {
    /// None, or too many.
    #[error("a group has 1 to {MAX_GROUP_SIZE} jobs, this one has {0}")]
    Size(usize),
    /// Two owners would be two groups, neither of them complete.
    #[error(
        "job {index} of the group belongs to {user_id:?} and the first to {first:?}: all jobs of a group \
         have the same `user_id`"
    )]
    Owner {
        /// Which job, from 0.
        index: usize,
        /// Its owner.
        user_id: String,
        /// The owner of the first.
        first: String,
    },
    /// The second would be taken for the first.
    #[error("job {index} of the group has the id {id:?} of another: each needs its own")]
    SameId {
        /// Which job, from 0.
        index: usize,
        /// The id.
        id: String,
    },
    /// A job or the group itself is wrong.
    #[error("job {index} of the group: {source}")]
    Job {
        /// Which job, from 0.
        index: usize,
        /// What is wrong.
        source: JobError,
    },
    /// The broker did not take all.
    #[error(
        "{done} of {size} jobs of the group are in their queues, and it ends only with all of them: put it in \
         again, with the same ids"
    )]
    Enqueue {
        /// How many are in for certain.
        done: usize,
        /// How many there are.
        size: usize,
        /// Why the first of the others is not.
        source: EnqueueError,
    },
}

/// A group to put in.
#[derive(Debug, Clone)]
pub struct NewGroup {
    /// What its jobs say of it; `index` and `size` are filled in.
    pub group: Group,
    /// Its jobs, in the order of their index, and the short names of their queues.
    pub jobs: Vec<(String, Job)>,
    /// Some of it may be in already. Its jobs have the same ids then, and workers look whether they
    /// have ended: a job that has does not run again.
    pub again: bool,
}

/// Checks a group, tells its owner `queued`, and puts its jobs in; when this returns, the broker keeps
/// them all.
///
/// A `unique_key` is asked for by the worker: a job that is not the first with its key ends, and
/// counts, as cancelled.
///
/// # Errors
/// [`GroupError`]. Nothing is put in if a job is wrong.
pub async fn enqueue_group(
    publisher: &Publisher,
    names: &Names,
    new: NewGroup,
    now: Timestamp,
) -> Result<(), GroupError> {
    let jobs = checked(&new)?;
    if let Some((_, first)) = jobs.first() {
        announce(publisher, names, &new.group, first, jobs.len(), now).await;
    }
    let once = new.again.then(|| (header::ONCE.to_owned(), "1".to_owned()));
    // Of two messages of a job a worker sees that they are the same.
    let origin = (header::ORIGIN.to_owned(), format!("group/{}", new.group.id));
    let headers: std::collections::BTreeMap<_, _> = once.into_iter().chain([origin]).collect();
    let failed = AtomicBool::new(false);
    let (size, mut done, mut first_error) = (jobs.len(), 0, None);
    let putting = jobs.into_iter().map(|(queue, job)| {
        let (headers, failed) = (headers.clone(), &failed);
        async move {
            if failed.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let placed = put_in(publisher, names, &queue, &job, headers, now).await;
            failed.fetch_or(placed.is_err(), Ordering::Relaxed);
            placed.map(|()| true)
        }
    });
    let mut putting = stream::iter(putting).buffer_unordered(AT_ONCE);
    while let Some(placed) = putting.next().await {
        match placed {
            Ok(is_in) => done += usize::from(is_in),
            Err(error) => drop(first_error.get_or_insert(error)),
        }
    }
    match first_error {
        None => Ok(()),
        Some(source) => Err(GroupError::Enqueue { done, size, source }),
    }
}

/// The jobs with what they say of their group.
fn checked(new: &NewGroup) -> Result<Vec<(String, Job)>, GroupError> {
    let count = new.jobs.len();
    let size = u32::try_from(count).unwrap_or(u32::MAX);
    let Some((_, first)) = new.jobs.first().filter(|_| size <= MAX_GROUP_SIZE) else {
        return Err(GroupError::Size(count));
    };
    let mut ids = HashSet::new();
    let mut jobs = Vec::with_capacity(count);
    for (index, (place, (queue, job))) in (0..).zip(new.jobs.iter().enumerate()) {
        let mut job = job.clone();
        job.group = Some(Box::new(Group {
            index,
            size,
            ..new.group.clone()
        }));
        let index = place;
        if job.user_id != first.user_id {
            return Err(GroupError::Owner {
                index,
                user_id: job.user_id,
                first: first.user_id.clone(),
            });
        }
        if !ids.insert(job.id.clone()) || job.id == new.group.id {
            return Err(GroupError::SameId { index, id: job.id });
        }
        job.check()
            .map_err(|source| GroupError::Job { index, source })?;
        jobs.push((queue.clone(), job));
    }
    Ok(jobs)
}

/// As well as can be: what the group's owner hears next is how far it is.
async fn announce(
    publisher: &Publisher,
    names: &Names,
    group: &Group,
    first: &Job,
    size: usize,
    now: Timestamp,
) {
    let status = TaskStatus {
        task_id: group.id.clone(),
        kind: GROUP_KIND.into(),
        title: group.title.clone(),
        user_id: first.user_id.clone(),
        status: Status::Queued,
        attempt: 0,
        max_attempts: 1,
        // Below whatever is said of its progress.
        rev: 1,
        progress: Some(Progress::of(0, size as u64, "jobs")),
        error: None,
        result: None,
        next_attempt_at: None,
        group: None,
        timestamp: now,
    };
    let envelope = Envelope {
        room: first.room_id.as_deref(),
        ..Envelope::default()
    };
    let telling = publish_status(publisher, names, &status, envelope);
    match timeout(ANNOUNCE_TIMEOUT, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, group = group.id, "could not announce the group"),
        Err(_) => tracing::debug!(group = group.id, "could not announce the group in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn new(jobs: &[(&str, &str)]) -> NewGroup {
        let job = |(id, user): &(&str, &str)| {
            let job = Job::new(*id, "k", json!({}), *user);
            ("default".to_owned(), job)
        };
        NewGroup {
            group: Group::new("g"),
            jobs: jobs.iter().map(job).collect(),
            again: false,
        }
    }

    #[test]
    fn each_job_is_told_its_place() {
        let jobs = checked(&new(&[("a", "ann"), ("b", "ann")])).unwrap();
        let places = jobs.iter().map(|(_, job)| {
            let group = job.group.as_deref().unwrap();
            (group.index, group.size)
        });
        assert_eq!(places.collect::<Vec<_>>(), [(0, 2), (1, 2)]);
    }

    #[test]
    fn a_group_that_would_never_end_is_refused() {
        let many = vec![("a", "ann"); 10_001];
        for (jobs, wants) in [
            (&[][..], "this one has 0"),
            (&many, "this one has 10001"),
            (&[("a", "ann"), ("b", "bob")], "\"bob\""),
            (
                &[("a", "ann"), ("a", "ann")],
                "job 1 of the group has the id \"a\"",
            ),
            (&[("g", "ann")], "the id \"g\""),
            (
                &[("a", "ann"), ("", "ann")],
                "job 1 of the group: the job's `id`",
            ),
        ] {
            let error = checked(&new(jobs)).unwrap_err().to_string();
            assert!(error.contains(wants), "{error}");
        }
    }
}
