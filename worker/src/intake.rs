//! From a delivery to a visit: what it is, and whether it is in hand already.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bellhop_common::amqp::{Delivery, Receipt};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use metrics::counter;
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use crate::celery::as_native;
use crate::in_hand::Arrival;
use crate::message::{JobMessage, Unreadable};
use crate::metric;
use crate::service::Service;
use crate::settle::{OutOfTime, acknowledge, bury_unread, reject};
use crate::visit::Visit;

/// A queue that this worker serves.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Its short name.
    pub(crate) queue: Arc<str>,
    /// Its index among those that share the places.
    pub(crate) index: usize,
    /// Whether its jobs come from other queues, because they came back too often.
    pub(crate) is_quarantine: bool,
}

/// Takes a queue's deliveries until the worker stops. The prefetch says how many there are at once.
pub(crate) async fn take(
    service: Arc<Service>,
    lane: Arc<Lane>,
    mut deliveries: mpsc::Receiver<Delivery>,
) {
    tokio::select! {
        () = service.orders.caught_up() => {}
        () = service.stop.cancelled() => return,
    }
    loop {
        let delivery = tokio::select! {
            // What has come is looked at even when the worker stops: its visit gives it back.
            biased;
            delivery = deliveries.recv() => delivery,
            () = service.quiet.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        take_one(&service, &lane, delivery).await;
    }
}

async fn take_one(service: &Arc<Service>, lane: &Arc<Lane>, delivery: Delivery) {
    let Delivery {
        body,
        redelivered,
        properties,
        receipt,
        ..
    } = delivery;
    let user = service.config.celery.user_id.as_deref();
    let read = as_native(body, properties, user)
        .map_err(|no_task| Box::new(Unreadable::task(&lane.queue, *no_task)))
        .and_then(|(body, properties)| JobMessage::read(Arc::clone(&lane.queue), body, properties));
    let message = match read {
        Ok(message) if lane.is_quarantine => message.isolated(),
        Ok(message) => message,
        Err(unreadable) => {
            let owned = Arc::clone(service);
            let burying = async move { give_up(&owned, *unreadable, receipt).await };
            service.tracker.spawn(burying);
            return;
        }
    };
    match service.in_hand.arrived(message, receipt, Instant::now()) {
        Arrival::Adopted(task_id) => info!(task_id, "still at it, the message is back"),
        Arrival::Duplicate(task_id, receipt) => {
            warn!(task_id, "the job was published twice, dropping the copy");
            acknowledge(receipt, &task_id).await;
        }
        Arrival::New(held) => {
            let (owned, lane) = (Arc::clone(service), Arc::clone(lane));
            let in_doubt = redelivered || held.message.is_suspect();
            let visit = Visit {
                lane,
                held,
                in_doubt,
            };
            service.tracker.spawn(async move {
                let working = AssertUnwindSafe(visit.work(&owned));
                // A handler's panic ends its attempt elsewhere; one of ours must not leave the job
                // in hand for ever.
                let worked = working.catch_unwind().await;
                let message = &visit.held.message;
                match worked {
                    Ok(Ok(())) => {}
                    // Only a job that has not begun gives up before it is told to.
                    Ok(Err(OutOfTime)) if !owned.abandon.is_cancelled() => {
                        return_unbegun(&owned, message).await;
                    }
                    // Unsettled: it goes back to its queue when the connection closes.
                    _ => {
                        drop(owned.in_hand.let_go(message));
                        debug!(task_id = message.job.id, "the job goes back to its queue");
                    }
                }
            });
        }
    }
}

/// The worker stops: another is to begin the job, and need not wait for what still runs here. Not
/// by the ladder, which would put it at the end of its queue.
async fn return_unbegun(service: &Service, message: &JobMessage) {
    service.quiet.cancelled().await;
    let task_id = &message.job.id;
    if let Some(receipt) = service.in_hand.let_go(message)
        && let Err(error) = receipt.requeue().await
    {
        debug!(%error, task_id, "the job was back in its queue before it was given back");
    }
    debug!(task_id, "not begun, the job goes back to its place");
}

pub(crate) async fn give_up(service: &Service, unreadable: Unreadable, receipt: Receipt) {
    let queue = unreadable.queue.clone();
    let error = unreadable.error.as_str();
    warn!(
        queue,
        error, "an unreadable message goes to the dead letters"
    );
    counter!(metric::UNREADABLE, "queue" => queue.clone()).increment(1);
    let letter = unreadable.dead(Timestamp::now());
    match bury_unread(service, &queue, &letter).await {
        Ok(Ok(())) => acknowledge(receipt, "unreadable").await,
        Ok(Err(_)) => reject(receipt, "unreadable").await,
        Err(OutOfTime) => {}
    }
}
