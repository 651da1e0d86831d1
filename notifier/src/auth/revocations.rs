//! Which tokens are good no more. Pure, and bounded.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bellhop_common::wire::{REVOCATION_LASTS, Revocation};
use jiff::{SignedDuration, Timestamp};

/// How many users, and how many tokens, are held; the oldest go first.
const REMEMBERED: usize = 100_000;

/// What may follow a time in whole seconds.
const REST_OF_SECOND: SignedDuration = SignedDuration::from_nanos(999_999_999);

/// Every revocation that holds.
#[derive(Debug)]
pub struct Revocations {
    users: Book,
    tokens: Book,
    everybody: Option<Entry>,
    limit: usize,
}

/// What is revoked, and until when that must be known: then the last token it covers has expired.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Tokens issued before are revoked.
    before: Timestamp,
    until: Timestamp,
}

/// Entries by name, and in the order in which they end.
#[derive(Debug, Default)]
struct Book {
    entries: HashMap<Arc<str>, Entry>,
    ends: BTreeSet<(Timestamp, Arc<str>)>,
}

impl Default for Revocations {
    fn default() -> Self {
        Self::with_limit(REMEMBERED)
    }
}

impl Revocations {
    /// Holds at most so many users and so many tokens.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self {
            users: Book::default(),
            tokens: Book::default(),
            everybody: None,
            limit,
        }
    }

    /// Adds a revocation, unless its time is over, and forgets those whose time is. An earlier one
    /// is never weakened.
    pub fn add(&mut self, revocation: &Revocation, now: Timestamp) {
        self.prune(now);
        let time = revocation.time();
        let until = time.saturating_add(REVOCATION_LASTS);
        let until = until.unwrap_or(Timestamp::MAX);
        if until <= now {
            return;
        }
        let of = |before| Entry { before, until };
        match revocation {
            Revocation::User {
                user_id,
                issued_before,
                ..
            } => self.users.add(user_id, of(*issued_before), self.limit),
            Revocation::Token { token_id, .. } => {
                self.tokens.add(token_id, of(Timestamp::MAX), self.limit);
            }
            Revocation::Everybody { issued_before, .. } => {
                let entry = of(*issued_before);
                self.everybody = Some(self.everybody.map_or(entry, |old| old.merged(entry)));
            }
        }
    }

    /// Whether a token is revoked. One that does not say when it was issued may be older than any
    /// time.
    #[must_use]
    pub fn covers(
        &self,
        user_id: &str,
        token_id: Option<&str>,
        issued_at: Option<Timestamp>,
    ) -> bool {
        // `iat` is in whole seconds with most issuers. Who is issued a new token in the second of the
        // revocation must get in, so that such a token counts as issued at the second's end.
        let latest = |issued: Timestamp| match issued.subsec_nanosecond() {
            0 => issued.saturating_add(REST_OF_SECOND).unwrap_or(issued),
            _ => issued,
        };
        let covers = |entry: &Entry| issued_at.is_none_or(|issued| latest(issued) < entry.before);
        self.everybody.as_ref().is_some_and(covers)
            || self.users.entries.get(user_id).is_some_and(covers)
            || token_id.is_some_and(|id| self.tokens.entries.contains_key(id))
    }

    /// Forgets what no token can be covered by any more.
    pub fn prune(&mut self, now: Timestamp) {
        self.users.prune(now);
        self.tokens.prune(now);
        self.everybody = self.everybody.filter(|entry| entry.until > now);
    }
}

impl Entry {
    fn merged(self, other: Self) -> Self {
        Self {
            before: self.before.max(other.before),
            until: self.until.max(other.until),
        }
    }
}

impl Book {
    fn add(&mut self, name: &str, entry: Entry, limit: usize) {
        let (name, entry) = match self.entries.remove_entry(name) {
            Some((name, old)) => {
                self.ends.remove(&(old.until, Arc::clone(&name)));
                (name, old.merged(entry))
            }
            None => (Arc::from(name), entry),
        };
        self.ends.insert((entry.until, Arc::clone(&name)));
        self.entries.insert(name, entry);
        while self.ends.len() > limit {
            self.forget_first();
        }
    }

    fn prune(&mut self, now: Timestamp) {
        while self.ends.first().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, name)) = self.ends.pop_first() {
            self.entries.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn user(user_id: &str, issued_before: i64, time: i64) -> Revocation {
        Revocation::User {
            user_id: user_id.into(),
            issued_before: at(issued_before),
            time: at(time),
        }
    }

    fn token(token_id: &str, time: i64) -> Revocation {
        Revocation::Token {
            token_id: token_id.into(),
            time: at(time),
        }
    }

    #[test]
    fn a_new_token_of_the_same_second_is_good() {
        let mut held = Revocations::default();
        let within = at(10)
            .saturating_add(SignedDuration::from_millis(400))
            .unwrap();
        let revocation = Revocation::User {
            user_id: "ann".into(),
            issued_before: within,
            time: within,
        };
        held.add(&revocation, within);
        // In whole seconds nobody can tell whether it was before or after.
        assert!(!held.covers("ann", None, Some(at(10))));
        assert!(held.covers("ann", None, Some(at(9))));
        let before = within
            .saturating_sub(SignedDuration::from_nanos(1))
            .unwrap();
        assert!(held.covers("ann", None, Some(before)));
        assert!(!held.covers("ann", None, Some(within)));
    }

    #[test]
    fn a_revocation_covers_what_it_says_and_nothing_else() {
        let mut held = Revocations::default();
        assert!(!held.covers("ann", Some("t"), None));
        held.add(&user("ann", 10, 10), at(10));
        held.add(&token("t", 10), at(10));
        for (user, id, issued, wants) in [
            ("ann", None, Some(9), true),
            ("ann", None, Some(10), false),
            ("ann", Some("x"), Some(11), false),
            // It does not say when it was issued.
            ("ann", None, None, true),
            ("bob", None, None, false),
            ("bob", Some("t"), Some(99), true),
        ] {
            let covers = held.covers(user, id, issued.map(at));
            assert_eq!(covers, wants, "{user} {id:?} {issued:?}");
        }
        let (issued_before, time) = (at(5), at(10));
        held.add(
            &Revocation::Everybody {
                issued_before,
                time,
            },
            at(10),
        );
        assert!(held.covers("bob", None, Some(at(4))) && held.covers("bob", None, None));
        assert!(!held.covers("bob", None, Some(at(5))));
    }

    #[test]
    fn a_later_one_does_not_weaken_an_earlier_one() {
        let mut held = Revocations::default();
        held.add(&user("ann", 10, 0), at(0));
        held.add(&user("ann", 5, 1), at(1));
        assert!(held.covers("ann", None, Some(at(9))));
        let before = held.users.ends.len();
        held.add(&user("ann", 20, 2), at(2));
        assert!(held.covers("ann", None, Some(at(19))));
        assert_eq!((before, held.users.ends.len()), (1, 1));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut held = Revocations::default();
        held.add(&user("ann", 0, 0), at(0));
        held.add(&token("t", 5), at(5));
        let (issued_before, time) = (at(0), at(0));
        let everybody = Revocation::Everybody {
            issued_before,
            time,
        };
        held.add(&everybody, at(0));
        let end = at(0) + REVOCATION_LASTS;
        held.prune(end - SignedDuration::from_secs(1));
        assert!(held.covers("ann", None, None));
        held.prune(end);
        assert!(!held.covers("ann", None, None));
        assert!(held.covers("ann", Some("t"), None));
        assert!(held.users.entries.is_empty() && held.users.ends.is_empty());
        // An old one that is still in the stream.
        held.add(&user("bob", 0, 0), end);
        assert!(!held.covers("bob", None, None));
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many() {
        let mut held = Revocations::with_limit(2);
        held.add(&user("ann", 0, 0), at(0));
        held.add(&user("bob", 0, 1), at(1));
        held.add(&user("ann", 0, 2), at(2));
        held.add(&user("cid", 0, 3), at(3));
        held.add(&token("t", 3), at(3));
        let held = ["ann", "bob", "cid"].map(|user| held.covers(user, None, None));
        assert_eq!(held, [true, false, true]);
    }
}
