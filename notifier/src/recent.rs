//! Where nothing is kept: which stored events were shown lately, so that a task's end that was told twice
//! is seen once. With a store, numbers say that.
//!
//! A worker can be lost between telling an end and knowing that it did. The next one then tells it
//! again, with the same event id. So can a notifier between telling a bundle and knowing that.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, PoisonError};

/// How many events are remembered: some minutes of a busy system, in a few megabytes.
const REMEMBERED: usize = 65_536;

/// The newest events, by id and routing key: an event goes to its user and its room with one id.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    known: HashSet<u64>,
    /// Oldest first.
    order: VecDeque<u64>,
}

impl Recent {
    /// Takes note of an event; whether it is new.
    pub(crate) fn is_new(&self, id: &str, key: &str) -> bool {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.add(mark(id, key), REMEMBERED)
    }
}

impl Memory {
    fn add(&mut self, mark: u64, limit: usize) -> bool {
        if !self.known.insert(mark) {
            return false;
        }
        self.order.push_back(mark);
        if self.order.len() > limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

fn mark(id: &str, key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (id, key).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_new_once_for_each_audience() {
        let recent = Recent::default();
        assert!(recent.is_new("e", "live.user.ann.x"));
        assert!(recent.is_new("e", "live.room.r.x"));
        assert!(!recent.is_new("e", "live.user.ann.x"));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut memory = Memory::default();
        for mark in 0..5 {
            assert!(memory.add(mark, 3));
        }
        assert!(!memory.add(4, 3));
        assert!(memory.add(0, 3));
        assert_eq!((memory.known.len(), memory.order.len()), (3, 3));
    }
}
