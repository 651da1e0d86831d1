//! Tells where groups of jobs stand, and puts in what follows their ends.
//!
//! Everything that is an end is with the broker before the batch is acknowledged that it came with. A
//! crash repeats it, with the same ids.

use std::collections::HashMap;
use std::sync::Once;
use std::time::Duration;

use bellhop_common::amqp::{Copies, Delivery, Message, PublishError, Route};
use bellhop_common::enqueue::{Envelope, StatusError, post_status, publish_status};
use bellhop_common::follow_up;
use bellhop_common::wire::{Job, Status, TaskError, TaskStatus, group_end_id};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use jiff::Timestamp;
use metrics::counter;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

use super::catch_up::within;
use super::groups::{Groups, Touched};
use super::retry;
use crate::gateway::Gateway;
use crate::metric;
use crate::store::GroupRecord;

/// The shortest time between two states of a group on its way.
const EVERY: Duration = Duration::from_millis(100);

/// How many groups are ended at once.
const AT_ONCE: usize = 16;

/// States of groups that wait to be told: the newest of each.
#[derive(Debug)]
pub(super) struct Bars {
    waiting: HashMap<(String, String), Touched>,
    next: Instant,
}

impl Bars {
    pub(super) fn new() -> Self {
        Self {
            waiting: HashMap::new(),
            next: Instant::now(),
        }
    }

    /// Ends when there is something to tell, and it may be told.
    pub(super) async fn due(&self) {
        if self.waiting.is_empty() {
            return std::future::pending().await;
        }
        tokio::time::sleep_until(self.next).await;
    }

    /// Tells what waits. It may get lost, as all that is on the way.
    pub(super) async fn tell(&mut self, gateway: &Gateway) {
        self.next = Instant::now() + EVERY;
        for (_, group) in self.waiting.drain() {
            let envelope = Envelope {
                room: group.sequel.room.as_deref(),
                ..Envelope::default()
            };
            let status = || group.running(Timestamp::now());
            let told = post_status(&gateway.publisher, &gateway.names, status, envelope);
            if let Err(error) = told.await {
                debug!(%error, group = group.id, "the state of a group was not sent");
            }
        }
    }
}

/// Ends the groups of a batch that are complete, and has the others' progress told soon; whether all
/// of it is with the broker. If not, the broker delivers the batch again.
pub(super) async fn settle(
    gateway: &Gateway,
    groups: Groups,
    bars: &mut Bars,
    last: &Delivery,
) -> bool {
    let mut complete = Vec::new();
    for group in groups.into_each() {
        let key = (group.owner.clone(), group.id.clone());
        match group.count.end() {
            Some(end) => {
                bars.waiting.remove(&key);
                complete.push((group, end));
            }
            None => drop(bars.waiting.insert(key, group)),
        }
    }
    let ending = complete
        .into_iter()
        .map(|(group, end)| async move { finish(gateway, &group, end, last).await });
    let mut ending = stream::iter(ending).buffer_unordered(AT_ONCE);
    while let Some(ended) = ending.next().await {
        if ended.is_none() {
            return false;
        }
    }
    true
}

/// The end of a job of a group came where nothing is kept.
pub(super) fn uncounted() {
    static WARNED: Once = Once::new();
    counter!(metric::GROUPS, "outcome" => "uncounted").increment(1);
    WARNED.call_once(|| {
        warn!(
            "a job of a group ended, and groups are not counted here (store.kind = \"none\"): \
             their progress and end are not told, and what follows them is not run"
        );
    });
}

/// The jobs that follow come before the event, as with the end of a job.
async fn finish(gateway: &Gateway, group: &Touched, end: Status, last: &Delivery) -> Option<()> {
    let record = read(gateway, group, last).await?;
    let status = group.ended(end, &record, Timestamp::now());
    let id = group_end_id(&group.owner, &group.id, end);
    for (queue, job) in group.sequel(&status) {
        let once = group.count.was_complete;
        match follow_up::write(&job, id, once, None, Timestamp::now()) {
            Ok(message) => put_in(gateway, &queue, &job, message, last).await?,
            Err(error) => {
                warn!(%error, group = group.id, kind = job.kind, "a follow-up is no job");
            }
        }
    }
    tell(gateway, group, &status, id, last).await?;
    if !group.count.was_complete {
        counter!(metric::GROUPS, "outcome" => end.as_str()).increment(1);
    }
    Some(())
}

/// Tries until the store answers.
async fn read(gateway: &Gateway, group: &Touched, last: &Delivery) -> Option<GroupRecord> {
    let streams = gateway.streams.as_ref()?;
    let mut failures = 0;
    loop {
        let reading = streams.store.group(group.owner.clone(), group.id.clone());
        match within(reading).await {
            Ok(Some(record)) => return Some(record),
            // Swept a moment ago, by a clock that is wrong.
            Ok(None) => {
                return Some(GroupRecord {
                    size: group.count.size,
                    jobs: Vec::new(),
                });
            }
            Err(error) => {
                retry::warn_of(&error, failures, 1);
                retry::wait(gateway, failures, Some(last)).await?;
                failures += 1;
            }
        }
    }
}

async fn tell(
    gateway: &Gateway,
    group: &Touched,
    status: &TaskStatus,
    id: Uuid,
    last: &Delivery,
) -> Option<()> {
    let envelope = Envelope {
        room: group.sequel.room.as_deref(),
        id: Some(id),
        ..Envelope::default()
    };
    let told = retry::persevere(gateway, "the end of a group", last, |_| {
        let telling = publish_status(&gateway.publisher, &gateway.names, status, envelope);
        telling.map(|told| match told {
            Err(StatusError::Publish(error)) => Err(error),
            told => Ok(told),
        })
    });
    match told.await? {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, group = group.id, "the end of a group cannot be told"),
        Err(error) => warn!(%error, group = group.id, "the end of a group cannot be told"),
    }
    Some(())
}

async fn put_in(
    gateway: &Gateway,
    queue: &str,
    job: &Job,
    message: Message,
    last: &Delivery,
) -> Option<()> {
    let exchange = gateway.names.jobs();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    let copies = Copies::of(message);
    let placed = retry::persevere(gateway, "a follow-up", last, |_| {
        let placing = gateway.publisher.publish(route, copies.next());
        placing.map(|placed| match placed {
            Err(PublishError::Unroutable { .. }) => Ok(false),
            placed => placed.map(|()| true),
        })
    });
    let error = match placed.await? {
        Ok(true) => {
            let (publisher, names) = (&gateway.publisher, &gateway.names);
            follow_up::announce(publisher, names, job, Timestamp::now()).await;
            return Some(());
        }
        Ok(false) => follow_up::no_such_queue(queue),
        Err(error) => TaskError::new("too_large", error.to_string()),
    };
    bury(gateway, queue, job, (copies.into_first(), error), last).await
}

async fn bury(
    gateway: &Gateway,
    queue: &str,
    job: &Job,
    (message, error): (Message, TaskError),
    last: &Delivery,
) -> Option<()> {
    let (task_id, why) = (&job.id, &error.message);
    warn!(task_id, why, "a follow-up goes to the dead letters");
    let letter = follow_up::dead(message, queue, &error, Timestamp::now());
    let exchange = gateway.names.dead();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: true,
    };
    let buried = retry::persevere(gateway, "a dead letter", last, |_| {
        gateway.publisher.publish(route, &letter)
    });
    if let Err(error) = buried.await? {
        warn!(%error, task_id, "a follow-up is lost");
    }
    Some(())
}
