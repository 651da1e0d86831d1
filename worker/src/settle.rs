//! Settling: the outcome is with the broker before the job is acknowledged.

use std::time::Duration;

use bellhop_common::amqp::{Message, Properties, PublishError, Receipt, Route};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::enqueue::{StatusError, publish_status};
use bellhop_common::wire::{TaskError, TaskStatus, cut, header};
use jiff::Timestamp;
use tracing::{debug, error, warn};

use crate::service::Service;

/// Between two attempts to hand an outcome over.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(10),
};

/// AMQP headers share one frame with the properties; a long error is cut.
const MAX_ERROR_BYTES: usize = 1024;

/// What a dead letter keeps of its message.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    body: Vec<u8>,
    properties: Properties,
}

impl Letter {
    pub(crate) fn new(body: Vec<u8>, properties: Properties) -> Self {
        Self { body, properties }
    }

    /// Which attempt the delivery is, by our own header: the broker's counters do not survive a
    /// republish.
    pub(crate) fn attempt(&self) -> u32 {
        self.number(header::ATTEMPT).unwrap_or(1).max(1)
    }

    /// How often the broker delivered it before without an answer.
    pub(crate) fn redeliveries(&self) -> u32 {
        self.number("x-delivery-count").unwrap_or(0)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.properties.headers.get(name)?.parse().ok()
    }

    fn into_message(self, queue: &str, error: &TaskError, now: Timestamp) -> Message {
        let attempt = self.attempt();
        let mut headers = self.properties.headers_to_keep();
        let message = cut(&error.message, MAX_ERROR_BYTES);
        for (name, value) in [
            (header::ATTEMPT, attempt.to_string()),
            (header::REASON, error.code.clone()),
            (header::ERROR, message.to_owned()),
            (header::QUEUE, queue.to_owned()),
            (header::DIED_AT, now.to_string()),
        ] {
            headers.insert(name.to_owned(), value);
        }
        Message {
            body: self.body,
            id: self.properties.message_id,
            kind: self.properties.kind,
            headers,
            persistent: true,
            ..Message::default()
        }
    }
}

/// The worker had no more time to hand an outcome over; its message goes back unsettled.
#[derive(Debug)]
pub(crate) struct OutOfTime;

/// Where a dead letter is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Buried {
    /// With its reason, and its message can be acknowledged.
    WithReason,
    /// Nowhere yet: it is too large to be published again. Its message must be rejected, which
    /// moves it as it is.
    OnlyByReject,
}

/// Puts a message into the dead letters; tries until the broker has it.
pub(crate) async fn bury(
    service: &Service,
    queue: &str,
    letter: Letter,
    error: &TaskError,
) -> Result<Buried, OutOfTime> {
    let message = letter.into_message(queue, error, Timestamp::now());
    let exchange = service.names.dead();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    let placed = persevere(service, "the dead letter", || {
        service.publisher.publish(route, &message)
    });
    Ok(match placed.await? {
        Ok(()) => Buried::WithReason,
        Err(error) => {
            warn!(%error, "the message goes to the dead letters without its reason");
            Buried::OnlyByReject
        }
    })
}

/// Tells the owner the end; tries until the broker has it.
pub(crate) async fn tell_end(
    service: &Service,
    status: &TaskStatus,
    room: Option<&str>,
) -> Result<(), OutOfTime> {
    let placed = persevere(service, "the final event", || async {
        match publish_status(&service.publisher, &service.names, status, room).await {
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
    if let Err(error) = placed.await? {
        error!(%error, task_id = status.task_id, "the owner cannot be told");
    }
    Ok(())
}

/// Settles according to where the dead letter is, if there is one.
pub(crate) async fn settle_receipt(receipt: Receipt, buried: &Buried, task_id: &str) {
    match buried {
        Buried::WithReason => acknowledge(receipt, task_id).await,
        Buried::OnlyByReject => {
            if let Err(error) = receipt.reject().await {
                debug!(%error, task_id, "the rejection was lost; the message will return");
            }
        }
    }
}

/// Acknowledges. A failure only means that the message returns, and is recognised then.
pub(crate) async fn acknowledge(receipt: Receipt, task_id: &str) {
    if let Err(error) = receipt.ack().await {
        debug!(%error, task_id, "the acknowledgement was lost; the message will return");
    }
}

/// Tries until the broker has it, or has an error that no repetition mends.
async fn persevere<F>(
    service: &Service,
    what: &str,
    attempt: impl Fn() -> F,
) -> Result<Result<(), PublishError>, OutOfTime>
where
    F: Future<Output = Result<(), PublishError>>,
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
        () = service.abandon.cancelled() => Err(OutOfTime),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_letter_carries_its_reason_and_what_it_came_with() {
        let headers = [
            ("traceparent", "00-ab"),
            ("x-delivery-count", "12"),
            ("x-death", "much"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let properties = Properties {
            message_id: Some("t1".into()),
            kind: Some("k".into()),
            headers: headers.into(),
            ..Properties::default()
        };
        let letter = Letter::new(b"{}".to_vec(), properties);
        assert_eq!(letter.redeliveries(), 12);
        let now = "2026-01-15T10:30:00Z".parse().unwrap();
        let error = TaskError::new("exit_3", "ü".repeat(2000));
        let message = letter.into_message("default", &error, now);
        assert_eq!(message.headers["traceparent"], "00-ab");
        assert!(
            !message.headers.contains_key("x-delivery-count"),
            "a replay starts afresh"
        );
        assert_eq!(message.headers["x-bellhop-reason"], "exit_3");
        assert_eq!(message.headers["x-bellhop-queue"], "default");
        assert_eq!(message.headers["x-bellhop-attempt"], "1");
        assert_eq!(message.headers["x-bellhop-died-at"], "2026-01-15T10:30:00Z");
        assert_eq!(message.headers["x-bellhop-error"].len(), MAX_ERROR_BYTES);
        assert!(message.persistent);
    }
}
