//! From the alert queue to the channel: nothing is lost while Mattermost is away, because a message
//! stays in the queue until its post is in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_common::amqp::{Delivery, Message, PublishError, Route};
use bellhop_common::backoff::jitter;
use bellhop_common::telemetry::with_causes;
use bellhop_common::wire::{Event, TaskStatus, cut, header};
use jiff::Timestamp;
use metrics::counter;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::mattermost::Outage;
use super::{FailedTask, Mattermost, Post, PostError, retry_pause};
use crate::gateway::Gateway;
use crate::metric;

/// Failed tasks, by their owner's event: one alert each, also for a task that has a room.
pub(crate) const PATTERN: &str = "stored.user.*.task.status_changed.failed";

/// Mattermost answers 500 also to a post whose content it cannot take. After so many the message
/// goes to the end of the queue, so that it holds no other up.
const STEP_ASIDE_AFTER: u32 = 5;

/// RabbitMQ closes the channel of a consumer that holds a message for 30 minutes. Given back, the
/// message comes again at once, with the time anew.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// AMQP headers share one frame with the properties.
const MAX_REASON_BYTES: usize = 1024;

/// Posts every alert until `stop`; what is not posted by then stays in the queue.
pub(crate) async fn dispatch(
    gateway: Arc<Gateway>,
    client: Mattermost,
    mut deliveries: mpsc::Receiver<Delivery>,
    stop: CancellationToken,
) {
    let working = async {
        let mut patience = Patience::default();
        while let Some(delivery) = deliveries.recv().await {
            post_one(&gateway, &client, delivery, &mut patience).await;
        }
    };
    tokio::select! {
        () = working => {}
        () = stop.cancelled() => {}
    }
}

/// What is known of Mattermost's state, over all messages.
#[derive(Debug, Default)]
struct Patience {
    /// Failures since the last success, which the pauses grow with.
    failures: u32,
    /// When Mattermost may be asked again.
    not_before: Option<Instant>,
}

async fn post_one(
    gateway: &Gateway,
    client: &Mattermost,
    delivery: Delivery,
    patience: &mut Patience,
) {
    let since = Instant::now();
    let mut refusals = 0;
    let status = match read(&delivery.body) {
        Ok(status) => status,
        Err(reason) => return bury(gateway, delivery, "unreadable", &reason).await,
    };
    let post = compose(gateway, &status);
    loop {
        if !wait_until(patience.not_before, since + HOLD_AT_MOST).await {
            return give_back(delivery).await;
        }
        let error = match client.post(&post).await {
            Ok(()) => {
                *patience = Patience::default();
                counter!(metric::ALERTS, "outcome" => "posted").increment(1);
                info!(
                    task_id = status.task_id,
                    "a failure was posted to Mattermost"
                );
                return settle(delivery).await;
            }
            Err(PostError::Refused { status, reason }) => {
                let reason = format!("Mattermost answered {status}: {reason}");
                return bury(gateway, delivery, "alert_refused", &reason).await;
            }
            Err(error) => error,
        };
        patience.failures = patience.failures.saturating_add(1);
        let pause = retry_pause(&error, patience.failures, jitter());
        patience.not_before = Some(Instant::now() + pause);
        counter!(metric::ALERTS, "outcome" => "delayed").increment(1);
        warn!(
            error = with_causes(&error),
            ?pause,
            "an alert waits in its queue"
        );
        refusals += u32::from(is_internal_error(&error));
        if refusals >= STEP_ASIDE_AFTER {
            match step_aside(gateway, &delivery).await {
                Ok(()) => return settle(delivery).await,
                Err(error) => warn!(%error, "the alert could not step aside"),
            }
        }
    }
}

/// Waits until a time, but not longer than to the limit; whether the time has come.
async fn wait_until(time: Option<Instant>, limit: Instant) -> bool {
    let Some(time) = time else { return true };
    tokio::time::sleep_until(time.min(limit).into()).await;
    time <= limit
}

fn read(body: &[u8]) -> Result<TaskStatus, String> {
    let event = Event::parse(body).map_err(|error| error.to_string())?;
    let data = event.data.as_deref().map_or("null", RawValue::get);
    serde_json::from_str(data)
        .map_err(|error| format!("the event's data is not a task's status: {error}"))
}

fn compose(gateway: &Gateway, status: &TaskStatus) -> Post {
    let config = &gateway.config.mattermost;
    let link = config
        .task_url
        .as_ref()
        .map(|url| url.replace("{task_id}", &percent_encode(&status.task_id)));
    let (code, message) = status
        .error
        .as_ref()
        .map_or(("", ""), |error| (&error.code, &error.message));
    let time = status
        .timestamp
        .strftime("%Y-%m-%d %H:%M:%S UTC")
        .to_string();
    let task = FailedTask {
        kind: &status.kind,
        title: status.title.as_deref(),
        task_id: &status.task_id,
        owner: &status.user_id,
        error_code: code,
        error_message: message,
        attempt: status.attempt,
        max_attempts: status.max_attempts,
        time: &time,
        link: link.as_deref(),
    };
    Post::failed(&task, config.channel.as_deref(), None)
}

/// A task's id may be any text; in an address only RFC 3986's unreserved characters are safe.
pub(crate) fn percent_encode(text: &str) -> String {
    let encode = |byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    text.bytes().map(encode).collect()
}

fn is_internal_error(error: &PostError) -> bool {
    matches!(
        error,
        PostError::Unavailable {
            outage: Outage::Answer { status: 500, .. },
            ..
        }
    )
}

/// Puts a copy at the end of the queue.
async fn step_aside(gateway: &Gateway, delivery: &Delivery) -> Result<(), PublishError> {
    let queue = gateway.names.alerts();
    // The default exchange routes by the queue's name; the event's own key is not needed again.
    let route = Route {
        exchange: "",
        key: &queue,
        mandatory: true,
    };
    gateway.publisher.publish(route, &copy(delivery)).await
}

/// Puts the message into the dead letters with the reason.
async fn bury(gateway: &Gateway, delivery: Delivery, code: &str, reason: &str) {
    counter!(metric::ALERTS, "outcome" => "refused").increment(1);
    error!(reason, "an alert goes to the dead letters");
    let mut message = copy(&delivery);
    let reason = cut(reason, MAX_REASON_BYTES);
    let died_at = Timestamp::now().to_string();
    for (name, value) in [
        (header::REASON, code),
        (header::ERROR, reason),
        (header::DIED_AT, died_at.as_str()),
    ] {
        message.headers.insert(name.to_owned(), value.to_owned());
    }
    let exchange = gateway.names.dead();
    let route = Route {
        exchange: &exchange,
        key: "alerts",
        mandatory: true,
    };
    match gateway.publisher.publish(route, &message).await {
        Ok(()) => settle(delivery).await,
        Err(error) => {
            warn!(%error, "the dead letter is not with the broker; the alert returns");
            give_back(delivery).await;
        }
    }
}

fn copy(delivery: &Delivery) -> Message {
    Message {
        body: delivery.body.clone(),
        id: delivery.properties.message_id.clone(),
        kind: delivery.properties.kind.clone(),
        headers: delivery.properties.headers_to_keep(),
        persistent: true,
        ..Message::default()
    }
}

async fn give_back(delivery: Delivery) {
    if let Err(error) = delivery.receipt.requeue().await {
        debug!(%error, "the alert returns when the broker is back");
    }
}

async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.receipt.ack().await {
        // A second post of the same failure is better than none.
        debug!(%error, "an acknowledgement was lost; the alert will be posted again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_any_text_is_safe_in_an_address() {
        assert_eq!(percent_encode("0197-a_b.c~"), "0197-a_b.c~");
        assert_eq!(
            percent_encode("a b/../?#<ü>"),
            "a%20b%2F..%2F%3F%23%3C%C3%BC%3E"
        );
    }
}
