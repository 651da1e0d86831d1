//! Reading what is missing: after a gap in the numbers, after a lost connection to the broker, and
//! now and then in case nobody has noticed.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::telemetry::Component;
use bellhop_common::wire::{Event, EventClass, EventKey};
use futures_util::{StreamExt as _, stream};
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::bundle::Told;
use super::{Missing, STORE_WAIT, Settled, Streams};
use crate::gateway::Gateway;
use crate::inbound;
use crate::metric;
use crate::protocol::Place;
use crate::store::{Entry, Head, Position, StoreError, StreamName};

/// How many streams are read at once.
const AT_ONCE: usize = 16;

/// How many events of a stream are read together.
const PART: u64 = 256;

/// The same in bytes: of the largest, [`PART`] of [`AT_ONCE`] streams would be a GiB.
const PART_BYTES: usize = 4 * 1024 * 1024;

/// Between two looks at all streams.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// How often the store is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// How often it is seen whether the broker was away.
const BROKER_EVERY: Duration = Duration::from_millis(250);

/// How many streams are asked for together.
const HEADS: usize = 256;

/// Until it is looked again at a stream that somebody who comes is asking for.
const ASKED: Duration = Duration::from_millis(50);

/// Between two attempts while the store does not answer.
const RETRY: Duration = Duration::from_secs(1);

/// Serves the streams that are behind, until `closed`.
pub(crate) async fn run(
    gateway: Arc<Gateway>,
    behind: mpsc::Receiver<StreamName>,
    closed: CancellationToken,
) {
    let names = stream::unfold(behind, async |mut behind| {
        let name = behind.recv().await?;
        Some((name, behind))
    });
    let served = names.for_each_concurrent(AT_ONCE, |name| {
        let gateway = Arc::clone(&gateway);
        async move { catch_up(&gateway, &name).await }
    });
    tokio::select! {
        () = served => {}
        () = closed.cancelled() => {}
    }
}

/// Looks for streams of which something was lost on the way: when the broker was away, and now and
/// then.
///
/// It also says whether the store answers.
pub(crate) async fn watch(
    gateway: Arc<Gateway>,
    consumer: Component,
    store: Component,
    closed: CancellationToken,
) {
    let mut ticks = interval(BROKER_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut was_up, mut looked, mut asked) = (true, Instant::now(), None);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = closed.cancelled() => return,
        }
        if asked.is_none_or(|asked: Instant| asked.elapsed() >= ASK_EVERY) {
            ask(&gateway, &store).await;
            asked = Some(Instant::now());
        }
        let is_up = consumer.is_up();
        if (is_up && !was_up) || looked.elapsed() >= LOOK_EVERY {
            look(&gateway).await;
            looked = Instant::now();
        }
        was_up = is_up;
    }
}

/// Whether the store answers.
async fn ask(gateway: &Gateway, health: &Component) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    match within(streams.store.heads(vec![StreamName::all()])).await {
        Ok(_) => health.up(),
        Err(error) => {
            if health.is_up() {
                warn!(%error, "the store does not answer");
            }
            health.down();
        }
    }
}

/// Compares what was shown with what is kept.
async fn look(gateway: &Gateway) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    for part in streams.all().chunks(HEADS) {
        let names = part.iter().map(|standing| standing.name.clone()).collect();
        let heads = match within(streams.store.heads(names)).await {
            Ok(heads) => heads,
            Err(error) => return debug!(%error, "the streams could not be compared"),
        };
        for (standing, head) in part.iter().zip(heads) {
            let name = &standing.name;
            let is_behind = match standing.missing(Instant::now(), STORE_WAIT) {
                Missing::After(shown) => {
                    shown != head.position() && streams.followed(name).fall_behind(name, shown)
                }
                Missing::IsAsked => false,
                Missing::Unknown => true,
            };
            if is_behind {
                streams.catch_up(name);
            }
        }
    }
}

async fn catch_up(gateway: &Gateway, name: &StreamName) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    loop {
        match advance(gateway, streams, name).await {
            Ok(Settled::Behind(_)) => {}
            Ok(Settled::NotFollowed | Settled::UpTo(_)) => return,
            Err(error) => {
                debug!(%error, "a stream cannot be read yet");
                sleep(RETRY).await;
            }
        }
    }
}

/// One step on.
async fn advance(
    gateway: &Gateway,
    streams: &Streams,
    name: &StreamName,
) -> Result<Settled, StoreError> {
    // Before the store is asked: its answer is then never older than what was shown.
    let Some(standing) = streams.followed(name).standing(name) else {
        return Ok(Settled::NotFollowed);
    };
    let heads = within(streams.store.heads(vec![name.clone()])).await?;
    let Some(head) = heads.first() else {
        return Err(StoreError::Closed);
    };
    let after = match standing.missing(Instant::now(), STORE_WAIT) {
        Missing::After(after) => after,
        // Those of whom it was behind have left, and somebody has come since.
        Missing::IsAsked => {
            sleep(ASKED).await;
            return Ok(Settled::Behind(head.position()));
        }
        Missing::Unknown => return Ok(begin(gateway, streams, name, head)),
    };
    if !head.has_all_since(after) {
        return Ok(reset(gateway, streams, name, after, head));
    }
    let up_to = head.last.min(after.seq + PART);
    let reading = streams
        .store
        .read(name.clone(), after.seq, up_to, PART_BYTES);
    let entries = within(reading).await?;
    let read = entries.last().map_or(after.seq, |last| last.seq);
    // Trimmed between the two questions.
    if entries.len() as u64 != read - after.seq || (entries.is_empty() && up_to > after.seq) {
        return Ok(Settled::Behind(after));
    }
    counter!(metric::CAUGHT_UP).increment(entries.len() as u64);
    let position = Position {
        epoch: head.epoch,
        seq: read,
    };
    if Place::of(&name.audience()).is_some() {
        let told = entries
            .iter()
            .filter_map(|entry| told_of(name, position, entry));
        told.for_each(|told| inbound::obey(gateway, &told));
    }
    let settled = settle(gateway, streams, name, after, position, head, &entries);
    Ok(unless_more(streams, name, settled, head))
}

/// Somebody came while the store was away, and was told no position. What came since that can be
/// shown is; whether that is all, nobody knows.
pub(super) fn begin(
    gateway: &Gateway,
    streams: &Streams,
    name: &StreamName,
    head: &Head,
) -> Settled {
    let followed = streams.followed(name);
    let first = followed.first_waiting(name);
    let first = first.filter(|first| first.epoch == head.epoch);
    let seq = first.map_or(head.last, |first| head.last.min(first.seq - 1));
    let position = Position {
        epoch: head.epoch,
        seq,
    };
    let settled = followed.settle(name, None, position, |told| match told {
        Some(told) => inbound::show(gateway, &told),
        None => inbound::show_reset(gateway, name, position),
    });
    unless_more(streams, name, settled, head)
}

/// There may be more in the store than was read.
fn unless_more(streams: &Streams, name: &StreamName, settled: Settled, head: &Head) -> Settled {
    match settled {
        Settled::UpTo(at)
            if at.epoch == head.epoch
                && at.seq < head.last
                && streams.followed(name).fall_behind(name, at) =>
        {
            Settled::Behind(at)
        }
        settled => settled,
    }
}

fn settle(
    gateway: &Gateway,
    streams: &Streams,
    name: &StreamName,
    after: Position,
    position: Position,
    head: &Head,
    entries: &[Entry],
) -> Settled {
    let followed = streams.followed(name);
    followed.settle(name, Some(after), position, |told| match told {
        Some(told) => inbound::show(gateway, &told),
        None => {
            for entry in entries {
                if let Some(told) = told_of(name, position, entry) {
                    let unread = name.owner().map(|_| unread_at(head, entry.seq));
                    inbound::show(gateway, &Told { unread, ..told });
                }
            }
        }
    })
}

/// How many were not read when an event came, if nobody has read what is newer; right for the newest in
/// any case. It is shown here before it is told, so nothing else says it.
fn unread_at(head: &Head, seq: u64) -> u64 {
    head.unread.saturating_sub(head.last.saturating_sub(seq))
}

fn reset(
    gateway: &Gateway,
    streams: &Streams,
    name: &StreamName,
    after: Position,
    head: &Head,
) -> Settled {
    // What there is now was not shown, unless it is a whole life that somebody has seen before.
    let left = head.last + 1 - head.first;
    let seq = if left <= PART {
        head.first - 1
    } else {
        head.last
    };
    let position = Position {
        epoch: head.epoch,
        seq,
    };
    let followed = streams.followed(name);
    let settled = followed.settle(name, Some(after), position, |told| {
        if let Some(told) = told {
            return inbound::show(gateway, &told);
        }
        warn!(%name, "events of a stream are gone before they were shown here");
        counter!(metric::STREAM_RESETS).increment(1);
        inbound::show_reset(gateway, name, position);
    });
    unless_more(streams, name, settled, head)
}

/// An event from the store, as it would have come from the broker.
pub(crate) fn told_of(name: &StreamName, position: Position, entry: &Entry) -> Option<Told> {
    let event = Event::parse(&entry.body).ok()?;
    let key = EventKey {
        class: EventClass::Live,
        audience: name.audience(),
        topic: event.kind,
    };
    Some(Told {
        key,
        position: Some(Position {
            seq: entry.seq,
            ..position
        }),
        unread: None,
        body: entry.body.clone(),
    })
}

/// The store's answer, if it comes in time.
pub(crate) async fn within<T>(
    answer: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let answer = timeout(STORE_WAIT, answer).await;
    answer.unwrap_or(Err(StoreError::Timeout(STORE_WAIT)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Epoch;

    #[test]
    fn what_is_caught_up_with_counts_as_what_is_told() {
        let head = Head {
            last: 9,
            unread: 5,
            ..Head::empty(Epoch::new(1))
        };
        let counted = [7, 8, 9].map(|seq| unread_at(&head, seq));
        assert_eq!(counted, [3, 4, 5]);
        let read = Head { unread: 0, ..head };
        assert_eq!([8, 9].map(|seq| unread_at(&read, seq)), [0, 0]);
    }
}
