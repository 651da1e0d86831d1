//! From a delivery to its end: decode → run → settle.

use std::sync::Arc;
use std::time::Instant;

use bellhop_common::amqp::{Delivery, Receipt};
use bellhop_common::wire::{Job, JobProperties, TaskError};
use jiff::Timestamp;
use metrics::{Gauge, counter, gauge, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tracing::{info, warn};

use crate::celery::{as_native, why_no_job};
use crate::execution::{self, End};
use crate::feed::Feed;
use crate::in_hand::Arrival;
use crate::metric;
use crate::outcome::Outcome;
use crate::service::Service;
use crate::settle::{Buried, Letter, OutOfTime, acknowledge, bury, settle_receipt, tell_end};

/// Takes a queue's deliveries until the worker stops, running as many at once as `places` has.
pub(crate) async fn take(
    service: Arc<Service>,
    queue: String,
    concurrency: u16,
    mut deliveries: mpsc::Receiver<Delivery>,
) {
    // The prefetch holds new jobs back already; but after a lost connection the broker sends as
    // many again while the old ones still run.
    let places = Arc::new(Semaphore::new(usize::from(concurrency)));
    loop {
        let delivery = tokio::select! {
            // Stopping wins: a job not begun is better handed to another worker.
            biased;
            () = service.stop.cancelled() => return,
            delivery = deliveries.recv() => delivery,
        };
        let Some(delivery) = delivery else { return };
        let Some((job, letter, receipt, redelivered)) = read(&service, &queue, delivery) else {
            continue;
        };
        let now = Instant::now();
        match service.in_hand.arrived(&job.id, redelivered, receipt, now) {
            Arrival::Adopted => info!(task_id = job.id, "still running it, the message is back"),
            Arrival::Duplicate(receipt) => {
                warn!(
                    task_id = job.id,
                    "the job was published twice, dropping the copy"
                );
                acknowledge(receipt, &job.id).await;
            }
            Arrival::Ended(receipt) => {
                info!(task_id = job.id, "it ended already, the message is back");
                acknowledge(receipt, &job.id).await;
            }
            Arrival::New => {
                let place = tokio::select! {
                    biased;
                    () = service.stop.cancelled() => {
                        // Unsettled: it goes back to its queue when the connection closes.
                        drop(service.in_hand.abandoned(&job.id));
                        return;
                    }
                    place = Arc::clone(&places).acquire_owned() => place,
                };
                // The semaphore is never closed.
                let Ok(place) = place else { return };
                let (service, queue) = (Arc::clone(&service), queue.clone());
                let tracker = service.tracker.clone();
                tracker.spawn(async move { work(&service, &queue, job, letter, place).await });
            }
        }
    }
}

/// The job in a delivery. A message that is none is on its way to the dead letters.
fn read(
    service: &Arc<Service>,
    queue: &str,
    delivery: Delivery,
) -> Option<(Job, Letter, Receipt, bool)> {
    let Delivery {
        body,
        redelivered,
        properties,
        receipt,
        ..
    } = delivery;
    let user = service.config.celery.user_id.as_deref();
    let (body, properties) = match as_native(body, properties, user) {
        Ok(native) => native,
        Err(no_job) => {
            let letter = Letter::new(no_job.body, no_job.properties);
            refuse(service, queue, letter, no_job.error.to_string(), receipt);
            return None;
        }
    };
    let stand_ins = JobProperties {
        message_id: properties.message_id.clone(),
        kind: properties.kind.clone(),
        priority: properties.priority,
    };
    let parsed = Job::parse(&body, &stand_ins).map_err(|error| why_no_job(&body, &error));
    let letter = Letter::new(body, properties);
    match parsed {
        Ok(job) => Some((job, letter, receipt, redelivered)),
        Err(error) => {
            refuse(service, queue, letter, error, receipt);
            None
        }
    }
}

fn refuse(service: &Arc<Service>, queue: &str, letter: Letter, why: String, receipt: Receipt) {
    let error = TaskError::new("unreadable", why);
    let (service, queue) = (Arc::clone(service), queue.to_owned());
    let tracker = service.tracker.clone();
    tracker.spawn(async move {
        unreadable(&service, &queue, letter, error, receipt).await;
    });
}

async fn unreadable(
    service: &Service,
    queue: &str,
    letter: Letter,
    error: TaskError,
    receipt: Receipt,
) {
    warn!(
        queue,
        error = error.message,
        "an unreadable message goes to the dead letters"
    );
    counter!(metric::UNREADABLE, "queue" => queue.to_owned()).increment(1);
    if let Ok(buried) = bury(service, queue, letter, &error).await {
        settle_receipt(receipt, &buried, "unreadable").await;
    }
}

/// Counts a job as running until dropped.
struct Running(Gauge);

impl Running {
    fn begin(queue: &str) -> Self {
        let running = gauge!(metric::RUNNING, "queue" => queue.to_owned());
        running.increment(1.0);
        Self(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

async fn work(
    service: &Service,
    queue: &str,
    job: Job,
    letter: Letter,
    place: OwnedSemaphorePermit,
) {
    let _running = Running::begin(queue);
    let (began, attempt) = (Instant::now(), letter.attempt());
    let task_id = job.id.clone();
    let mut feed = Feed::new(job, attempt);
    let handler = service.registry.get(&feed.job().kind);
    // Of unknown kinds there may be any number; a metric must not have as many labels.
    let kind = match handler {
        Some(_) => feed.job().kind.clone(),
        None => "unknown".to_owned(),
    };
    let end = match handler {
        _ if letter.redeliveries() >= service.config.jobs.max_redeliveries => {
            End::Outcome(lost_too_often(letter.redeliveries()))
        }
        Some(handler) => execution::run(service, &mut feed, handler, attempt).await,
        None => End::Outcome(unknown_kind(service, &feed.job().kind)),
    };
    match end {
        End::Outcome(outcome) => {
            let taken = began.elapsed();
            let settled = settle(service, queue, &mut feed, letter, &outcome).await;
            let Ok(outcome_name) = settled else {
                warn!(
                    task_id,
                    "its end could not be told in time; the job will run again"
                );
                return;
            };
            info!(
                task_id,
                kind = feed.job().kind,
                user_id = feed.job().user_id,
                outcome = outcome_name,
                ms = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX),
                "job ended"
            );
            counter!(metric::JOBS, "kind" => kind.clone(), "outcome" => outcome_name).increment(1);
            histogram!(metric::SECONDS, "kind" => kind).record(taken);
        }
        End::Abandoned => {
            warn!(task_id, "out of time, the job goes back to its queue");
            counter!(metric::JOBS, "kind" => kind, "outcome" => "abandoned").increment(1);
            if let Some(receipt) = service.in_hand.abandoned(&task_id)
                && let Err(error) = receipt.requeue().await
            {
                warn!(%error, task_id, "the job could not be handed back; the broker will notice");
            }
        }
    }
    drop(place);
}

/// In this order, because a crash in between repeats what came before, and every repeat is
/// harmless: the dead letter, the owner's event, the acknowledgement.
async fn settle(
    service: &Service,
    queue: &str,
    feed: &mut Feed,
    letter: Letter,
    outcome: &Outcome,
) -> Result<&'static str, OutOfTime> {
    let status = feed.ended(outcome, Timestamp::now());
    service.monitor.tell(&status, feed.job());
    let mut buried = Buried::WithReason;
    if let Some(error) = &status.error {
        buried = bury(service, queue, letter, error).await?;
    }
    tell_end(service, &status, feed.job().room_id.as_deref()).await?;
    if let Some(receipt) = service.in_hand.ended(&status.task_id, Instant::now()) {
        settle_receipt(receipt, &buried, &status.task_id).await;
    }
    Ok(status.status.as_str())
}

fn unknown_kind(service: &Service, kind: &str) -> Outcome {
    let known: Vec<_> = service.registry.kinds().collect();
    Outcome::fail(
        "unknown_kind",
        format!(
            "this worker has no handler for `{kind}`; it knows: {}",
            known.join(", ")
        ),
    )
}

fn lost_too_often(times: u32) -> Outcome {
    let message = format!("its worker died or lost the broker {times} times while running it");
    Outcome::fail("worker_lost", message)
}
