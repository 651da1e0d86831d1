//! Putting a job into its queue, telling its owner, and taking it back, as every producer of ours
//! does it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;
use tokio::time::timeout;
use uuid::Uuid;

use crate::amqp::{ClaimError, Claimed, Message, Names, PublishError, Publisher, Route, Turn};
use crate::unique;
use crate::wire::{
    Audience, Event, EventClass, EventError, EventKey, GroupSequel, Job, JobError, KeyError, Order,
    Status, TASK_STATUS_CHANGED, TaskStatus, header,
};

/// How long a producer waits until its job is announced to the owner.
pub(crate) const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

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
/// it. Its owner is told `queued`, or `scheduled` if its time has not come. A job with a
/// `unique_key` whose confirm did not come may be put in again with its id: it is run once.
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
    let mut set = |name: &str, value: &str| headers.insert(name.to_owned(), value.to_owned());
    match unique::claim(publisher, names, job, &now.to_string()).await? {
        None => {}
        Some(Claimed::Mine) => {
            set(header::CLAIMED, "true");
        }
        // Put in before, and nobody knew whether it arrived. It goes by the name of the first.
        Some(Claimed::Still(since)) => {
            set(header::CLAIMED, "true");
            set(header::ORIGIN, &since);
            set(header::ONCE, "1");
        }
        Some(Claimed::By(first)) => {
            return Ok(Enqueued {
                task_id: first,
                duplicate: true,
            });
        }
    }
    if let Err(error) = put_in(publisher, names, queue, job, headers, now).await {
        // Or the caller's next try would be sent to a job that is not there. After a timeout it may
        // be there.
        if !matches!(error, EnqueueError::Publish(PublishError::Timeout { .. })) {
            unique::release(publisher, names, job).await;
        }
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
    headers: BTreeMap<String, String>,
    now: Timestamp,
) -> Result<(), EnqueueError> {
    job.check()?;
    let mut message = message(job, now)?;
    message.headers.extend(headers);
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
    let status = accepted(job, now);
    let envelope = Envelope {
        room: job.room_id.as_deref(),
        ..Envelope::default()
    };
    // The job is safe; its owner hears of it when a worker starts it, if not now.
    let telling = publish_status(publisher, names, &status, envelope);
    match timeout(ANNOUNCE_TIMEOUT, telling).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, task_id = job.id, "could not announce the job"),
        Err(_) => tracing::debug!(task_id = job.id, "could not announce the job in time"),
    }
    Ok(())
}

/// The message that carries a job.
///
/// # Errors
/// Its arguments cannot be written as JSON.
pub fn message(job: &Job, now: Timestamp) -> Result<Message, serde_json::Error> {
    Ok(Message {
        body: serde_json::to_vec(job)?,
        id: Some(job.id.clone()),
        kind: Some(job.kind.clone()),
        priority: job.priority,
        timestamp: u64::try_from(now.as_second()).ok(),
        headers: [(header::SINCE.to_owned(), now.to_string())].into(),
        persistent: true,
        ..Message::default()
    })
}

/// The first status of a job: `queued`, or `scheduled` if its time is to come.
#[must_use]
pub fn accepted(job: &Job, now: Timestamp) -> TaskStatus {
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
        group: job.group.as_ref().map(|group| group.place()),
        timestamp: now,
    }
}

/// Orders all workers to end a task, wherever it is; when this returns, the broker keeps the order
/// for workers to come, too. With a `user_id`, only if it belongs to that user.
///
/// # Errors
/// [`PublishError`]; an order that cannot be written as JSON is never made.
pub async fn cancel(
    publisher: &Publisher,
    names: &Names,
    task_id: &str,
    user_id: Option<&str>,
    now: Timestamp,
) -> Result<(), PublishError> {
    let order = Order::Cancel {
        task_id: task_id.to_owned(),
        user_id: user_id.map(str::to_owned),
        time: now,
    };
    give_order(publisher, names, &order).await
}

/// Publishes an order to all workers of today and to come.
///
/// # Errors
/// [`PublishError`].
pub async fn give_order(
    publisher: &Publisher,
    names: &Names,
    order: &Order,
) -> Result<(), PublishError> {
    let message = Message {
        // Texts, a time and a number: always JSON.
        body: serde_json::to_vec(order).unwrap_or_default(),
        persistent: true,
        ..Message::default()
    };
    let exchange = names.control();
    let route = Route {
        exchange: &exchange,
        key: &order.key(),
        mandatory: true,
    };
    publisher.publish(route, &message).await
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

/// What goes with a status besides itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Envelope<'a> {
    /// A room that is told too.
    pub room: Option<&'a str>,
    /// The event's id; a new one if unset.
    pub id: Option<Uuid>,
    /// The message that a worker is done with by this.
    pub settled: Option<Uuid>,
    /// The trace it belongs to.
    pub traceparent: Option<&'a str>,
    /// Of a job of a group that has ended: what follows the group's end. It goes to whoever counts
    /// the group and not to the room.
    pub sequel: Option<&'a GroupSequel>,
}

impl Envelope<'_> {
    fn headers(&self) -> BTreeMap<String, String> {
        let settled = self.settled.map(|id| (header::SETTLED, id.to_string()));
        let trace = self
            .traceparent
            .map(|value| (header::TRACEPARENT, value.to_owned()));
        let headers = settled.into_iter().chain(trace);
        headers
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
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
    envelope: Envelope<'_>,
) -> Result<(), StatusError> {
    let mut message = status_message(status, envelope)?;
    let exchange = names.events();
    let room = envelope.room.map(|room| Audience::Room(room.to_owned()));
    let owner = Audience::User(status.user_id.clone());
    // The owner's event last: it is the one that settles, and the room's must not be missing then.
    for audience in room.into_iter().chain(std::iter::once(owner)) {
        if let (Audience::User(_), Some(sequel)) = (&audience, envelope.sequel) {
            let sequel = serde_json::to_string(sequel).map_err(EventError::from)?;
            message.headers.insert(header::GROUP.to_owned(), sequel);
        }
        // Nobody may be listening to what is live; what is stored must land in the inbox.
        let route = Route {
            exchange: &exchange,
            key: &status_key(status, audience)?,
            mandatory: status.status.is_final(),
        };
        publisher.publish(route, &message).await?;
    }
    Ok(())
}

/// Tells a task's owner and its room a status on the way, which is made when its turn has come. It
/// may get lost.
///
/// # Errors
/// [`StatusError`].
pub async fn post_status(
    publisher: &Publisher,
    names: &Names,
    status: impl FnOnce() -> TaskStatus,
    envelope: Envelope<'_>,
) -> Result<(), StatusError> {
    let turn = publisher.turn().await?;
    let status = status();
    let message = status_message(&status, envelope)?;
    let exchange = names.events();
    let send = |turn: Turn<'_>, audience| {
        let route = Route {
            exchange: &exchange,
            key: &status_key(&status, audience)?,
            mandatory: false,
        };
        turn.send(route, &message).map_err(StatusError::from)
    };
    send(turn, Audience::User(status.user_id.clone()))?;
    if let Some(room) = envelope.room {
        send(publisher.turn().await?, Audience::Room(room.to_owned()))?;
    }
    Ok(())
}

fn status_message(status: &TaskStatus, envelope: Envelope<'_>) -> Result<Message, EventError> {
    let id = envelope.id.unwrap_or_else(Uuid::now_v7);
    let event = Event::new(TASK_STATUS_CHANGED, id, status.timestamp, status)?;
    Ok(Message {
        body: event.to_bytes()?,
        id: Some(event.id.to_string()),
        kind: Some(event.kind),
        headers: envelope.headers(),
        persistent: status.status.is_final(),
        ..Message::default()
    })
}

fn status_key(status: &TaskStatus, audience: Audience) -> Result<String, KeyError> {
    let key = EventKey {
        class: if status.status.is_final() {
            EventClass::Stored
        } else {
            EventClass::Live
        },
        audience,
        topic: format!("{TASK_STATUS_CHANGED}.{}", status.status.as_str()),
    };
    key.encode()
}

/// Publishes something that only matters to those who look on now, such as log lines, to a task's
/// owner and to its room if it has one.
///
/// # Errors
/// [`StatusError`].
pub async fn publish_live(
    publisher: &Publisher,
    names: &Names,
    kind: &str,
    data: &impl Serialize,
    user: &str,
    room: Option<&str>,
) -> Result<(), StatusError> {
    let event = Event::new(kind, Uuid::now_v7(), Timestamp::now(), data)?;
    let message = Message {
        body: event.to_bytes()?,
        id: Some(event.id.to_string()),
        kind: Some(event.kind),
        ..Message::default()
    };
    let exchange = names.events();
    let owner = Audience::User(user.to_owned());
    let room = room.map(|room| Audience::Room(room.to_owned()));
    for audience in std::iter::once(owner).chain(room) {
        let key = EventKey {
            class: EventClass::Live,
            audience,
            topic: kind.to_owned(),
        };
        let route = Route {
            exchange: &exchange,
            key: &key.encode()?,
            mandatory: false,
        };
        publisher.publish(route, &message).await?;
    }
    Ok(())
}
