//! The jobs this worker has in hand, so that a redelivery does not run one twice.
//!
//! When the connection breaks, the broker requeues what we had, while we go on running it. The
//! redelivered message is then matched with the run by the job's id: the run takes over the new
//! receipt. A job that ended while the broker was away is settled when its message returns.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bellhop_common::amqp::Receipt;

/// How many ended jobs are remembered, and for how long. A redelivery that comes later runs the job
/// again. A message whose acknowledgement was lost returns as soon as the broker has noticed the
/// lost connection; much later it is somebody's replay, redelivered because another worker died.
const REMEMBERED: usize = 10_000;
const REMEMBERED_FOR: Duration = Duration::from_mins(10);

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
    /// When each ended last, and how often it stands in `order`.
    seen: HashMap<String, (Instant, usize)>,
}

impl InHand {
    /// A delivery arrived.
    pub(crate) fn arrived(
        &self,
        id: &str,
        redelivered: bool,
        receipt: Receipt,
        now: Instant,
    ) -> Arrival {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = jobs.running.get_mut(id) {
            // A redelivery is the message of this run; a first delivery is another message.
            if !redelivered {
                return Arrival::Duplicate(receipt);
            }
            *held = receipt;
            return Arrival::Adopted;
        }
        // Only a redelivery: a new message with an old id is a replay that somebody asked for.
        if redelivered && jobs.ended.contains(id, now) {
            return Arrival::Ended(receipt);
        }
        jobs.running.insert(id.to_owned(), receipt);
        Arrival::New
    }

    /// A job ended and its outcome is kept by the broker. The receipt to settle, if it still is
    /// in hand.
    pub(crate) fn ended(&self, id: &str, now: Instant) -> Option<Receipt> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.ended.push(id, now);
        jobs.running.remove(id)
    }

    /// A job is given up unfinished.
    pub(crate) fn abandoned(&self, id: &str) -> Option<Receipt> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.running.remove(id)
    }
}

impl Ended {
    fn contains(&self, id: &str, now: Instant) -> bool {
        self.seen
            .get(id)
            .is_some_and(|(at, _)| now.duration_since(*at) < REMEMBERED_FOR)
    }

    fn push(&mut self, id: &str, now: Instant) {
        self.order.push_back(id.to_owned());
        let seen = self.seen.entry(id.to_owned()).or_insert((now, 0));
        *seen = (now, seen.1 + 1);
        if self.order.len() <= REMEMBERED {
            return;
        }
        let Some(oldest) = self.order.pop_front() else {
            return;
        };
        if let Some((_, times)) = self.seen.get_mut(&oldest) {
            *times -= 1;
            if *times == 0 {
                self.seen.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ended_jobs_are_remembered_and_no_more() {
        let (mut ended, now) = (Ended::default(), Instant::now());
        ended.push("twice", now);
        for n in 0..REMEMBERED - 1 {
            ended.push(&n.to_string(), now);
        }
        assert!(ended.contains("twice", now));
        ended.push("twice", now);
        assert!(
            ended.contains("twice", now),
            "the first of two left, the second stays"
        );
        ended.push("one more", now);
        assert!(!ended.contains("0", now));
        assert!(ended.contains("twice", now));
        assert_eq!(ended.order.len(), REMEMBERED);
        assert!(ended.seen.len() <= REMEMBERED);
    }

    #[test]
    fn an_ended_job_is_forgotten_after_a_while() {
        let (mut ended, now) = (Ended::default(), Instant::now());
        ended.push("t", now);
        assert!(ended.contains("t", now + REMEMBERED_FOR / 2));
        assert!(!ended.contains("t", now + REMEMBERED_FOR));
    }
}
