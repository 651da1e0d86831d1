//! States of tasks that have not ended, from the broker onto the board.
//!
//! They come up to ten times a second from each task, and only the newest of a task counts: what
//! comes within a moment is kept in one step. Ends are kept with their stored events.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::Delivery;
use bellhop_common::wire::{Event, EventKey};
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::catch_up::within;
use super::retry;
use super::state::State;
use crate::gateway::Gateway;
use crate::metric;
use crate::store::TaskRecord;

/// How many states may be with us at once.
pub(crate) const PREFETCH: u16 = 4000;

/// What comes within this time is kept together.
const GATHER: Duration = Duration::from_millis(250);

/// The newest state of each task.
#[derive(Debug, Default)]
struct Newest(HashMap<(String, String), TaskRecord>);

/// Keeps states until the queue ends.
pub(crate) async fn keep(gateway: Arc<Gateway>, mut deliveries: mpsc::Receiver<Delivery>) {
    while let Some(first) = deliveries.recv().await {
        let (newest, last) = gather(first, &mut deliveries).await;
        if !put(&gateway, newest, &last).await {
            continue;
        }
        if let Err(error) = last.receipt.ack_up_to_here().await {
            debug!(%error, "an acknowledgement was lost; the states come again");
        }
    }
}

/// What comes within a moment, and the last of it, whose receipt settles all.
async fn gather(first: Delivery, deliveries: &mut mpsc::Receiver<Delivery>) -> (Newest, Delivery) {
    let end = Instant::now() + GATHER;
    let (mut newest, mut last) = (Newest::default(), first);
    newest.take(&last);
    // The broker sends no more than these before they are settled.
    for _ in 1..PREFETCH {
        let Ok(Some(next)) = timeout_at(end, deliveries.recv()).await else {
            break;
        };
        newest.take(&next);
        last = next;
    }
    (newest, last)
}

impl Newest {
    fn take(&mut self, delivery: &Delivery) {
        let key = EventKey::parse(&delivery.routing_key).ok();
        let event = Event::parse(&delivery.body).ok();
        let task = key.zip(event).and_then(|(key, event)| {
            let (owner, state) = State::of(&key.audience, &event)?;
            state.record(owner, &event)
        });
        let Some(task) = task else {
            // Counted where it would be shown.
            return debug!(key = delivery.routing_key, "this is no state of a task");
        };
        match self.0.entry((task.user_id.clone(), task.task_id.clone())) {
            Entry::Vacant(place) => drop(place.insert(task)),
            Entry::Occupied(mut place) => {
                counter!(metric::BOARD_STATES, "outcome" => "superseded").increment(1);
                if place.get().rev < task.rev {
                    place.insert(task);
                }
            }
        }
    }
}

/// Tries until the store has them; `false` when the broker delivers them again anyway.
async fn put(gateway: &Gateway, newest: Newest, last: &Delivery) -> bool {
    let Some(streams) = &gateway.streams else {
        return false;
    };
    let tasks: Vec<_> = newest.0.into_values().collect();
    let mut failures = 0;
    loop {
        match within(
            streams
                .store
                .put_tasks(tasks.clone(), gateway.clock.forward()),
        )
        .await
        {
            Ok(()) => {
                if failures > 0 {
                    warn!("the store works again");
                }
                counter!(metric::BOARD_STATES, "outcome" => "written")
                    .increment(tasks.len() as u64);
                return true;
            }
            Err(error) => {
                counter!(metric::BOARD_STATES, "outcome" => "failed").increment(tasks.len() as u64);
                retry::warn_of(&error, failures, tasks.len());
                if retry::wait(gateway, failures, Some(last)).await.is_none() {
                    return false;
                }
                failures += 1;
            }
        }
    }
}
