//! The backend's answers, for a while. Pure: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::Place;

/// How many answers are kept at most: some megabytes.
const MAX_ANSWERS: usize = 50_000;

/// Who may be where.
#[derive(Debug)]
pub(super) struct Answers {
    good_for: Duration,
    known: HashMap<(Place, String), (bool, Instant)>,
}

impl Answers {
    pub(super) fn new(good_for: Duration) -> Self {
        Self {
            good_for,
            known: HashMap::new(),
        }
    }

    pub(super) fn get(&self, user: &str, place: &Place, now: Instant) -> Option<bool> {
        let (answer, until) = self.known.get(&key(user, place))?;
        (now < *until).then_some(*answer)
    }

    /// When there are too many, the outdated ones go, and if there are none, all: the backend is
    /// asked again.
    pub(super) fn put(&mut self, user: &str, place: &Place, answer: bool, now: Instant) {
        if self.known.len() >= MAX_ANSWERS {
            self.known.retain(|_, (_, until)| now < *until);
        }
        if self.known.len() >= MAX_ANSWERS {
            self.known.clear();
        }
        self.known
            .insert(key(user, place), (answer, now + self.good_for));
    }

    pub(super) fn forget(&mut self, user: &str, place: &Place) {
        self.known.remove(&key(user, place));
    }
}

fn key(user: &str, place: &Place) -> (Place, String) {
    (place.clone(), user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn an_answer_holds_for_its_time_and_its_place() {
        let (mut answers, now) = (Answers::new(MINUTE), Instant::now());
        let (room, chat) = (Place::room("1"), Place::chat("1"));
        answers.put("ann", &room, true, now);
        assert_eq!(answers.get("ann", &room, now), Some(true));
        assert_eq!(answers.get("ann", &chat, now), None);
        assert_eq!(answers.get("bob", &room, now), None);
        assert_eq!(answers.get("ann", &room, now + MINUTE), None);
        answers.put("ann", &room, false, now + MINUTE);
        assert_eq!(answers.get("ann", &room, now + MINUTE), Some(false));
        answers.forget("ann", &room);
        assert_eq!(answers.get("ann", &room, now + MINUTE), None);
    }

    #[test]
    fn there_are_never_too_many() {
        let (mut answers, now) = (Answers::new(MINUTE), Instant::now());
        let room = Place::room("r");
        for user in 0..=MAX_ANSWERS {
            answers.put(&user.to_string(), &room, true, now);
            assert!(answers.known.len() <= MAX_ANSWERS);
        }
        let newest = MAX_ANSWERS.to_string();
        assert_eq!(answers.get(&newest, &room, now), Some(true));
    }
}
