//! Settling: the outcome is with the broker before the job is acknowledged.

use std::time::Duration;

use bellhop_common::amqp::{Copies, Message, PublishError, Receipt, Route};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::enqueue::{Envelope, StatusError, give_order, publish_status};
use bellhop_common::wire::{Order, TaskStatus, header};
use jiff::Timestamp;
use tracing::{debug, error, warn};

use crate::ledger::CLAIMED;
use crate::message::{Again, JobMessage};
use crate::service::Service;

/// Between two attempts to hand an outcome over.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(10),
};

/// The worker had no more time to hand an outcome over; its message goes back unsettled.
#[derive(Debug)]
pub(crate) struct OutOfTime;

/// An outcome that the broker has, or will never take.
pub(crate) type Placed = Result<Result<(), PublishError>, OutOfTime>;

/// Puts the successor of a message into the delay ladder.
pub(crate) async fn place(service: &Service, message: &JobMessage, again: &Again) -> Placed {
    let delayed = message.again(again, Timestamp::now());
    if let Some(level) = delayed.level {
        raise_ladder(service, level).await?;
    }
    let exchange = service.names.delay();
    let route = Route {
        exchange: &exchange,
        key: &delayed.key,
        mandatory: true,
    };
    let copies = Copies::of(delayed.message);
    persevere(service, "a delayed job", || {
        service.publisher.publish(route, copies.next())
    })
    .await
}

/// Makes sure that the ladder is high enough.
async fn raise_ladder(service: &Service, level: u8) -> Result<(), OutOfTime> {
    let raised = persevere(service, "the delay ladder", || {
        service
            .rungs
            .raise(&service.publisher, &service.names, level)
    });
    // No error is permanent here: those are about messages.
    drop(raised.await?);
    Ok(())
}

/// Notes in the ledger that an attempt begins. Without it nobody could tell a message whose attempt
/// killed a worker from one that waited there.
pub(crate) async fn note_begun(service: &Service, message: &JobMessage) -> Result<(), OutOfTime> {
    note(service, message, "1").await
}

/// Notes in the ledger that a job has its unique key. When its message comes back, the window may be
/// over, and the key somebody else's.
pub(crate) async fn note_claimed(service: &Service, message: &JobMessage) -> Result<(), OutOfTime> {
    note(service, message, CLAIMED).await
}

async fn note(service: &Service, message: &JobMessage, begun: &str) -> Result<(), OutOfTime> {
    let ledger = service.names.settled();
    let route = Route {
        exchange: "",
        key: &ledger,
        mandatory: false,
    };
    let headers = [
        (header::SETTLED, message.settlement().to_string()),
        (header::BEGUN, begun.to_owned()),
    ];
    let note = Message {
        headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        ..Message::default()
    };
    let noted = persevere(service, "a note in the ledger", || {
        service.publisher.publish(route, &note)
    });
    // No error is permanent here: those are about large messages.
    drop(noted.await?);
    Ok(())
}

/// Puts a message into the dead letters.
pub(crate) async fn bury(service: &Service, queue: &str, message: &Message) -> Placed {
    let exchange = service.names.dead();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    persevere(service, "the dead letter", || {
        service.publisher.publish(route, message)
    })
    .await
}

/// The same with a message of any size that nobody could read: it may come from a queue of Celery's,
/// which has no dead letters, so that it would be lost if it was rejected.
pub(crate) async fn bury_unread(service: &Service, queue: &str, message: &Message) -> Placed {
    let exchange = service.names.dead();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    persevere(service, "the dead letter", || {
        service.publisher.pass_on(route, message)
    })
    .await
}

/// Tells the owner the end.
pub(crate) async fn tell_end(
    service: &Service,
    message: &JobMessage,
    status: &TaskStatus,
) -> Result<(), OutOfTime> {
    let job = &message.job;
    let sequel = job.group.as_ref();
    let sequel = sequel.map(|group| group.sequel(job, &message.queue));
    let envelope = Envelope {
        room: job.room_id.as_deref(),
        id: Some(message.end_id()),
        settled: Some(message.settlement()),
        traceparent: message.traceparent(),
        sequel: sequel.as_ref(),
    };
    service.monitor.tell(status, message);
    let told = persevere(service, "the final event", || async {
        match publish_status(&service.publisher, &service.names, status, envelope).await {
            Ok(()) => Ok(()),
            Err(StatusError::Publish(error)) => Err(error),
            // No repetition mends these; the job's end does not depend on them.
            Err(StatusError::Key(error)) => {
                error!(%error, task_id = status.task_id, "the owner cannot be told");
                Ok(())
            }
            Err(StatusError::Event(error)) => {
                error!(%error, task_id = status.task_id, "the owner cannot be told");
                Ok(())
            }
        }
    });
    if let Err(error) = told.await? {
        error!(%error, task_id = status.task_id, "the owner cannot be told");
    }
    Ok(())
}

/// Tells the owner something on the way, as well as can be.
pub(crate) async fn tell(service: &Service, message: &JobMessage, status: &TaskStatus) {
    service.monitor.tell(status, message);
    let envelope = Envelope {
        room: message.job.room_id.as_deref(),
        traceparent: message.traceparent(),
        ..Envelope::default()
    };
    let told = publish_status(&service.publisher, &service.names, status, envelope);
    if let Err(error) = told.await {
        debug!(%error, task_id = status.task_id, "a status was not sent");
    }
}

/// Answers whoever waits for the result in a queue of its own. Nobody may be there any more, and
/// the end of a job does not wait for a queue that its producer chose: what that queue refuses, or
/// does not confirm in time, is given up.
pub(crate) async fn reply(
    service: &Service,
    message: &JobMessage,
    status: &TaskStatus,
) -> Result<(), OutOfTime> {
    let Some((queue, correlation_id)) = message.reply_to() else {
        return Ok(());
    };
    let answer = Message {
        // A status was JSON before.
        body: serde_json::to_vec(status).unwrap_or_default(),
        id: Some(message.end_id().to_string()),
        correlation_id: correlation_id.map(str::to_owned),
        persistent: true,
        ..Message::default()
    };
    let route = Route {
        exchange: "",
        key: queue,
        mandatory: false,
    };
    let answered = persevere(service, "the answer", || async {
        let connection = service.publisher.generation();
        match service.publisher.publish(route, &answer).await {
            Err(error @ PublishError::Refused { .. }) => Ok(Err(error)),
            // With a broker that was away all the while, the end waits anyway.
            Err(error @ PublishError::Timeout { .. })
                if connection > 0 && connection == service.publisher.generation() =>
            {
                Ok(Err(error))
            }
            answered => answered.map(Ok),
        }
    });
    if let Err(error) = answered.await?.and_then(|answered| answered) {
        warn!(%error, queue, task_id = status.task_id, "the answer is not sent");
    }
    Ok(())
}

/// Gives an order to all workers.
pub(crate) async fn order(service: &Service, order: &Order) -> Placed {
    persevere(service, "an order", || {
        give_order(&service.publisher, &service.names, order)
    })
    .await
}

/// Acknowledges. A failure only means that the message returns, and is recognised then.
pub(crate) async fn acknowledge(receipt: Receipt, task_id: &str) {
    if let Err(error) = receipt.ack().await {
        debug!(%error, task_id, "the acknowledgement was lost; the message will return");
    }
}

/// Sends a message to the dead letters as it is: it is too large to be published again.
pub(crate) async fn reject(receipt: Receipt, task_id: &str) {
    if let Err(error) = receipt.reject().await {
        debug!(%error, task_id, "the rejection was lost; the message will return");
    }
}

/// Tries until the broker has it, or has an error that no repetition mends.
pub(crate) async fn persevere<T, F>(
    service: &Service,
    what: &str,
    attempt: impl Fn() -> F,
) -> Result<Result<T, PublishError>, OutOfTime>
where
    F: Future<Output = Result<T, PublishError>>,
{
    let trying = async {
        let mut failures = 0;
        loop {
            match attempt().await {
                Err(error) if !error.is_permanent() => {
                    warn!(%error, "{what} is not with the broker yet, trying again");
                }
                placed => return placed,
            }
            tokio::time::sleep(RETRY.pause(failures, jitter())).await;
            failures += 1;
        }
    };
    tokio::select! {
        placed = trying => Ok(placed),
        () = service.out_of_time() => Err(OutOfTime),
    }
}
