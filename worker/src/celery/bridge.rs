//! Moves tasks from Celery's queues into ours.
//!
//! A task is not run from where it came: once it is a job in a queue of ours, everything that holds
//! for jobs holds for it, such as the count of its deliveries, which Celery's classic queues do not
//! have. Between the confirm for the new message and the acknowledgement of the old one a crash
//! leaves both; the second then says of itself that it may be one.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Copies, Delivery, Message, Properties, Receipt, Route, Source, Subscription, Topology,
};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::telemetry::Health;
use bellhop_common::wire::header;
use jiff::Timestamp;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::message::translate;
use crate::intake::give_up;
use crate::message::Unreadable;
use crate::service::Service;
use crate::settle::acknowledge;

/// How many tasks of a queue are on their way at once.
const UNDER_WAY: u16 = 16;

/// Between two attempts to put a task into our queue.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(10),
};

/// Owns the connection that takes from Celery's queues.
#[derive(Debug)]
pub(crate) struct Bridge(Consumer);

impl Bridge {
    /// Starts to take tasks from the configured queues, if there are any; returns at once.
    pub(crate) fn start(service: &Arc<Service>, health: &Health) -> Option<Self> {
        let queues = &service.config.celery.queues;
        if queues.is_empty() {
            return None;
        }
        let (mut topology, mut subscriptions) = (Topology::default(), Vec::new());
        for (name, settings) in queues {
            topology = topology.with_celery_queue(name, settings.queue_kind());
            let (sender, deliveries) = mpsc::channel(1);
            let source = Source::Queue(name.clone());
            subscriptions.push(Subscription::new(source, UNDER_WAY, sender));
            let (service, queue) = (Arc::clone(service), settings.queue.clone());
            let tracker = service.tracker.clone();
            tracker.spawn(take(service, queue, deliveries));
        }
        info!(queues = ?queues.keys(), "taking tasks from Celery's queues");
        let component = health.component("amqp.celery");
        let config = &service.config.amqp;
        let consumer = Consumer::start(config, "celery", topology, subscriptions, component);
        Some(Self(consumer))
    }

    /// Takes no more.
    pub(crate) fn stop_intake(&self) {
        self.0.stop_intake();
    }

    /// Closes the connection; what is still under way stays in its queue.
    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

async fn take(service: Arc<Service>, queue: String, mut deliveries: mpsc::Receiver<Delivery>) {
    // The prefetch holds no more back than that; but after a lost connection the broker sends as
    // many again while the old ones are still tried.
    let places = Arc::new(Semaphore::new(usize::from(UNDER_WAY)));
    loop {
        let delivery = tokio::select! {
            biased;
            () = service.stop.cancelled() => return,
            delivery = deliveries.recv() => delivery,
        };
        let Some(delivery) = delivery else { return };
        let place = tokio::select! {
            biased;
            () = service.stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let (carrier, queue) = (Arc::clone(&service), queue.clone());
        service.tracker.spawn(async move {
            carry(&carrier, &queue, delivery).await;
            drop(place);
        });
    }
}

async fn carry(service: &Service, queue: &str, delivery: Delivery) {
    let Delivery {
        body,
        properties,
        receipt,
        redelivered,
        ..
    } = delivery;
    let default_user = service.config.celery.user_id.as_deref();
    match translate(body, properties, default_user) {
        Ok((body, properties)) => {
            let message = message(body, properties, redelivered, Timestamp::now());
            place(service, queue, message, receipt).await;
        }
        Err(no_task) => give_up(service, Unreadable::task(queue, *no_task), receipt).await,
    }
}

fn message(body: Vec<u8>, properties: Properties, redelivered: bool, now: Timestamp) -> Message {
    let mut headers = properties.headers_to_keep();
    // The same when the task is carried over a second time; another when Celery sends it again.
    let stamp = properties.timestamp.map(|time| time.to_string());
    let attempt = headers.get(header::ATTEMPT).cloned();
    let origin = stamp.or(attempt).unwrap_or_default();
    headers.insert(header::ORIGIN.to_owned(), format!("celery/{origin}"));
    headers.insert(header::SINCE.to_owned(), now.to_string());
    if redelivered {
        headers.insert(header::ONCE.to_owned(), "1".to_owned());
    }
    Message {
        body,
        id: properties.message_id,
        kind: properties.kind,
        priority: properties.priority,
        timestamp: properties.timestamp,
        headers,
        persistent: true,
        ..Message::default()
    }
}

/// Puts a job into our queue and lets the task go; tries until the broker has it.
async fn place(service: &Service, queue: &str, message: Message, receipt: Receipt) {
    let exchange = service.names.jobs();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    let id = message.id.clone().unwrap_or_default();
    let (task_id, copies) = (id.as_str(), Copies::of(message));
    let placing = async {
        let mut failures = 0;
        loop {
            match service.publisher.pass_on(route, copies.next()).await {
                Ok(()) => return true,
                Err(error) if error.is_permanent() => {
                    error!(%error, task_id, "a task stays in Celery's queue");
                    return false;
                }
                Err(error) => warn!(%error, task_id, "a task is still in Celery's queue"),
            }
            sleep(RETRY.pause(failures, jitter())).await;
            failures += 1;
        }
    };
    let placed = service.abandon.run_until_cancelled(placing).await;
    if placed == Some(true) {
        acknowledge(receipt, task_id).await;
    }
}
