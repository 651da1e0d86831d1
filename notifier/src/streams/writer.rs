//! From the broker's inbox into the store, and from there to all instances.
//!
//! Kept, then told, then acknowledged: a crash between two steps repeats, and the event's id makes
//! the repeat harmless. The inbox has one active consumer, so that one instance writes at a time; two
//! that overlap for a moment, because the first has not noticed that it was replaced, take the same
//! events in the same order, and the first to keep one decides its number.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{Delivery, Message, Route};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{Audience, Event, EventClass, EventKey, header};
use bytes::Bytes;
use jiff::Timestamp;
use metrics::{counter, histogram};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

use super::bundle::{self, Told};
use super::group_end::Bars;
use super::groups::Groups;
use super::state::State;
use super::{Streams, deferral, group_end, groups, retry};
use crate::away::checks::Planned;
use crate::gateway::Gateway;
use crate::inbound;
use crate::metric;
use crate::store::{Kept, NewEvent, StreamName};

/// How many stored events may be with us at once.
pub(crate) const PREFETCH: u16 = 2000;

/// How many are kept in one step.
const TOGETHER: usize = 500;

/// So many in one step say that events come thick and fast: thousands a second.
const DENSE: usize = 16;

/// How long dense events are gathered. Each step costs a flush to the disk and a message to the broker,
/// however few it keeps.
const GATHER: Duration = Duration::from_millis(10);

/// What a bundle holds, give or take an event.
const BUNDLE: usize = 256 * 1024;

/// An event that somebody may be shown.
struct Incoming {
    key: EventKey,
    event: NewEvent,
    /// Of the end of a job of a group: what follows the group's.
    sequel: Option<String>,
}

/// An event from the inbox.
enum Read {
    Now(Box<Incoming>),
    Later(Timestamp),
}

/// What follows when a batch is kept.
struct ToTell {
    events: Vec<Told>,
    groups: Groups,
    /// When it is to be looked whether they were seen.
    planned: Planned,
}

/// A batch that is kept, and not told yet.
struct Batch {
    to_tell: ToTell,
    /// Its receipt stands for all of the batch.
    last: Delivery,
    begun: Instant,
}

/// Keeps and tells until the queue ends. While a batch is told, the next is kept.
pub(crate) async fn keep(
    gateway: Arc<Gateway>,
    deliveries: mpsc::Receiver<Delivery>,
    health: Component,
) {
    let (kept, to_tell) = mpsc::channel(1);
    tokio::join!(
        keep_each(&gateway, deliveries, &health, kept),
        tell_each(&gateway, to_tell)
    );
}

async fn keep_each(
    gateway: &Gateway,
    mut deliveries: mpsc::Receiver<Delivery>,
    health: &Component,
    kept: mpsc::Sender<Batch>,
) {
    let mut batch = Vec::with_capacity(TOGETHER);
    let mut is_dense = false;
    while gather(&mut deliveries, &mut batch, is_dense).await {
        is_dense = batch.len() >= DENSE;
        let begun = Instant::now();
        let to_tell = keep_batch(gateway, &batch, health).await;
        let last = batch.pop();
        batch.clear();
        // Otherwise the broker delivers it again.
        if let (Some(to_tell), Some(last)) = (to_tell, last) {
            let batch = Batch {
                to_tell,
                last,
                begun,
            };
            if kept.send(batch).await.is_err() {
                return;
            }
        } else if gateway.closed.is_cancelled() {
            // The next batch would be acknowledged together with this.
            return;
        }
    }
}

/// Takes what there is, at least one; whether there was any. When the last batch was dense, more is
/// on its way.
async fn gather<T>(waiting: &mut mpsc::Receiver<T>, batch: &mut Vec<T>, is_dense: bool) -> bool {
    if waiting.recv_many(batch, TOGETHER).await == 0 {
        return false;
    }
    if is_dense && batch.len() < TOGETHER {
        sleep(GATHER).await;
        while batch.len() < TOGETHER
            && let Ok(next) = waiting.try_recv()
        {
            batch.push(next);
        }
    }
    true
}

async fn tell_each(gateway: &Gateway, mut batches: mpsc::Receiver<Batch>) {
    let mut bars = Bars::new();
    loop {
        let batch = tokio::select! {
            batch = batches.recv() => batch,
            () = bars.due() => {
                bars.tell(gateway).await;
                continue;
            }
        };
        let Some(batch) = batch else { return };
        let ToTell {
            events,
            groups,
            planned,
        } = batch.to_tell;
        if !tell_all(gateway, events, &batch.last).await
            || !group_end::settle(gateway, groups, &mut bars, &batch.last).await
            || !plan(gateway, &planned, &batch.last).await
        {
            if gateway.closed.is_cancelled() {
                return;
            }
            continue;
        }
        histogram!(metric::KEEP_SECONDS).record(batch.begun.elapsed().as_secs_f64());
        // After a new connection a batch may hold the last of the old one: those come again, and
        // keep their numbers.
        if let Err(error) = batch.last.receipt.ack_up_to_here().await {
            debug!(%error, "an acknowledgement was lost; the events come again");
        }
    }
}

/// What of a batch is for now; the rest waits elsewhere. `None` if the broker delivers it again.
async fn sort(gateway: &Gateway, batch: &[Delivery]) -> Option<Vec<Incoming>> {
    let now = gateway.clock.forward();
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
    let state = State::of(&key.audience, &event);
    let task = state
        .as_ref()
        .and_then(|(owner, state)| state.record(owner, &event));
    let group = state.and_then(|(owner, state)| groups::part_of(owner, &state));
    let headers = &delivery.properties.headers;
    Some(Read::Now(Box::new(Incoming {
        sequel: group
            .as_ref()
            .and_then(|_| headers.get(header::GROUP).cloned()),
        event: NewEvent {
            stream,
            id: event.id,
            body: Bytes::copy_from_slice(&delivery.body),
            task,
            group,
        },
        key,
    })))
}

/// Keeps a batch; what there is to tell then, or `None` if the broker delivers it again.
async fn keep_batch(gateway: &Gateway, batch: &[Delivery], health: &Component) -> Option<ToTell> {
    let incoming = sort(gateway, batch).await?;
    let kept = match &gateway.streams {
        None => Vec::new(),
        Some(_) => keep_all(gateway, &incoming, batch, health).await?,
    };
    let planned = planned(gateway, &incoming, &kept);
    let (mut events, mut groups) = (Vec::with_capacity(incoming.len()), Groups::default());
    for (index, one) in incoming.into_iter().enumerate() {
        if let Some(part) = one.event.group {
            match kept.get(index).and_then(|kept| kept.group) {
                Some(count) => groups.add(part, count, one.sequel.as_deref()),
                None => group_end::uncounted(),
            }
        }
        events.push(Told::new(one.key, kept.get(index), one.event.body));
    }
    Some(ToTell {
        events,
        groups,
        planned,
    })
}

/// What is to be looked after later, because a user may be away. Of known events, too: we may have been
/// stopped before that was noted.
fn planned(gateway: &Gateway, incoming: &[Incoming], kept: &[Kept]) -> Planned {
    let (config, mut planned) = (&gateway.config.escalation, Planned::default());
    if config.is_on() {
        for (one, kept) in incoming.iter().zip(kept) {
            if let Audience::User(user_id) = &one.key.audience {
                planned.add(config, user_id, &one.key.topic, one.event.id, kept.position);
            }
        }
    }
    planned
}

/// Whether it is noted what to look after.
async fn plan(gateway: &Gateway, planned: &Planned, last: &Delivery) -> bool {
    let mut failures = 0;
    while let Err(error) = planned.place(gateway).await {
        if retry::is_told(failures) {
            warn!(%error, failures, "it cannot be noted yet to look whether events were seen");
        }
        if retry::wait(gateway, failures, Some(last)).await.is_none() {
            return false;
        }
        failures += 1;
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
        match streams.store.append(events, gateway.clock.forward()).await {
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
                if retry::wait(gateway, failures, batch.last()).await.is_none() {
                    // Another instance may get them, and this one nothing more to try it with. Whether
                    // the store answers is asked all the while.
                    health.up();
                    return None;
                }
                failures += 1;
            }
        }
    }
}

/// Whether a batch was told to all instances that have to show it.
async fn tell_all(gateway: &Gateway, events: Vec<Told>, last: &Delivery) -> bool {
    if events.is_empty() {
        return true;
    }
    if let Some(batches) = gateway.streams.as_ref().and_then(Streams::batches) {
        let number = batches.put(events).to_string();
        return tell(gateway, batches.key(), number.into(), last).await;
    }
    let key = format!("{}.{}", bundle::KEY_WORD, gateway.instance_word());
    for bundle in bundles(&events) {
        if !tell(gateway, &key, bundle, last).await {
            return false;
        }
    }
    true
}

fn bundles(events: &[Told]) -> Vec<Vec<u8>> {
    let (mut bundles, mut bundle) = (Vec::new(), Vec::new());
    for told in events {
        if let Err(error) = told.write(&mut bundle) {
            warn!(%error, key = %told.key, "an event cannot be told");
        }
        if bundle.len() >= BUNDLE {
            bundles.push(std::mem::take(&mut bundle));
        }
    }
    if !bundle.is_empty() {
        bundles.push(bundle);
    }
    bundles
}

async fn tell(gateway: &Gateway, key: &str, body: Vec<u8>, last: &Delivery) -> bool {
    let exchange = gateway.names.events();
    let message = Message {
        body,
        persistent: false,
        ..Message::default()
    };
    // Mandatory: this instance listens before it takes from the inbox, so that somebody must.
    let route = Route {
        exchange: &exchange,
        key,
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
                if retry::is_told(failures) {
                    warn!(%error, failures, "events are kept and cannot be told yet");
                }
                if retry::wait(gateway, failures, Some(last)).await.is_none() {
                    return false;
                }
                failures += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_dense_events_are_gathered_and_never_too_many() {
        let (events, mut waiting) = mpsc::channel(2 * TOGETHER);
        let mut batch = Vec::new();
        events.try_send(0).unwrap();
        let more = async || {
            sleep(GATHER / 2).await;
            (0..TOGETHER).for_each(|n| events.try_send(n).unwrap());
        };
        let (is_open, ()) = tokio::join!(gather(&mut waiting, &mut batch, false), more());
        assert_eq!((is_open, batch.len()), (true, 1), "it comes alone");

        batch.clear();
        waiting.recv_many(&mut batch, TOGETHER).await;
        batch.clear();
        events.try_send(0).unwrap();
        let ((), is_open) = tokio::join!(biased; more(), gather(&mut waiting, &mut batch, true));
        assert_eq!((is_open, batch.len()), (true, TOGETHER));

        batch.clear();
        drop(events);
        assert!(gather(&mut waiting, &mut batch, true).await, "one is left");
        assert!(!gather(&mut waiting, &mut batch, true).await);
    }
}
