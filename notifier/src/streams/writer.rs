//! From the broker's inbox into the store, and from there to all instances.
//!
//! Kept, then told, then acknowledged: a crash between two steps repeats, and the event's id makes
//! the repeat harmless. The inbox has one active consumer, so that one instance writes at a time; two
//! that overlap for a moment, because the first has not noticed that it was replaced, take the same
//! events in the same order, and the first to keep one decides its number.

use std::sync::Arc;

use bellhop_common::amqp::{Delivery, Message, Route};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{Audience, Event, EventClass, EventKey, Status, TASK_STATUS_CHANGED};
use bytes::Bytes;
use jiff::Timestamp;
use metrics::{counter, histogram};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::bundle::Told;
use super::deferral;
use super::{KEY_WORD, retry};
use crate::gateway::Gateway;
use crate::inbound;
use crate::metric;
use crate::store::{Kept, NewEvent, StreamName, TaskRecord};

/// How many stored events may be with us at once.
pub(crate) const PREFETCH: u16 = 2000;

/// How many are kept in one step.
const TOGETHER: usize = 500;

/// What a bundle holds, give or take an event.
const BUNDLE: usize = 256 * 1024;

/// An event that somebody may be shown.
struct Incoming {
    key: EventKey,
    stream: StreamName,
    event: NewEvent,
}

/// An event from the inbox.
enum Read {
    Now(Box<Incoming>),
    Later(Timestamp),
}

/// Keeps and tells until the queue ends.
pub(crate) async fn keep(
    gateway: Arc<Gateway>,
    mut deliveries: mpsc::Receiver<Delivery>,
    health: Component,
) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while deliveries.recv_many(&mut batch, TOGETHER).await > 0 {
        let begun = Instant::now();
        let is_done = match sort(&gateway, &batch).await {
            Some(incoming) => deal_with(&gateway, &incoming, &batch, &health).await,
            None => false,
        };
        let last = batch.pop();
        batch.clear();
        let Some(last) = last.filter(|_| is_done) else {
            continue;
        };
        histogram!(metric::KEEP_SECONDS).record(begun.elapsed().as_secs_f64());
        // After a new connection a batch may hold the last of the old one: those come again, and
        // keep their numbers.
        if let Err(error) = last.receipt.ack_up_to_here().await {
            debug!(%error, "an acknowledgement was lost; the events come again");
        }
    }
}

/// What of a batch is for now; the rest waits elsewhere. `None` if the broker delivers it again.
async fn sort(gateway: &Gateway, batch: &[Delivery]) -> Option<Vec<Incoming>> {
    let now = Timestamp::now();
    let mut incoming = Vec::with_capacity(batch.len());
    for delivery in batch {
        match read(delivery, now) {
            Some(Read::Now(one)) => incoming.push(*one),
            Some(Read::Later(due)) => {
                let put_off = deferral::put_off(gateway, delivery, due, batch.last());
                put_off.await.then_some(())?;
            }
            None => {}
        }
    }
    Some(incoming)
}

/// Malformed events are counted and dropped: nobody could ever be shown them.
fn read(delivery: &Delivery, now: Timestamp) -> Option<Read> {
    let key = match EventKey::parse(deferral::key_of(delivery)) {
        Ok(key) => EventKey {
            class: EventClass::Live,
            ..key
        },
        Err(error) => return inbound::malformed(&error),
    };
    // A team's alerts have a queue of their own.
    let stream = StreamName::of(&key.audience)?;
    let event = match Event::parse(&delivery.body) {
        Ok(event) => event,
        Err(error) => return inbound::malformed(&error),
    };
    if let Some(due) = deferral::due(&event, now) {
        return Some(Read::Later(due));
    }
    Some(Read::Now(Box::new(Incoming {
        event: NewEvent {
            stream: stream.clone(),
            id: event.id,
            body: Bytes::copy_from_slice(&delivery.body),
            task: task_of(&key.audience, &event),
        },
        key,
        stream,
    })))
}

/// The state of a task that an event to its owner tells.
pub(crate) fn task_of(audience: &Audience, event: &Event) -> Option<TaskRecord> {
    #[derive(Deserialize)]
    struct State {
        task_id: String,
        rev: u64,
        status: Status,
    }
    let Audience::User(user_id) = audience else {
        return None;
    };
    if event.kind != TASK_STATUS_CHANGED {
        return None;
    }
    let data = event.data.as_deref()?.get();
    let state: State = serde_json::from_str(data).ok()?;
    Some(TaskRecord {
        user_id: user_id.clone(),
        task_id: state.task_id,
        rev: state.rev,
        is_final: state.status.is_final(),
        state: Bytes::copy_from_slice(data.as_bytes()),
    })
}

/// Whether a batch is kept and told; if not, the broker delivers it again.
async fn deal_with(
    gateway: &Gateway,
    incoming: &[Incoming],
    batch: &[Delivery],
    health: &Component,
) -> bool {
    let kept = match &gateway.streams {
        None => None,
        Some(_) => match keep_all(gateway, incoming, batch, health).await {
            Some(kept) => Some(kept),
            None => return false,
        },
    };
    let mut bundle = Vec::new();
    for (index, one) in incoming.iter().enumerate() {
        let kept = kept.as_ref().and_then(|kept| kept.get(index));
        let told = Told::new(&one.key, kept, one.event.body.clone());
        if let Err(error) = told.write(&mut bundle) {
            warn!(%error, stream = %one.stream, "an event cannot be told");
        }
        let is_last = index + 1 == incoming.len();
        if (bundle.len() >= BUNDLE || is_last)
            && !tell(gateway, std::mem::take(&mut bundle), batch).await
        {
            return false;
        }
    }
    true
}

/// Tries until the store has the batch; `None` when the broker will deliver it again anyway.
async fn keep_all(
    gateway: &Gateway,
    incoming: &[Incoming],
    batch: &[Delivery],
    health: &Component,
) -> Option<Vec<Kept>> {
    let streams = gateway.streams.as_ref()?;
    let mut failures = 0;
    loop {
        let events = incoming.iter().map(|one| one.event.clone()).collect();
        match streams.store.append(events, Timestamp::now()).await {
            Ok(kept) => {
                if failures > 0 {
                    warn!("the store works again");
                }
                health.up();
                let new = kept.iter().filter(|kept| kept.is_new).count();
                counter!(metric::KEPT, "outcome" => "new").increment(new as u64);
                counter!(metric::KEPT, "outcome" => "known").increment((kept.len() - new) as u64);
                return Some(kept);
            }
            Err(error) => {
                health.down();
                counter!(metric::KEPT, "outcome" => "failed").increment(incoming.len() as u64);
                retry::warn_of(&error, failures, incoming.len());
                retry::wait(gateway, failures, batch.last()).await?;
                failures += 1;
            }
        }
    }
}

/// Whether a bundle was told to all instances.
async fn tell(gateway: &Gateway, bundle: Vec<u8>, batch: &[Delivery]) -> bool {
    if bundle.is_empty() {
        return true;
    }
    let exchange = gateway.names.events();
    let key = format!("{KEY_WORD}.{}", gateway.instance_word());
    let message = Message {
        body: bundle,
        persistent: false,
        ..Message::default()
    };
    // Mandatory: this instance listens before it takes from the inbox, so that somebody must.
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    let mut failures = 0;
    loop {
        match gateway.publisher.publish(route, &message).await {
            Ok(()) => return true,
            Err(error) if error.is_permanent() => {
                warn!(%error, "events are kept but cannot be told; clients find them by their numbers");
                return true;
            }
            Err(error) => {
                warn!(%error, "events are kept and cannot be told yet");
                if retry::wait(gateway, failures, batch.last()).await.is_none() {
                    return false;
                }
                failures += 1;
            }
        }
    }
}
