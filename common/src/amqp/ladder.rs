//! The delay ladder: routing keys that make a message wait. Pure.
//!
//! 28 rungs, each a queue that keeps messages for 2^level seconds and then passes them down. A
//! routing key says which rungs to stay on, one word for each from the top, and then where to go:
//! `0.0.….1.0.1.jobs.default` waits 4 s and 1 s. So any delay has a second's precision, nobody
//! waits behind a longer delay, and nothing is kept but in RabbitMQ. The form is `NServiceBus`'s
//! ("Delayed Delivery", RabbitMQ transport), and Celery's since 5.5.

use std::time::Duration;

/// How many rungs there may be.
pub const LEVELS: u8 = 28;

/// The destination of events that are for later: the inbox.
pub const DEFERRED: &str = "deferred";

/// The destination of notes to look later whether events were seen.
pub const ESCALATION: &str = "escalation";

/// The destination of what is to be sent over a channel to somebody who is away.
#[must_use]
pub fn deliver(channel: &str) -> String {
    format!("deliver.{channel}")
}

/// The destination of jobs that run apart from the others of their queue.
#[must_use]
pub fn quarantine(queue: &str) -> String {
    format!("quarantine.{queue}")
}

/// The destination that is a queue of jobs.
#[must_use]
pub fn job_queue(queue: &str) -> String {
    format!("jobs.{queue}")
}

/// The routing key that brings a message to `destination` after so many whole seconds, at most
/// 2^28 - 1.
#[must_use]
pub fn key(wait: Duration, destination: &str) -> String {
    let seconds = wait.as_secs().min((1 << LEVELS) - 1);
    let mut key = String::with_capacity(usize::from(LEVELS) * 2 + destination.len());
    for level in (0..LEVELS).rev() {
        key.push_str(if seconds >> level & 1 == 1 {
            "1."
        } else {
            "0."
        });
    }
    key + destination
}

/// The highest rung that so long a wait needs; `None` if it needs none.
#[must_use]
pub fn top_level(wait: Duration) -> Option<u8> {
    let seconds = wait.as_secs().min((1 << LEVELS) - 1);
    u8::try_from(seconds.checked_ilog2()?).ok()
}

/// Keys that do not wait at all.
pub(super) fn no_wait() -> String {
    "0.".repeat(usize::from(LEVELS)) + "#"
}

/// Keys whose highest rung this is.
pub(super) fn enters(level: u8) -> String {
    "0.".repeat(above(level)) + "1.#"
}

/// Keys that stay on this rung.
pub(super) fn stays(level: u8) -> String {
    "*.".repeat(above(level)) + "1.#"
}

/// Keys that pass this rung.
pub(super) fn passes(level: u8) -> String {
    "*.".repeat(above(level)) + "0.#"
}

/// Keys of this destination, wherever they waited.
pub(super) fn arrivals(destination: &str) -> String {
    "*.".repeat(usize::from(LEVELS)) + destination
}

fn above(level: u8) -> usize {
    usize::from(LEVELS - 1 - level)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
        loop {
            match (pattern.next(), key.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("*"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                _ => return false,
            }
        }
    }

    /// Walks down the ladder as RabbitMQ would; answers where it comes out and how long it took.
    fn walk(key: &str) -> (String, u64) {
        let mut waited = 0;
        let mut level = (0..LEVELS).find(|level| matches(&enters(*level), key));
        assert_ne!(level.is_none(), !matches(&no_wait(), key));
        if let Some(entered) = level {
            waited = 1 << entered;
            level = entered.checked_sub(1);
        }
        while let Some(at) = level {
            assert_ne!(matches(&stays(at), key), matches(&passes(at), key));
            if matches(&stays(at), key) {
                waited += 1 << at;
            }
            level = at.checked_sub(1);
        }
        let destination = key.split('.').skip(usize::from(LEVELS));
        (destination.collect::<Vec<_>>().join("."), waited)
    }

    #[test]
    fn every_wait_takes_as_long_as_it_says() {
        let longest = (1 << LEVELS) - 1;
        for seconds in (0..300).chain([86_400, 604_800, longest - 1, longest]) {
            let key = key(Duration::from_secs(seconds), "jobs.a.b");
            assert_eq!(walk(&key), ("jobs.a.b".to_owned(), seconds));
            assert!(matches(&arrivals("jobs.a.b"), &key));
            assert!(!matches(&arrivals("jobs.b"), &key));
        }
        assert_eq!(walk(&key(Duration::MAX, "x")).1, longest);
    }

    #[test]
    fn the_top_is_the_highest_rung_that_is_needed() {
        for (seconds, level) in [
            (0, None),
            (1, Some(0)),
            (2, Some(1)),
            (7, Some(2)),
            (8, Some(3)),
        ] {
            assert_eq!(top_level(Duration::from_secs(seconds)), level);
        }
        assert_eq!(top_level(Duration::MAX), Some(LEVELS - 1));
    }
}
