//! The jobs that follow a job's end.

use bellhop_common::amqp::{Message, Properties, PublishError, Route};
use bellhop_common::enqueue::{Envelope, accepted, message as message_of, publish_status};
use bellhop_common::wire::{Ending, Job, Status, TaskError, TaskStatus, header};
use jiff::Timestamp;
use tracing::{debug, warn};

use crate::message::JobMessage;
use crate::service::Service;
use crate::settle::{OutOfTime, bury, persevere};

/// Puts in what follows this end; `in_doubt` if it may have been put in before.
pub(crate) async fn follow(
    service: &Service,
    parent: &JobMessage,
    status: &TaskStatus,
    in_doubt: bool,
) -> Result<(), OutOfTime> {
    let (follow_ups, ending) = match (status.status, &status.result, &status.error) {
        (Status::Succeeded, Some(result), _) => (&parent.job.then, Ending::Succeeded(result)),
        (Status::Failed, _, Some(error)) => (&parent.job.on_failure, Ending::Failed(error)),
        // A cancelled job has no sequel.
        _ => return Ok(()),
    };
    for (index, follow_up) in follow_ups.iter().enumerate() {
        let job = follow_up.job(&parent.job, ending, index);
        let queue = follow_up.queue.as_deref().unwrap_or(&parent.queue);
        match write(parent, &job, in_doubt) {
            Ok(message) => put_in(service, queue, &job, message).await?,
            Err(error) => {
                let task_id = &parent.job.id;
                warn!(error, task_id, kind = job.kind, "a follow-up is no job");
            }
        }
    }
    Ok(())
}

fn write(parent: &JobMessage, job: &Job, in_doubt: bool) -> Result<Message, String> {
    job.check().map_err(|error| error.to_string())?;
    let mut message = message_of(job, Timestamp::now()).map_err(|error| error.to_string())?;
    let trace = parent
        .traceparent()
        .map(|trace| (header::TRACEPARENT, trace));
    let once = in_doubt.then_some((header::ONCE, "1"));
    let end = parent.end_id().to_string();
    let origin = Some((header::ORIGIN, end.as_str()));
    for (name, value) in trace.into_iter().chain(once).chain(origin) {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    Ok(message)
}

async fn put_in(
    service: &Service,
    queue: &str,
    job: &Job,
    message: Message,
) -> Result<(), OutOfTime> {
    let exchange = service.names.jobs();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    let placed = persevere(service, "a follow-up", || async {
        match service.publisher.publish(route, &message).await {
            Err(PublishError::Unroutable { .. }) => Ok(false),
            placed => placed.map(|()| true),
        }
    });
    let error = match placed.await? {
        Ok(true) => {
            announce(service, job).await;
            return Ok(());
        }
        Ok(false) => {
            let text = format!("no worker serves the queue `{queue}`");
            TaskError::new("no_such_queue", text)
        }
        Err(error) => TaskError::new("too_large", error.to_string()),
    };
    let task_id = &job.id;
    warn!(
        task_id,
        error = error.message,
        "a follow-up goes to the dead letters"
    );
    let properties = Properties {
        headers: message.headers,
        ..Properties::default()
    };
    if let Ok(child) = JobMessage::read(queue, message.body, properties) {
        let letter = child.dead(&error, Timestamp::now());
        if let Err(error) = bury(service, queue, &letter).await? {
            warn!(%error, task_id, "a follow-up is lost");
        }
    }
    Ok(())
}

async fn announce(service: &Service, job: &Job) {
    let envelope = Envelope {
        room: job.room_id.as_deref(),
        ..Envelope::default()
    };
    let status = accepted(job, Timestamp::now());
    let told = publish_status(&service.publisher, &service.names, &status, envelope);
    if let Err(error) = told.await {
        debug!(%error, task_id = job.id, "a follow-up was not announced");
    }
}
