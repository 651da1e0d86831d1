//! What is due, and when to look again. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::config::CatchUp;
use super::schedule::Schedule;

/// A time that passed no longer ago than this is late, not missed: another worker took over, or
/// the broker restarted.
const LATE: SignedDuration = SignedDuration::from_mins(1);

/// How many times of an entry are made up for at once.
pub(super) const MAX_CATCH_UP: usize = 100;

/// A mark further ahead was made by a clock that was wrong, and would hold its entry up.
const WRONG_CLOCK: SignedDuration = SignedDuration::from_hours(24);

/// What nobody has looked at for so long is forgotten.
const FORGET: SignedDuration = SignedDuration::from_hours(400 * 24);

/// A periodic job's name and times.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) schedule: Schedule,
    pub(crate) catch_up: CatchUp,
}

/// The token: what is dealt with, by entry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Token {
    #[serde(default)]
    pub(crate) entries: BTreeMap<String, Mark>,
}

/// How far an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Every time up to this one is dealt with.
    pub(crate) until: Timestamp,
    /// Under which schedule.
    pub(crate) schedule: String,
}

/// What an entry owes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The times to fire for, oldest first.
    pub(crate) times: Vec<Timestamp>,
    /// Others before them passed, too, and are not made up for.
    pub(crate) passed_over: bool,
}

impl Token {
    /// Takes over what the other knows better. Tokens meet when a worker starts, or died between
    /// two steps.
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, theirs) in other.entries {
            match self.entries.get_mut(&name) {
                Some(ours) if ours.until >= theirs.until => {}
                Some(ours) => *ours = theirs,
                None => {
                    self.entries.insert(name, theirs);
                }
            }
        }
    }

    /// Marks as beginning now what has no mark of use, and answers whether anything changed.
    pub(crate) fn prepare(&mut self, entries: &[Entry], now: Timestamp) -> bool {
        let before = self.clone();
        let old = now.checked_sub(FORGET).unwrap_or(Timestamp::MIN);
        let latest = now.checked_add(WRONG_CLOCK).unwrap_or(Timestamp::MAX);
        self.entries.retain(|name, mark| {
            mark.until > old || entries.iter().any(|entry| entry.name == *name)
        });
        for entry in entries {
            let sound = self.entries.get(&entry.name).is_some_and(|mark| {
                mark.schedule == entry.schedule.fingerprint() && mark.until <= latest
            });
            if !sound {
                self.reach(entry, now);
            }
        }
        *self != before
    }

    /// Up to and with `until` the entry is dealt with.
    pub(crate) fn reach(&mut self, entry: &Entry, until: Timestamp) {
        let schedule = entry.schedule.fingerprint().to_owned();
        let mark = Mark { until, schedule };
        self.entries.insert(entry.name.clone(), mark);
    }

    /// What this entry owes. Nothing before it is prepared.
    pub(crate) fn due(&self, entry: &Entry, now: Timestamp) -> Due {
        let mut due = Due::default();
        let Some(mark) = self.entries.get(&entry.name) else {
            return due;
        };
        let late = now.checked_sub(LATE).unwrap_or(Timestamp::MIN);
        // Backwards from now, so that a long absence of a busy schedule costs nothing.
        let mut time = entry.schedule.last(now);
        while let Some(at) = time.filter(|at| *at > mark.until) {
            let wanted = at > late
                || match entry.catch_up {
                    CatchUp::None => false,
                    CatchUp::Last => due.times.is_empty(),
                    CatchUp::All => true,
                };
            if !wanted || due.times.len() == MAX_CATCH_UP {
                due.passed_over = true;
                break;
            }
            due.times.push(at);
            time = entry.schedule.before(at);
        }
        due.times.reverse();
        due
    }

    /// When the next entry is due; at once if one is.
    pub(crate) fn wake(&self, entries: &[Entry]) -> Option<Timestamp> {
        let next = |entry: &Entry| entry.schedule.next(self.entries.get(&entry.name)?.until);
        entries.iter().filter_map(next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn entry(schedule: &str, catch_up: CatchUp) -> Entry {
        Entry {
            name: "e".into(),
            schedule: Schedule::parse(schedule, "UTC").unwrap(),
            catch_up,
        }
    }

    /// A token whose entry is dealt with until then.
    fn token(entry: &Entry, until: &str) -> Token {
        let mut token = Token::default();
        token.reach(entry, at(until));
        token
    }

    /// The times that are due, as hour and minute, and whether others are passed over.
    fn due(entry: &Entry, until: &str, now: &str) -> (Vec<String>, bool) {
        let due = token(entry, until).due(entry, at(now));
        let times = due.times.iter();
        let times = times.map(|time| time.strftime("%H:%M").to_string());
        (times.collect(), due.passed_over)
    }

    #[test]
    fn a_time_is_due_once() {
        let hourly = entry("0 * * * *", CatchUp::Last);
        let fired = |until, now| due(&hourly, until, now).0;
        assert!(fired("2026-01-01T10:30:00Z", "2026-01-01T10:59:59Z").is_empty());
        assert_eq!(
            fired("2026-01-01T10:30:00Z", "2026-01-01T11:00:00.2Z"),
            ["11:00"]
        );
        assert!(fired("2026-01-01T11:00:00.2Z", "2026-01-01T11:00:01Z").is_empty());
        let token = token(&hourly, "2026-01-01T11:00:00.2Z");
        assert_eq!(token.wake(&[hourly]), Some(at("2026-01-01T12:00:00Z")));
    }

    #[test]
    fn what_was_missed_is_made_up_for_as_the_policy_says() {
        let (until, now) = ("2026-01-01T05:00:00Z", "2026-01-01T09:30:00Z");
        let all = ["06:00", "07:00", "08:00", "09:00"];
        for (catch_up, wants, passed_over) in [
            (CatchUp::None, &all[..0], true),
            (CatchUp::Last, &all[3..], true),
            (CatchUp::All, &all[..], false),
        ] {
            let (times, passed) = due(&entry("0 * * * *", catch_up), until, now);
            assert_eq!(times, wants, "{catch_up:?}");
            assert_eq!(passed, passed_over, "{catch_up:?}");
        }
        // Some were missed and one is due now: that one is the last.
        let (times, _) = due(
            &entry("0 * * * *", CatchUp::Last),
            until,
            "2026-01-01T09:00:05Z",
        );
        assert_eq!(times, ["09:00"]);
    }

    #[test]
    fn a_leader_that_comes_within_a_minute_is_late_and_misses_nothing() {
        let every_second = entry("* * * * * *", CatchUp::None);
        let until = "2026-01-01T09:00:00Z";
        let (times, passed) = due(&every_second, until, "2026-01-01T09:00:07.5Z");
        assert_eq!((times.len(), passed), (7, false));
    }

    #[test]
    fn a_clock_that_jumps_starts_no_storm() {
        for catch_up in [CatchUp::None, CatchUp::Last, CatchUp::All] {
            let every_second = entry("* * * * * *", catch_up);
            let (until, now) = ("2026-01-01T09:00:00Z", "2031-01-01T09:00:00Z");
            let (times, passed) = due(&every_second, until, now);
            let count = times.len();
            assert!(count <= MAX_CATCH_UP && passed, "{count} {catch_up:?}");
        }
        // Back: nothing is fired again, and a mark of a day that will not come is forgotten.
        let hourly = entry("0 * * * *", CatchUp::All);
        let mut token = token(&hourly, "2026-01-02T09:00:00Z");
        let entries = [hourly];
        let now = at("2026-01-02T05:00:00Z");
        assert!(!token.prepare(&entries, now));
        assert_eq!(token.due(&entries[0], now), Due::default());
        assert_eq!(token.wake(&entries), Some(at("2026-01-02T10:00:00Z")));
        let now = at("2025-12-31T05:00:00Z");
        assert!(token.prepare(&entries, now));
        assert_eq!(token.due(&entries[0], now), Due::default());
        assert_eq!(token.wake(&entries), Some(at("2025-12-31T06:00:00Z")));
    }

    #[test]
    fn a_new_or_changed_entry_begins_now() {
        let now = at("2026-06-01T09:30:00Z");
        let mut token = Token::default();
        let hourly = [entry("0 * * * *", CatchUp::All)];
        assert_eq!(token.due(&hourly[0], now), Due::default());
        assert!(token.prepare(&hourly, now));
        assert!(!token.prepare(&hourly, now), "the second time it is known");
        assert_eq!(token.due(&hourly[0], now), Due::default());
        token.reach(&hourly[0], at("2026-05-01T00:00:00Z"));
        let daily = [entry("0 0 * * *", CatchUp::All)];
        assert!(token.prepare(&daily, now));
        assert_eq!(token.due(&daily[0], now), Due::default());
    }

    #[test]
    fn what_another_worker_knows_is_kept_for_a_year() {
        let mut token = token(&entry("0 * * * *", CatchUp::Last), "2026-01-01T00:00:00Z");
        assert!(!token.prepare(&[], at("2026-12-31T00:00:00Z")));
        assert!(token.prepare(&[], at("2027-12-31T00:00:00Z")));
        assert_eq!(token, Token::default());
    }

    #[test]
    fn of_two_tokens_the_one_that_is_further_counts() {
        let hourly = entry("0 * * * *", CatchUp::Last);
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        for (one, other) in [(early, late), (late, early)] {
            let mut merged = token(&hourly, one);
            merged.merge(token(&hourly, other));
            merged.merge(Token::default());
            assert_eq!(merged, token(&hourly, late));
        }
    }

    #[test]
    fn a_token_reads_back_and_the_first_one_is_empty() {
        let token = token(&entry("0 * * * *", CatchUp::Last), "2026-01-01T00:00:00Z");
        let body = serde_json::to_vec(&token).unwrap();
        assert_eq!(serde_json::from_slice::<Token>(&body).unwrap(), token);
        let first = serde_json::from_str::<Token>("{}").unwrap();
        assert_eq!(first, Token::default());
    }
}
