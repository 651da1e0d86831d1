//! What backends said lately of who is a member where. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::protocol::Place;

/// How many users' memberships are remembered: some megabytes.
const REMEMBERED: usize = 50_000;

/// A moment between two changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(u64);

/// The latest change of each user's membership in each room.
#[derive(Debug, Default)]
pub(super) struct Memberships {
    changes: HashMap<Key, Change>,
    /// When each change came, the oldest first.
    order: BTreeMap<Moment, Key>,
    now: Moment,
}

type Key = (Place, String);

#[derive(Debug, Clone, Copy)]
struct Change {
    at: Moment,
    /// The time of the removal; none for a member.
    removed: Option<Timestamp>,
}

impl Memberships {
    /// What is decided from now on takes all earlier changes into account.
    pub(super) fn now(&self) -> Moment {
        self.now
    }

    pub(super) fn remove(&mut self, user: &str, place: &Place, time: Timestamp) {
        self.change(user, place, Some(time));
    }

    pub(super) fn add(&mut self, user: &str, place: &Place) {
        self.change(user, place, None);
    }

    /// Whether a token that was issued then is too old for this room, because the user was removed
    /// since. One that does not say when it was issued is.
    pub(super) fn outdate(&self, user: &str, place: &Place, issued_at: Option<Timestamp>) -> bool {
        let removed = self.latest(user, place).and_then(|change| change.removed);
        removed.is_some_and(|removed| issued_at.is_none_or(|issued| issued <= removed))
    }

    /// Whether anything was said of this membership after a moment.
    pub(super) fn changed_since(&self, user: &str, place: &Place, moment: Moment) -> bool {
        let latest = self.latest(user, place);
        latest.is_some_and(|change| change.at > moment)
    }

    /// Whether the user was removed after a moment, and not added again.
    pub(super) fn removed_since(&self, user: &str, place: &Place, moment: Moment) -> bool {
        let latest = self.latest(user, place);
        latest.is_some_and(|change| change.at > moment && change.removed.is_some())
    }

    fn latest(&self, user: &str, place: &Place) -> Option<Change> {
        if self.changes.is_empty() {
            return None;
        }
        let key = (place.clone(), user.to_owned());
        self.changes.get(&key).copied()
    }

    fn change(&mut self, user: &str, place: &Place, removed: Option<Timestamp>) {
        self.now.0 += 1;
        let key = (place.clone(), user.to_owned());
        let change = Change {
            at: self.now,
            removed,
        };
        if let Some(earlier) = self.changes.insert(key.clone(), change) {
            self.order.remove(&earlier.at);
        }
        self.order.insert(self.now, key);
        if self.changes.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.changes.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_older_token_does_not_bring_a_removed_member_back() {
        let (mut memberships, room) = (Memberships::default(), Place::room("r"));
        memberships.remove("ann", &room, at(100));
        assert!(memberships.outdate("ann", &room, Some(at(100))));
        assert!(memberships.outdate("ann", &room, None));
        assert!(!memberships.outdate("ann", &room, Some(at(101))));
        assert!(!memberships.outdate("bob", &room, Some(at(1))));
        assert!(!memberships.outdate("ann", &Place::chat("r"), Some(at(1))));
        memberships.add("ann", &room);
        assert!(!memberships.outdate("ann", &room, Some(at(1))));
    }

    #[test]
    fn what_changes_after_a_decision_is_seen_and_nobody_elses() {
        let (mut memberships, room) = (Memberships::default(), Place::room("r"));
        memberships.remove("ann", &room, at(1));
        let decided = memberships.now();
        memberships.remove("bob", &room, at(2));
        assert!(!memberships.changed_since("ann", &room, decided));
        memberships.remove("ann", &room, at(3));
        assert!(memberships.removed_since("ann", &room, decided));
        memberships.add("ann", &room);
        assert!(memberships.changed_since("ann", &room, decided));
        assert!(!memberships.removed_since("ann", &room, decided));
    }

    #[test]
    fn when_there_are_too_many_the_first_to_come_is_forgotten() {
        let (mut memberships, room) = (Memberships::default(), Place::room("r"));
        for user in 0..=REMEMBERED {
            memberships.remove(&user.to_string(), &room, at(1));
        }
        assert_eq!(memberships.changes.len(), REMEMBERED);
        assert_eq!(memberships.order.len(), REMEMBERED);
        assert!(!memberships.outdate("0", &room, None));
        assert!(memberships.outdate("1", &room, None));
    }
}
