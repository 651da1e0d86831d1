//! The jobs this worker has in hand, so that a redelivery does not run one twice.
//!
//! When the connection breaks, the broker requeues what we had, while we go on running it. The
//! redelivered message is then matched with the run by the job's id: the run takes over the new
//! receipt. A job that ended while the broker was away is settled when its message returns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use bellhop_common::amqp::Receipt;

/// How many ended jobs are remembered. A redelivery that comes later runs the job again.
const REMEMBERED: usize = 10_000;

/// What a delivery turns out to be.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// Run it.
    New,
    /// It is running here, and its run now holds this receipt.
    Adopted,
    /// The same job was published twice and is running; this copy can go.
    Duplicate(Receipt),
    /// It ended here; only the acknowledgement was lost.
    Ended(Receipt),
}

#[derive(Debug, Default)]
pub(crate) struct InHand {
    jobs: Mutex<Jobs>,
}

#[derive(Debug, Default)]
struct Jobs {
    running: HashMap<String, Receipt>,
    ended: Ended,
}

/// The newest ended jobs, oldest first.
#[derive(Debug, Default)]
struct Ended {
    order: VecDeque<String>,
    count: HashMap<String, usize>,
}

impl InHand {
    /// A delivery arrived.
    pub(crate) fn arrived(&self, id: &str, redelivered: bool, receipt: Receipt) -> Arrival {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = jobs.running.get_mut(id) {
            if held.is_usable() {
                return Arrival::Duplicate(receipt);
            }
            *held = receipt;
            return Arrival::Adopted;
        }
        // Only a redelivery: a new message with an old id is a replay that somebody asked for.
        if redelivered && jobs.ended.contains(id) {
            return Arrival::Ended(receipt);
        }
        jobs.running.insert(id.to_owned(), receipt);
        Arrival::New
    }

    /// A job ended and its outcome is kept by the broker. The receipt to settle, if it still is
    /// in hand.
    pub(crate) fn ended(&self, id: &str) -> Option<Receipt> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.ended.push(id);
        jobs.running.remove(id)
    }

    /// A job is given up unfinished.
    pub(crate) fn abandoned(&self, id: &str) -> Option<Receipt> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.running.remove(id)
    }
}

impl Ended {
    fn contains(&self, id: &str) -> bool {
        self.count.contains_key(id)
    }

    fn push(&mut self, id: &str) {
        self.order.push_back(id.to_owned());
        *self.count.entry(id.to_owned()).or_default() += 1;
        if self.order.len() <= REMEMBERED {
            return;
        }
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        if let Some(count) = self.count.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ended_jobs_are_remembered_and_no_more() {
        let mut ended = Ended::default();
        ended.push("twice");
        for n in 0..REMEMBERED - 1 {
            ended.push(&n.to_string());
        }
        assert!(ended.contains("twice"));
        ended.push("twice");
        assert!(
            ended.contains("twice"),
            "the first of two left, the second stays"
        );
        ended.push("one more");
        assert!(!ended.contains("0"));
        assert!(ended.contains("twice"));
        assert_eq!(ended.order.len(), REMEMBERED);
        assert!(ended.count.len() <= REMEMBERED);
    }
}
