//! Who is no member of a room any more, although the token says so. Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::protocol::Place;

/// How many are remembered: some megabytes.
const MAX_REMOVALS: usize = 50_000;

/// Removed users. A token that was issued later than the removal counts again.
#[derive(Debug, Default)]
pub(super) struct Removals(HashMap<(Place, String), Timestamp>);

impl Removals {
    pub(super) fn put(&mut self, user: &str, place: &Place, at: Timestamp) {
        if self.0.len() >= MAX_REMOVALS {
            self.drop_older_half();
        }
        self.0.insert((place.clone(), user.to_owned()), at);
    }

    /// The user is a member again.
    pub(super) fn lift(&mut self, user: &str, place: &Place) {
        self.0.remove(&(place.clone(), user.to_owned()));
    }

    /// Whether a token that was issued then is too old for this room. One that does not say when it
    /// was issued is.
    pub(super) fn cover(&self, user: &str, place: &Place, issued_at: Option<Timestamp>) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let removed_at = self.0.get(&(place.clone(), user.to_owned()));
        removed_at.is_some_and(|removed_at| issued_at.is_none_or(|issued| issued <= *removed_at))
    }

    fn drop_older_half(&mut self) {
        let mut times: Vec<Timestamp> = self.0.values().copied().collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        let middle = *middle;
        self.0.retain(|_, at| *at > middle);
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
        let (mut removals, room) = (Removals::default(), Place::room("r"));
        removals.put("ann", &room, at(100));
        assert!(removals.cover("ann", &room, Some(at(100))));
        assert!(removals.cover("ann", &room, None));
        assert!(!removals.cover("ann", &room, Some(at(101))));
        assert!(!removals.cover("bob", &room, Some(at(1))));
        assert!(!removals.cover("ann", &Place::chat("r"), Some(at(1))));
        removals.lift("ann", &room);
        assert!(!removals.cover("ann", &room, Some(at(1))));
    }

    #[test]
    fn when_there_are_too_many_the_oldest_are_forgotten() {
        let (mut removals, room) = (Removals::default(), Place::room("r"));
        for second in 0..=i64::try_from(MAX_REMOVALS).unwrap() {
            removals.put(&second.to_string(), &room, at(second));
        }
        assert!(removals.0.len() <= MAX_REMOVALS);
        assert!(removals.cover(&MAX_REMOVALS.to_string(), &room, None));
        assert!(!removals.cover("0", &room, None));
    }
}
