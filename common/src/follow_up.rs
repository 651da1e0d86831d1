//! Putting in the jobs that follow an end, so that who repeats it after a crash puts in the same.

use jiff::Timestamp;
use thiserror::Error;
use tracing::debug;
use uuid::Uuid;

use crate::amqp::{Message, Names, Publisher};
use crate::dead_letters::bury;
use crate::enqueue::{Envelope, accepted, message, publish_status};
use crate::wire::{Job, JobError, TaskError, header};

/// Why a follow-up is no job.
#[derive(Debug, Error)]
pub enum FollowUpError {
    /// It asks for something that no job may.
    #[error(transparent)]
    Job(#[from] JobError),
    /// It cannot be written as JSON.
    #[error("the job cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// The message of a job that follows an end. The end's id tells the worker that a repeat is one;
/// `once` has it look whether it is.
///
/// # Errors
/// [`FollowUpError`].
pub fn write(
    job: &Job,
    end: Uuid,
    once: bool,
    traceparent: Option<&str>,
    now: Timestamp,
) -> Result<Message, FollowUpError> {
    job.check()?;
    let mut message = message(job, now)?;
    let end = end.to_string();
    let trace = traceparent.map(|trace| (header::TRACEPARENT, trace));
    let once = once.then_some((header::ONCE, "1"));
    let origin = Some((header::ORIGIN, end.as_str()));
    for (name, value) in trace.into_iter().chain(once).chain(origin) {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(message)
}

/// Why a follow-up cannot be in its queue.
#[must_use]
pub fn no_such_queue(queue: &str) -> TaskError {
    let text = format!("no worker serves the queue `{queue}`");
    TaskError::new("no_such_queue", text)
}

/// The message of a follow-up as a dead letter.
#[must_use]
pub fn dead(mut message: Message, queue: &str, error: &TaskError, now: Timestamp) -> Message {
    bury(&mut message, queue, error, now);
    message
}

/// Tells the owner of a follow-up that it is in its queue, as well as can be.
pub async fn announce(publisher: &Publisher, names: &Names, job: &Job, now: Timestamp) {
    let envelope = Envelope {
        room: job.room_id.as_deref(),
        ..Envelope::default()
    };
    let status = accepted(job, now);
    let told = publish_status(publisher, names, &status, envelope);
    if let Err(error) = told.await {
        debug!(%error, task_id = job.id, "a follow-up was not announced");
    }
}
