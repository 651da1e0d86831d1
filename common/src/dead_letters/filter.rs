//! Which letters.

use std::time::Duration;

use jiff::Timestamp;

use super::letter::DeadLetter;

/// Which letters are meant: those that match everything that is set. Of a list, one must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ids.
    pub ids: Vec<String>,
    /// Kinds.
    pub kinds: Vec<String>,
    /// Reasons.
    pub reasons: Vec<String>,
    /// Given up longer ago than this. A letter that does not say when has no age, and never
    /// matches.
    pub older_than: Option<Duration>,
    /// Given up less long ago than this.
    pub newer_than: Option<Duration>,
}

impl Filter {
    /// Whether it asks for nothing, and so matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a letter is meant.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter, now: Timestamp) -> bool {
        let one_of =
            |list: &[String], value: &str| list.is_empty() || list.iter().any(|x| x == value);
        one_of(&self.ids, &letter.id)
            && one_of(&self.kinds, letter.kind.as_deref().unwrap_or_default())
            && one_of(&self.reasons, &letter.reason)
            && self.matches_age(letter.died_at, now)
    }

    fn matches_age(&self, died_at: Option<Timestamp>, now: Timestamp) -> bool {
        if self.older_than.is_none() && self.newer_than.is_none() {
            return true;
        }
        let Some(died_at) = died_at else { return false };
        // A worker's clock may be ahead of ours: what died in the future has just died.
        let age = Duration::try_from(now.duration_since(died_at)).unwrap_or_default();
        self.older_than.is_none_or(|limit| age > limit)
            && self.newer_than.is_none_or(|limit| age < limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(died_at: Option<&str>) -> DeadLetter {
        DeadLetter {
            id: "t1".into(),
            kind: Some("k".into()),
            user_id: None,
            title: None,
            origin: None,
            reason: "timeout".into(),
            error: None,
            attempts: 1,
            died_at: died_at.and_then(|at| at.parse().ok()),
            replays: 0,
            history: Vec::new(),
            bytes: 2,
        }
    }

    #[test]
    fn a_letter_matches_when_everything_asked_for_does() {
        let now = "2026-01-15T10:30:00Z".parse().unwrap();
        let list = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let hour_old = letter(Some("2026-01-15T09:30:00Z"));
        let ages = |older: Option<u64>, newer: Option<u64>| Filter {
            older_than: older.map(Duration::from_secs),
            newer_than: newer.map(Duration::from_secs),
            ..Filter::default()
        };
        for (filter, wants) in [
            (Filter::default(), true),
            (
                Filter {
                    ids: list(&["t0", "t1"]),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    ids: list(&["t1"]),
                    kinds: list(&["other"]),
                    ..Filter::default()
                },
                false,
            ),
            (
                Filter {
                    kinds: list(&["k"]),
                    reasons: list(&["timeout"]),
                    ..Filter::default()
                },
                true,
            ),
            (
                Filter {
                    reasons: list(&["panic"]),
                    ..Filter::default()
                },
                false,
            ),
            (ages(Some(3599), None), true),
            (ages(Some(3600), None), false),
            (ages(None, Some(3601)), true),
            (ages(Some(60), Some(3600)), false),
        ] {
            assert_eq!(filter.matches(&hour_old, now), wants, "{filter:?}");
        }
        assert!(
            !ages(None, Some(9999)).matches(&letter(None), now),
            "it has no age"
        );
        let ahead = letter(Some("2026-01-15T10:30:05Z"));
        assert!(ages(None, Some(60)).matches(&ahead, now));
        assert!(!ages(Some(0), None).matches(&ahead, now));
    }
}
