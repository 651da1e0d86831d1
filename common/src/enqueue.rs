//! Putting a job into its queue, as every producer of ours does it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use thiserror::Error;
use tokio::time::timeout;
use uuid::Uuid;

use crate::amqp::{ClaimError, Claimed, Message, Names, PublishError, Publisher, Route};
use crate::unique;
use crate::wire::{
    Audience, Event, EventClass, EventError, EventKey, Job, JobError, KeyError, Status,
    TASK_STATUS_CHANGED, TaskStatus, header,
};

/// How long a producer waits until its job is announced to the owner.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a job is not in its queue.
#[derive(Debug, Error)]
pub enum EnqueueError {
    /// The job itself is wrong.
    #[error(transparent)]
    Job(#[from] JobError),
    /// It cannot be written as JSON.
    #[error("the job cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// No worker has ever declared the queue.
    #[error(
        "there is no queue `{queue}`: no worker that serves it has run on this broker yet \
         (a worker serves the queues in its configuration, `[queues.{queue}]`)"
    )]
    NoSuchQueue {
        /// The queue's short name.
        queue: String,
    },
    /// Whether its `unique_key` is free could not be learnt.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The broker did not take it.
    #[error(transparent)]
    Publish(PublishError),
}

/// Which task does what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// The job's id, or that of the first with its `unique_key`.
    pub task_id: String,
    /// The key was taken, and the job was not put in.
    pub duplicate: bool,
}

/// Puts a job into a queue, unless its `unique_key` is taken; when this returns, the broker keeps
/// it. Its owner is told `queued`, or `scheduled` if its time has not come.
///
/// # Errors
/// [`EnqueueError`]. After [`PublishError::Timeout`] the job may be in the queue all the same.
pub async fn enqueue(
    publisher: &Publisher,
    names: &Names,
    queue: &str,
    job: &Job,
    now: Timestamp,
) -> Result<Enqueued, EnqueueError> {
    job.check()?;
    let mut headers = BTreeMap::new();
    match unique::claim(publisher, names, job).await? {
        None => {}
        Some(Claimed::Mine) => {
            headers.insert(header::CLAIMED.to_owned(), "true".to_owned());
        }
        Some(Claimed::By(first)) => {
            return Ok(Enqueued {
                task_id: first,
                duplicate: true,
            });
        }
    }
    if let Err(error) = put_in(publisher, names, queue, job, headers, now).await {
        // Or the caller's next try would be sent to a job that is not there.
        unique::release(publisher, names, job).await;
        return Err(error);
    }
    Ok(Enqueued {
        task_id: job.id.clone(),
        duplicate: false,
    })
}

/// Puts a job with these headers into a queue, whatever its `unique_key`, and tells its owner.
///
/// # Errors
/// As [`enqueue`].
pub async fn put_in(
    publisher: &Publisher,
    names: &Names,
    queue: &str,
    job: &Job,
    mut headers: BTreeMap<String, String>,
    now: Timestamp,
) -> Result<(), EnqueueError> {
    job.check()?;
    headers.insert(header::SINCE.to_owned(), now.to_string());
    let message = Message {
        body: serde_json::to_vec(job)?,
        id: Some(job.id.clone()),
        kind: Some(job.kind.clone()),
        priority: job.priority,
        timestamp: u64::try_from(now.as_second()).ok(),
        headers,
        persistent: true,
        ..Message::default()
    };
    let exchange = names.jobs();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    match publisher.publish(route, &message).await {
        Ok(()) => {}
        Err(PublishError::Unroutable { .. }) => {
            let queue = queue.to_owned();
            return Err(EnqueueError::NoSuchQueue { queue });
        }
        Err(error) => return Err(EnqueueError::Publish(error)),
    }
    let status = queued(job, now);
    // The job is safe; its owner hears of it when a worker starts it, if not now.
    let telling = publish_status(publisher, names, &status, job.room_id.as_deref());
    match timeout(ANNOUNCE_TIMEOUT, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, task_id = job.id, "could not announce the job"),
        Err(_) => tracing::debug!(task_id = job.id, "could not announce the job in time"),
    }
    Ok(())
}

fn queued(job: &Job, now: Timestamp) -> TaskStatus {
    let due = job.due(now).filter(|due| *due > now);
    TaskStatus {
        task_id: job.id.clone(),
        kind: job.kind.clone(),
        title: job.title.clone(),
        user_id: job.user_id.clone(),
        status: match due {
            Some(_) => Status::Scheduled,
            None => Status::Queued,
        },
        attempt: 0,
        max_attempts: job.max_attempts.unwrap_or(1),
        // Below whatever a worker says, whose clock may be behind the producer's.
        rev: 1,
        progress: None,
        error: None,
        result: None,
        next_attempt_at: due,
        timestamp: now,
    }
}

/// Why a status could not be published.
#[derive(Debug, Error)]
pub enum StatusError {
    /// The owner's id does not fit into a routing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The status cannot be written as JSON.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The broker did not take it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// Publishes a task's status to its owner, and to its room if it has one. Final statuses are
/// `stored`, so that they wait for their reader; the others are `live`.
///
/// # Errors
/// [`StatusError`].
pub async fn publish_status(
    publisher: &Publisher,
    names: &Names,
    status: &TaskStatus,
    room: Option<&str>,
) -> Result<(), StatusError> {
    let stored = status.status.is_final();
    let event = Event::new(
        TASK_STATUS_CHANGED,
        Uuid::now_v7(),
        status.timestamp,
        status,
    )?;
    let message = Message {
        body: event.to_bytes()?,
        id: Some(event.id.to_string()),
        kind: Some(event.kind.clone()),
        persistent: stored,
        ..Message::default()
    };
    let exchange = names.events();
    let owner = Audience::User(status.user_id.clone());
    let room = room.map(|room| Audience::Room(room.to_owned()));
    for audience in std::iter::once(owner).chain(room) {
        let key = EventKey {
            class: if stored {
                EventClass::Stored
            } else {
                EventClass::Live
            },
            audience,
            topic: format!("{TASK_STATUS_CHANGED}.{}", status.status.as_str()),
        };
        // Nobody may be listening to what is live; what is stored must land in the inbox.
        let route = Route {
            exchange: &exchange,
            key: &key.encode()?,
            mandatory: stored,
        };
        publisher.publish(route, &message).await?;
    }
    Ok(())
}
