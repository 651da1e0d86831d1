//! What follows for one user's events when the time has come.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_common::amqp::PublishError;
use jiff::Timestamp;
use thiserror::Error;

use super::checks::{self, Check, Checks};
use super::decision::{Next, Stop, next};
use super::digest::{self, Digest, MOST_IN_ONE};
use super::preferences::{MailChoice, Preferences, preferences_document};
use super::seen::Look;
use super::{Channel, DIGEST};
use crate::deliver::{Order, Ordered, recipients};
use crate::deliveries::{self, Attempt, ORDERED, SUMMARISED};
use crate::documents;
use crate::gateway::Gateway;
use crate::store::{AttemptRecord, Position, SharedStore, StoreError};

/// More pushes than this for one user at one time are one that says how many.
const SINGLE_PUSHES: usize = 3;

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

/// One user, and what is known of him.
pub(super) struct Visit<'a> {
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
pub(super) struct Plan {
    send: BTreeMap<String, Vec<Ordered>>,
    in_digest: Vec<Ordered>,
    again: BTreeMap<(Timestamp, Option<MailChoice>), Vec<Check>>,
}

impl<'a> Visit<'a> {
    pub(super) async fn begin(
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

    pub(super) async fn plan(
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

    pub(super) async fn carry_out(
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

    /// A digest stands for all that is not read, and not only for what this message is about: what one
    /// stands for is not in another. It shows the newest, and of the rest says how many they are.
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
        let choices = (config, &self.wishes);
        let found = digest::collect(self.store, self.user_id, last, choices, which).await?;
        let Digest { events, up_to } = found;
        if up_to == 0 {
            return Ok(());
        }
        let mut shown = self.not_ordered(&events, None).await?;
        let summarised = shown.split_off(shown.len().min(MOST_IN_ONE));
        if !shown.is_empty() {
            shown.reverse();
            let more = u32::try_from(summarised.len()).unwrap_or(u32::MAX);
            let order = Order {
                more,
                ..self.order(None, DIGEST, shown)
            };
            self.place(&order, log).await?;
            let attempt = Attempt {
                order: Some(order.id),
                ..Attempt::none(self.channel.as_str(), self.user_id, SUMMARISED, self.now)
            };
            log.extend(attempt.records(summarised.iter().map(|event| event.id)));
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
