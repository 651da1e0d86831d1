//! Batches that this instance alone has to show: only their number goes through the broker.
//!
//! It goes there for the order: the end of a task comes after the progress that was published before
//! it. Where notifiers share a store, a [`bundle`](super::bundle) carries the events themselves. Pure.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;

use super::bundle::Told;

/// The first word of the routing key.
pub(crate) const KEY_WORD: &str = "batch";

/// How much may wait, in bytes of events. What is left out is read from the store, as after any gap.
const MOST: usize = 16 * 1024 * 1024;

/// Those that wait for their number to come back.
#[derive(Debug)]
pub(crate) struct Batches {
    key: String,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    bytes: usize,
    batches: VecDeque<Batch>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    bytes: usize,
    events: Vec<Told>,
}

impl Batches {
    /// None wait yet.
    pub(crate) fn new() -> Self {
        Self {
            // Not the instance's name: two might have the same.
            key: format!("{KEY_WORD}.{}", Uuid::now_v7()),
            waiting: Mutex::default(),
        }
    }

    /// The routing key with which numbers come back to this process, and to no other.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Has a batch wait. Its number.
    pub(crate) fn put(&self, events: Vec<Told>) -> u64 {
        let bytes = events.iter().map(|told| told.body.len()).sum();
        let mut waiting = self.lock();
        waiting.last += 1;
        waiting.bytes += bytes;
        let number = waiting.last;
        waiting.batches.push_back(Batch {
            number,
            bytes,
            events,
        });
        while waiting.bytes > MOST && waiting.batches.len() > 1 {
            waiting.pop();
        }
        number
    }

    /// The events of a batch whose number has come back. Numbers of earlier ones will not, if they
    /// have not yet: they were lost with a connection.
    pub(crate) fn take(&self, number: u64) -> Vec<Told> {
        let mut waiting = self.lock();
        while let Some(batch) = waiting.batches.front() {
            if batch.number > number {
                break;
            }
            let is_it = batch.number == number;
            let events = waiting.pop();
            if is_it {
                return events;
            }
        }
        Vec::new()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn pop(&mut self) -> Vec<Told> {
        let Some(batch) = self.batches.pop_front() else {
            return Vec::new();
        };
        self.bytes -= batch.bytes;
        batch.events
    }
}

#[cfg(test)]
mod tests {
    use bellhop_common::wire::EventKey;
    use bytes::Bytes;

    use super::*;

    fn batch(bytes: usize) -> Vec<Told> {
        vec![Told {
            key: EventKey::parse("live.user.ann.note").unwrap(),
            position: None,
            unread: None,
            body: Bytes::from(vec![0; bytes]),
        }]
    }

    #[test]
    fn a_number_brings_its_batch_once() {
        let batches = Batches::new();
        let (first, second, third) = (batch(1), batch(2), batch(3));
        let numbers = [&first, &second, &third].map(|batch| batches.put(batch.clone()));
        assert_eq!(batches.take(numbers[0]), first);
        assert_eq!(batches.take(numbers[0]), [], "published twice");
        assert_eq!(batches.take(numbers[2]), third);
        assert_eq!(batches.take(numbers[1]), [], "lost, and late");
        assert_eq!(batches.take(99), []);
    }

    #[test]
    fn what_is_too_much_is_left_out_oldest_first() {
        let batches = Batches::new();
        let third = MOST / 3 + 1;
        let numbers = [(); 3].map(|()| batches.put(batch(third)));
        let large = batches.put(batch(2 * MOST));
        for number in numbers {
            assert_eq!(batches.take(number), []);
        }
        assert_eq!(
            batches.take(large),
            batch(2 * MOST),
            "one alone is never too much"
        );
        let after = batches.put(batch(1));
        assert_eq!(batches.take(after), batch(1));
    }
}
