//! The time to look has come: what was not seen is ordered to be sent.
//!
//! One instance does it, one batch after the other: two that look after the same user at the same
//! time, as at the hour of a digest, would each send one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{Delivery, PublishError};
use jiff::Timestamp;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use super::checks::{self, Check, Checks};
use super::decision::{Next, Stop, next};
use super::digest::{self, Digest};
use super::preferences::{MailChoice, Preferences};
use super::seen::Look;
use super::{Channel, DIGEST};
use crate::deliver::{Order, Ordered, recipients};
use crate::deliveries::{self, Attempt, ORDERED};
use crate::documents;
use crate::gateway::Gateway;
use crate::inbound::malformed;
use crate::store::{AttemptRecord, Position, SharedStore, StoreError};
use crate::streams::retry;

/// How many messages may be with us at once.
pub(crate) const PREFETCH: u16 = 32;

/// What is due within this time is looked after together.
const GATHER: Duration = Duration::from_millis(250);

/// More pushes than this for one user at one time are one that says how many.
const SINGLE_PUSHES: usize = 3;

/// How many events one mail or push stands for.
pub(super) const MOST_IN_ONE: usize = 50;

/// Why it cannot be said now what follows.
#[derive(Debug, Error)]
pub(crate) enum EscalationError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// The name of the document with a user's preferences.
pub(crate) fn preferences_document(user_id: &str) -> String {
    format!("preferences:{user_id}")
}

/// Looks after what comes until the queue ends. What is due within a moment is looked after together,
/// so that a user is not sent one thing after the other.
pub(crate) async fn escalate(gateway: Arc<Gateway>, mut deliveries: mpsc::Receiver<Delivery>) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    while let Some(first) = deliveries.recv().await {
        let (due, last) = gather(first, &mut deliveries).await;
        if !look(&gateway, &streams.store, due, &last).await {
            // What comes next would be acknowledged together with this.
            if gateway.closed.is_cancelled() {
                return;
            }
            continue;
        }
        if let Err(error) = last.receipt.ack_up_to_here().await {
            debug!(%error, "an acknowledgement was lost; what is ordered twice is sent once");
        }
    }
}

/// What is due, by how it is sent.
type Due = BTreeMap<(Channel, Option<MailChoice>), Vec<Check>>;

/// What comes within a moment, and the last of it, whose receipt settles all.
async fn gather(first: Delivery, deliveries: &mut mpsc::Receiver<Delivery>) -> (Due, Delivery) {
    let end = Instant::now() + GATHER;
    let (mut due, mut last) = (Due::new(), first);
    take(&mut due, &last);
    // The broker sends no more than these before they are settled.
    for _ in 1..PREFETCH {
        let Ok(Some(next)) = timeout_at(end, deliveries.recv()).await else {
            break;
        };
        take(&mut due, &next);
        last = next;
    }
    (due, last)
}

/// Malformed ones are counted and dropped: only we write them, and nothing could be looked after.
fn take(due: &mut Due, delivery: &Delivery) {
    match serde_json::from_slice::<Checks>(&delivery.body) {
        Ok(checks) => {
            let known = due.entry((checks.channel, checks.digest)).or_default();
            known.extend(checks.events);
        }
        Err(error) => drop(malformed::<()>(&error)),
    }
}

/// Whether all was looked after; if not, the broker delivers it again.
async fn look(gateway: &Gateway, store: &SharedStore, due: Due, last: &Delivery) -> bool {
    for ((channel, digest), events) in due {
        let checks = Checks {
            channel,
            digest,
            events,
        };
        let mut failures = 0;
        while let Err(error) = look_at_all(gateway, store, &checks, last).await {
            if failures == 0 {
                warn!(%error, "it cannot be seen yet what users have missed");
            }
            if retry::wait(gateway, failures, Some(last)).await.is_none() {
                return false;
            }
            failures += 1;
        }
    }
    true
}

async fn look_at_all(
    gateway: &Gateway,
    store: &SharedStore,
    checks: &Checks,
    last: &Delivery,
) -> Result<(), EscalationError> {
    let mut users: BTreeMap<&str, Vec<&Check>> = BTreeMap::new();
    for check in &checks.events {
        let missed = users.entry(&check.user_id).or_default();
        if missed.iter().all(|known| known.event_id != check.event_id) {
            missed.push(check);
        }
    }
    for (user_id, missed) in users {
        // Somebody else is at it by now.
        if !last.receipt.is_valid() {
            return Ok(());
        }
        let visit = Visit::begin(gateway, store, user_id, checks).await?;
        let mut log = Vec::new();
        let plan = visit.plan(&missed, &mut log).await?;
        let done = visit.carry_out(plan, &mut log).await;
        // Also of what was ordered before something failed: it is looked after again, and knows it by this.
        deliveries::keep(gateway, log).await;
        done?;
    }
    Ok(())
}

/// One user, and what is known of him.
struct Visit<'a> {
    gateway: &'a Gateway,
    store: &'a SharedStore,
    user_id: &'a str,
    channel: Channel,
    digest: Option<MailChoice>,
    now: Timestamp,
    look: Look<'a>,
    wishes: Preferences,
}

/// What follows for the events of a user.
#[derive(Default)]
struct Plan {
    send: BTreeMap<String, Vec<Ordered>>,
    in_digest: Vec<Ordered>,
    again: BTreeMap<(Timestamp, Option<MailChoice>), Vec<Check>>,
}

impl<'a> Visit<'a> {
    async fn begin(
        gateway: &'a Gateway,
        store: &'a SharedStore,
        user_id: &'a str,
        checks: &Checks,
    ) -> Result<Self, StoreError> {
        let wishes = documents::get(store, &preferences_document(user_id)).await?;
        Ok(Self {
            gateway,
            store,
            user_id,
            channel: checks.channel,
            digest: checks.digest,
            now: Timestamp::now(),
            look: Look::at(gateway, store, user_id).await?,
            wishes: wishes.unwrap_or_default(),
        })
    }

    async fn plan(
        &self,
        missed: &[&Check],
        log: &mut Vec<AttemptRecord>,
    ) -> Result<Plan, StoreError> {
        let config = &self.gateway.config.escalation;
        let zone = config.zone();
        let mut plan = Plan::default();
        for check in missed {
            let Some(category) = config.named(&check.category) else {
                self.stop(Stop::NoCategory, check.event_id, log);
                continue;
            };
            let (seen, _) = self.look.event(check.epoch, check.seq).await?;
            let kind = (self.channel, self.digest);
            let event = Ordered {
                seq: check.seq,
                id: check.event_id,
            };
            match next(kind, category, &self.wishes, seen, (self.now, &zone)) {
                Next::Stop(why) => self.stop(why, check.event_id, log),
                Next::Wait(until) => plan.again(until, self.digest, check),
                Next::Digest(which, at) => plan.again(at, Some(which), check),
                Next::Send if self.digest.is_some() => plan.in_digest.push(event),
                Next::Send => {
                    let category = plan.send.entry(check.category.clone());
                    category.or_default().push(event);
                }
            }
        }
        Ok(plan)
    }

    fn stop(&self, why: Stop, event: uuid::Uuid, log: &mut Vec<AttemptRecord>) {
        let channel = self.channel.as_str();
        let attempt = Attempt::none(channel, self.user_id, why.as_str(), self.now);
        attempt.count();
        log.extend(attempt.records(std::iter::once(event)));
    }

    async fn carry_out(
        &self,
        plan: Plan,
        log: &mut Vec<AttemptRecord>,
    ) -> Result<(), EscalationError> {
        for ((at, digest), checks) in plan.again {
            // Up, or it would come a moment too early, and be put off again.
            let left = self.now.duration_until(at).as_secs().saturating_add(1);
            let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
            checks::place(self.gateway, (self.channel, digest), &checks, left).await?;
        }
        if plan.send.is_empty() && plan.in_digest.is_empty() {
            return Ok(());
        }
        let recipients = recipients(self.gateway, self.store, self.channel, self.user_id).await?;
        if recipients.is_empty() {
            let events = plan.send.values().flatten().chain(&plan.in_digest);
            for event in events {
                self.stop(Stop::NoRecipient, event.id, log);
            }
            return Ok(());
        }
        for (category, events) in plan.send {
            for device in &recipients {
                let new = self.not_ordered(&events, device.as_deref()).await?;
                for events in self.parts(new) {
                    let order = self.order(device.as_deref(), &category, events);
                    self.place(&order, log).await?;
                }
            }
        }
        match self.digest {
            Some(which) if !plan.in_digest.is_empty() => {
                self.digest(which, &plan.in_digest, log).await
            }
            _ => Ok(()),
        }
    }

    fn order(&self, device: Option<&str>, category: &str, events: Vec<Ordered>) -> Order {
        Order::new(
            (self.channel, device),
            self.user_id,
            (category, self.digest),
            (self.look.head.epoch, events),
        )
    }

    /// Those that were not ordered before: an event that is told again is looked after again.
    async fn not_ordered(
        &self,
        events: &[Ordered],
        device: Option<&str>,
    ) -> Result<Vec<Ordered>, StoreError> {
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let channel = self.channel.as_str();
            if !deliveries::was_ordered(self.store, event.id, channel, device).await? {
                new.push(*event);
            }
        }
        Ok(new)
    }

    async fn place(
        &self,
        order: &Order,
        log: &mut Vec<AttemptRecord>,
    ) -> Result<(), EscalationError> {
        order.place(self.gateway).await?;
        let attempt = Attempt {
            recipient: order.device.as_deref(),
            order: Some(order.id),
            ..Attempt::none(self.channel.as_str(), self.user_id, ORDERED, self.now)
        };
        log.extend(attempt.records(order.events.iter().map(|event| event.id)));
        Ok(())
    }

    /// Which events go together.
    fn parts(&self, mut events: Vec<Ordered>) -> Vec<Vec<Ordered>> {
        events.sort_unstable_by_key(|event| event.seq);
        let together = match self.channel {
            Channel::Push if events.len() <= SINGLE_PUSHES => 1,
            _ => MOST_IN_ONE,
        };
        events.chunks(together).map(<[_]>::to_vec).collect()
    }

    /// A digest has all that is not read, and not only what this message is about: what it has is
    /// not in another.
    async fn digest(
        &self,
        which: MailChoice,
        due: &[Ordered],
        log: &mut Vec<AttemptRecord>,
    ) -> Result<(), EscalationError> {
        let last = digest::last(self.store, self.user_id, which, self.look.head.epoch).await?;
        let (new, known): (Vec<&Ordered>, Vec<_>) = due.iter().partition(|event| event.seq > last);
        for event in known {
            self.stop(Stop::InDigest, event.id, log);
        }
        if new.is_empty() {
            return Ok(());
        }
        let config = &self.gateway.config.escalation;
        let found = digest::unread(self.store, self.user_id, last).await?;
        if found.is_empty() {
            return Ok(());
        }
        let Digest { events, up_to } = digest::collect(found, config, &self.wishes, which);
        let events = self.not_ordered(&events, None).await?;
        if !events.is_empty() {
            let order = self.order(None, DIGEST, events);
            self.place(&order, log).await?;
        }
        let position = Position {
            epoch: self.look.head.epoch,
            seq: up_to,
        };
        digest::remember(self.store, self.user_id, which, position).await?;
        Ok(())
    }
}

impl Plan {
    fn again(&mut self, at: Timestamp, digest: Option<MailChoice>, check: &Check) {
        let checks = self.again.entry((at, digest)).or_default();
        checks.push(check.clone());
    }
}
