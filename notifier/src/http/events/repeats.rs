//! Which requests came before, by their `Idempotency-Key`. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use uuid::{Uuid, uuid};

/// How long a request is remembered.
const REMEMBER: Duration = Duration::from_mins(10);

/// How many are: some megabytes at most. Of more, the older half is forgotten.
const MAX_KNOWN: usize = 10_000;

/// The longest key.
pub(super) const MAX_KEY_BYTES: usize = 255;

/// Of the ids that are made from keys.
const NAMESPACE: Uuid = uuid!("5b1f7c0e-8a52-4f0f-9a6e-3f1d7f4f3c11");

/// Two publishers may use the same text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) user: String,
    pub(super) text: String,
}

impl Key {
    /// The id of the event at this place of the request: the same on every instance, so that whoever
    /// gets it twice can know.
    pub(super) fn event_id(&self, index: usize) -> Uuid {
        let Self { user, text } = self;
        // With a length, or two of these could read the same.
        let name = format!("{}:{user}:{index}:{text}", user.len());
        Uuid::new_v5(&NAMESPACE, name.as_bytes())
    }
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Work on it; then it is [`Repeats::done`] or [`Repeats::failed`].
    New,
    /// It is being worked on.
    InProgress,
    /// It was done before.
    Done,
    /// Its key came with another body.
    OtherBody,
}

/// The requests of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Repeats(HashMap<Key, Known>);

#[derive(Debug, Clone, Copy)]
struct Known {
    /// A hash of it.
    body: u64,
    /// Nothing while it is in progress.
    done_at: Option<Instant>,
}

impl Known {
    fn is_over(self, now: Instant) -> bool {
        self.done_at.is_some_and(|at| now >= at + REMEMBER)
    }
}

impl Repeats {
    pub(super) fn begin(&mut self, key: &Key, body: u64, now: Instant) -> Begun {
        match self.0.get(key) {
            Some(known) if known.is_over(now) => {}
            Some(known) if known.body != body => return Begun::OtherBody,
            Some(Known { done_at: None, .. }) => return Begun::InProgress,
            Some(_) => return Begun::Done,
            None => self.make_room(now),
        }
        let known = Known {
            body,
            done_at: None,
        };
        self.0.insert(key.clone(), known);
        Begun::New
    }

    pub(super) fn done(&mut self, key: &Key, now: Instant) {
        if let Some(known) = self.0.get_mut(key) {
            known.done_at = Some(now);
        }
    }

    /// It may be tried again, and with another body.
    pub(super) fn failed(&mut self, key: &Key) {
        self.0.remove(key);
    }

    fn make_room(&mut self, now: Instant) {
        if self.0.len() < MAX_KNOWN {
            return;
        }
        self.0.retain(|_, known| !known.is_over(now));
        let mut times: Vec<_> = self.0.values().filter_map(|known| known.done_at).collect();
        if self.0.len() < MAX_KNOWN || times.is_empty() {
            return;
        }
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        self.0
            .retain(|_, known| known.done_at.is_none_or(|at| at > middle));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: impl Into<String>) -> Key {
        Key {
            user: "shop".into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_repeated_request_is_known_for_its_time() {
        let (mut repeats, now) = (Repeats::default(), Instant::now());
        let a = key("a");
        assert_eq!(repeats.begin(&a, 1, now), Begun::New);
        assert_eq!(repeats.begin(&a, 1, now), Begun::InProgress);
        assert_eq!(repeats.begin(&a, 2, now), Begun::OtherBody);
        assert_eq!(repeats.begin(&key("b"), 2, now), Begun::New);
        repeats.done(&a, now);
        assert_eq!(repeats.begin(&a, 1, now), Begun::Done);
        assert_eq!(repeats.begin(&a, 2, now), Begun::OtherBody);
        assert_eq!(repeats.begin(&a, 2, now + REMEMBER), Begun::New);
        repeats.failed(&a);
        assert_eq!(repeats.begin(&a, 3, now), Begun::New);
        let same_text = Key {
            user: "mail".into(),
            ..a
        };
        assert_eq!(repeats.begin(&same_text, 1, now), Begun::New);
    }

    #[test]
    fn of_too_many_the_older_are_forgotten_but_none_in_progress() {
        let (mut repeats, start) = (Repeats::default(), Instant::now());
        assert_eq!(repeats.begin(&key("slow"), 1, start), Begun::New);
        let nth = |n: usize| key(n.to_string());
        for n in 0..MAX_KNOWN * 2 {
            let now = start + Duration::from_millis(n as u64);
            assert_eq!(repeats.begin(&nth(n), 1, now), Begun::New);
            repeats.done(&nth(n), now);
            assert!(repeats.0.len() <= MAX_KNOWN);
        }
        assert_eq!(repeats.begin(&key("slow"), 1, start), Begun::InProgress);
        let newest = nth(MAX_KNOWN * 2 - 1);
        assert_eq!(repeats.begin(&newest, 1, start), Begun::Done);
        assert_eq!(repeats.begin(&nth(0), 1, start), Begun::New);
    }

    #[test]
    fn ids_differ_by_publisher_key_and_place() {
        let (a, b) = (key("1:x"), key("x"));
        assert_eq!(a.event_id(0), key("1:x").event_id(0));
        let mut ids = vec![a.event_id(0), a.event_id(1), b.event_id(0), b.event_id(1)];
        let user = "shop:0".into();
        ids.push(
            Key {
                user,
                text: "x".into(),
            }
            .event_id(1),
        );
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }
}
