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
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bellhop_common::amqp::Receipt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::message::JobMessage;

/// What a delivery turns out to be.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Run it, unless this token says to end it.
    New(CancellationToken),
    /// It is in hand here, and its run now holds this receipt.
    Adopted,
    /// The same job was published twice and is in hand; this copy can go.
    Duplicate(Receipt),
}

#[derive(Debug, Default)]
pub(crate) struct InHand {
    jobs: Mutex<HashMap<Uuid, Held>>,
}

#[derive(Debug)]
struct Held {
    /// Absent while a renewed message is under way.
    receipt: Option<Receipt>,
    received: Instant,
    task_id: String,
    user_id: String,
    cancel: CancellationToken,
}

impl InHand {
    /// A delivery arrived.
    pub(crate) fn arrived(&self, message: &JobMessage, receipt: Receipt, now: Instant) -> Arrival {
        match self.lock().entry(message.settlement()) {
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                // What is still ours cannot come again: this is another message of the job. If it
                // is ours no more, any message will do to go on with.
                if held.receipt.as_ref().is_some_and(Receipt::is_valid) {
                    return Arrival::Duplicate(receipt);
                }
                held.receipt = Some(receipt);
                held.received = now;
                Arrival::Adopted
            }
            Entry::Vacant(place) => {
                let cancel = CancellationToken::new();
                place.insert(Held {
                    receipt: Some(receipt),
                    received: now,
                    task_id: message.job.id.clone(),
                    user_id: message.job.user_id.clone(),
                    cancel: cancel.clone(),
                });
                Arrival::New(cancel)
            }
        }
    }

    /// A job is done with, or given up. The receipt to settle, if it still is in hand.
    pub(crate) fn let_go(&self, message: &JobMessage) -> Option<Receipt> {
        self.lock().remove(&message.settlement())?.receipt
    }

    /// Whether somebody else may have the job's message by now.
    pub(crate) fn may_be_elsewhere(&self, message: &JobMessage) -> bool {
        let jobs = self.lock();
        let receipt = jobs
            .get(&message.settlement())
            .and_then(|held| held.receipt.as_ref());
        !receipt.is_some_and(Receipt::is_valid)
    }

    /// Asks a job to end; whether it is in hand and of this user.
    pub(crate) fn cancel(&self, id: &str, user_id: Option<&str>) -> bool {
        let jobs = self.lock();
        let held = jobs
            .values()
            .filter(|held| held.task_id == id && user_id.is_none_or(|user| user == held.user_id));
        let tokens: Vec<_> = held.map(|held| held.cancel.clone()).collect();
        drop(jobs);
        for token in &tokens {
            token.cancel();
        }
        !tokens.is_empty()
    }

    /// When a job's message will have been held for `limit`; `None` if it has been.
    pub(crate) fn renewal(
        &self,
        message: &JobMessage,
        limit: Duration,
        now: Instant,
    ) -> Option<Instant> {
        let jobs = self.lock();
        let held = jobs.get(&message.settlement())?;
        Some(held.received + limit).filter(|due| *due > now)
    }

    /// The message of a running job is replaced by its next one, which is under way; the receipt
    /// of the old one.
    pub(crate) fn renewed(&self, message: &JobMessage) -> Option<Receipt> {
        let mut jobs = self.lock();
        let mut held = jobs.remove(&message.settlement())?;
        let receipt = held.receipt.take();
        jobs.insert(message.next_settlement(), held);
        receipt
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
