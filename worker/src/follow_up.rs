//! The jobs that follow a job's end.

use bellhop_common::amqp::{Copies, Message, Properties, PublishError, Route};
use bellhop_common::follow_up;
use bellhop_common::wire::{Ending, Job, Parent, Status, TaskError, TaskStatus};
use jiff::Timestamp;
use tracing::warn;

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
        let job = follow_up.job(&Parent::job(&parent.job), ending, index);
        let queue = follow_up.queue.as_deref().unwrap_or(&parent.queue);
        let (end, trace) = (parent.end_id(), parent.traceparent());
        match follow_up::write(&job, end, in_doubt, trace, Timestamp::now()) {
            Ok(message) => put_in(service, queue, &job, message).await?,
            Err(error) => {
                let task_id = &parent.job.id;
                warn!(%error, task_id, kind = job.kind, "a follow-up is no job");
            }
        }
    }
    Ok(())
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
    let copies = Copies::of(message);
    let placed = persevere(service, "a follow-up", || async {
        match service.publisher.publish(route, copies.next()).await {
            Err(PublishError::Unroutable { .. }) => Ok(false),
            placed => placed.map(|()| true),
        }
    });
    let error = match placed.await? {
        Ok(true) => {
            follow_up::announce(&service.publisher, &service.names, job, Timestamp::now()).await;
            return Ok(());
        }
        Ok(false) => follow_up::no_such_queue(queue),
        Err(error) => TaskError::new("too_large", error.to_string()),
    };
    let task_id = &job.id;
    warn!(
        task_id,
        error = error.message,
        "a follow-up goes to the dead letters"
    );
    let message = copies.into_first();
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
