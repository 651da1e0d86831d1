//! The jobs this worker has in hand, so that a redelivery does not run one twice.
//!
//! When the connection breaks, the broker requeues what we had, while we go on running it. The
//! redelivered message is then matched with the run: the run takes over the new
//! receipt. What ended while the broker was away is found in the [ledger](crate::ledger).
//!
//! A job's next message, for another attempt say, may arrive before its predecessor is let go: each
//! is known by its settlement.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bellhop_common::amqp::Receipt;
use uuid::Uuid;

use crate::link::Link;
use crate::message::JobMessage;

/// What a delivery turns out to be.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Run it, unless its owner wishes that it ends.
    New(Arc<Held>),
    /// This job is in hand here, and its run now holds this receipt.
    Adopted(String),
    /// This job was published twice and is in hand; the copy can go.
    Duplicate(String, Receipt),
}

#[derive(Debug, Default)]
pub(crate) struct InHand {
    jobs: Mutex<HashMap<Uuid, Arc<Held>>>,
}

/// A job in hand, as its visit, the orders and the board share it: ten thousand may wait at once,
/// so there is one of everything.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) message: JobMessage,
    /// To its handler.
    pub(crate) link: Arc<Link>,
    grip: Mutex<Grip>,
}

#[derive(Debug)]
struct Grip {
    /// Absent while a renewed message is under way.
    receipt: Option<Receipt>,
    received: Instant,
    /// Whether its message was lost meanwhile: somebody else may have had it.
    came_back: bool,
}

impl InHand {
    /// A delivery arrived.
    pub(crate) fn arrived(&self, message: JobMessage, receipt: Receipt, now: Instant) -> Arrival {
        match self.lock().entry(message.settlement()) {
            Entry::Occupied(held) => {
                let mut grip = held.get().grip();
                // What is still ours cannot come again: this is another message of the job. If it
                // is ours no more, any message will do to go on with.
                if grip.is_valid() {
                    return Arrival::Duplicate(message.job.id, receipt);
                }
                grip.receipt = Some(receipt);
                grip.received = now;
                grip.came_back = true;
                Arrival::Adopted(message.job.id)
            }
            Entry::Vacant(place) => {
                let grip = Grip {
                    receipt: Some(receipt),
                    received: now,
                    came_back: false,
                };
                let held = Arc::new(Held {
                    message,
                    link: Arc::default(),
                    grip: Mutex::new(grip),
                });
                place.insert(Arc::clone(&held));
                Arrival::New(held)
            }
        }
    }

    /// A job is done with, or given up. The receipt to settle, if it still is in hand.
    pub(crate) fn let_go(&self, message: &JobMessage) -> Option<Receipt> {
        let held = self.lock().remove(&message.settlement())?;
        held.grip().receipt.take()
    }

    /// Gives a job up whose message is not here any more; whether it is.
    pub(crate) fn let_go_if_lost(&self, message: &JobMessage) -> bool {
        let mut jobs = self.lock();
        let held = jobs.get(&message.settlement());
        let is_lost = !held.is_some_and(|held| held.grip().is_valid());
        if is_lost {
            jobs.remove(&message.settlement());
        }
        is_lost
    }

    /// Whether somebody else may have the job's message by now, or may have had it meanwhile.
    pub(crate) fn may_be_elsewhere(&self, message: &JobMessage) -> bool {
        let jobs = self.lock();
        let held = jobs.get(&message.settlement());
        let was_always_ours = |held: &Arc<Held>| {
            let grip = held.grip();
            grip.is_valid() && !grip.came_back
        };
        !held.is_some_and(was_always_ours)
    }

    /// Asks a job to end, or all of a group; whether any is in hand and of this user.
    pub(crate) fn cancel(&self, id: &str, user_id: Option<&str>) -> bool {
        let jobs = self.lock();
        let held = jobs.values().filter(|held| {
            let job = &held.message.job;
            job.answers_to(id) && user_id.is_none_or(|user| user == job.user_id)
        });
        let asked: Vec<_> = held.map(Arc::clone).collect();
        drop(jobs);
        for held in &asked {
            held.link.cancel();
        }
        !asked.is_empty()
    }

    /// Tells all runs that the worker gives them up, which they see for themselves.
    pub(crate) fn wake_all(&self) {
        for held in self.lock().values() {
            held.link.wake();
        }
    }

    /// The message of a running job is replaced by its next one, which is under way; the receipt
    /// of the old one.
    pub(crate) fn renewed(&self, message: &JobMessage) -> Option<Receipt> {
        let mut jobs = self.lock();
        let held = jobs.remove(&message.settlement())?;
        let receipt = held.grip().receipt.take();
        jobs.insert(message.next_settlement(), held);
        receipt
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Arc<Held>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Grip {
    fn is_valid(&self) -> bool {
        self.receipt.as_ref().is_some_and(Receipt::is_valid)
    }
}

impl Held {
    #[cfg(test)]
    pub(crate) fn without_receipt(message: JobMessage) -> Arc<Self> {
        let grip = Grip {
            receipt: None,
            received: Instant::now(),
            came_back: false,
        };
        Arc::new(Self {
            message,
            link: Arc::default(),
            grip: Mutex::new(grip),
        })
    }

    /// When its message came.
    pub(crate) fn received(&self) -> tokio::time::Instant {
        self.grip().received.into()
    }

    fn grip(&self) -> MutexGuard<'_, Grip> {
        self.grip.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
