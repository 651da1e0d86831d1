//! What a user wants to be told, how, and when not. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, Time, Weekday, time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::quiet_hours::QuietHours;

/// How many quiet times one user may have.
const MAX_QUIET: usize = 14;

/// How many times in a row are looked at: so many days of quiet without a break.
const MAX_ROW: usize = 10;

/// When a daily digest comes if nobody says.
pub(crate) const DIGEST_AT: Time = time(8, 0, 0, 0);

/// An hour, in seconds.
const HOUR: i64 = 3600;

/// The name of the document with a user's preferences.
pub(crate) fn preferences_document(user_id: &str) -> String {
    format!("preferences:{user_id}")
}

/// What a user has chosen. What is left out is as the configuration has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Preferences {
    /// The time zone that hours are meant in, e.g. `Europe/Berlin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// When nothing is sent; what comes then waits.
    pub(crate) quiet_hours: Vec<Quiet>,
    /// When a daily digest is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest_at: Option<Time>,
    /// Of each category, what is wanted.
    pub(crate) categories: BTreeMap<String, Choice>,
}

/// How one category of events may reach somebody who is away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Choice {
    /// By Web Push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) push: Option<bool>,
    /// By mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mail: Option<MailChoice>,
}

/// How often mail may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailChoice {
    /// Not at all.
    Never,
    /// As things happen.
    Each,
    /// What is still unread, at each full hour.
    Hourly,
    /// What is still unread, once a day.
    Daily,
}

/// Hours of some days in which nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quiet {
    /// The days on which they begin; none is every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) days: Vec<Day>,
    /// From then on.
    pub(crate) from: Time,
    /// Until then, on the next day if that is not later.
    pub(crate) to: Time,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// Why preferences cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PreferencesError {
    /// No such place.
    #[error("`time_zone` must be a name such as Europe/Berlin, not {0:?}")]
    TimeZone(String),
    /// Too many.
    #[error("`quiet_hours` may be {MAX_QUIET}, they are {0}")]
    TooMany(usize),
    /// Not one that is configured.
    #[error("there is no category {name:?}; there are: {known}")]
    Category {
        /// The name.
        name: String,
        /// Those that there are.
        known: String,
    },
}

impl Day {
    fn weekday(self) -> Weekday {
        match self {
            Self::Mon => Weekday::Monday,
            Self::Tue => Weekday::Tuesday,
            Self::Wed => Weekday::Wednesday,
            Self::Thu => Weekday::Thursday,
            Self::Fri => Weekday::Friday,
            Self::Sat => Weekday::Saturday,
            Self::Sun => Weekday::Sunday,
        }
    }
}

impl Quiet {
    fn hours(&self) -> QuietHours {
        QuietHours {
            days: self.days.iter().map(|day| day.weekday()).collect(),
            from: self.from,
            to: self.to,
        }
    }
}

impl Preferences {
    /// Checks what a user has written, for the categories that there are.
    ///
    /// # Errors
    /// [`PreferencesError`].
    pub(crate) fn check<'a>(
        &self,
        known: impl Iterator<Item = &'a str>,
    ) -> Result<(), PreferencesError> {
        if let Some(name) = &self.time_zone
            && TimeZone::get(name).is_err()
        {
            let name = name.chars().take(64).collect();
            return Err(PreferencesError::TimeZone(name));
        }
        if self.quiet_hours.len() > MAX_QUIET {
            return Err(PreferencesError::TooMany(self.quiet_hours.len()));
        }
        let known: Vec<_> = known.collect();
        let unknown = |name: &&String| !known.contains(&name.as_str());
        if let Some(name) = self.categories.keys().find(unknown) {
            return Err(PreferencesError::Category {
                name: name.chars().take(64).collect(),
                known: known.join(", "),
            });
        }
        Ok(())
    }

    /// Takes out what is wished of categories that are not configured (now): nobody may wish that, but
    /// it holds again when they are.
    pub(crate) fn set_aside(
        &mut self,
        is_known: impl Fn(&str) -> bool,
    ) -> BTreeMap<String, Choice> {
        let all = std::mem::take(&mut self.categories).into_iter();
        let (known, aside) = all.partition(|(name, _)| is_known(name));
        self.categories = known;
        aside
    }

    /// The time zone, or that of the configuration.
    fn zone(&self, default: &TimeZone) -> TimeZone {
        let own = self.time_zone.as_deref();
        let own = own.and_then(|name| TimeZone::get(name).ok());
        own.unwrap_or_else(|| default.clone())
    }

    /// Until when nothing is sent, if that holds now.
    pub(crate) fn quiet_until(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.quiet_hours.is_empty() {
            return None;
        }
        let zone = self.zone(zone);
        let end = |at| {
            let quiet = self.quiet_hours.iter();
            quiet
                .filter_map(|quiet| quiet.hours().until(at, &zone))
                .max()
        };
        let mut until = now;
        // One may begin when another ends.
        for _ in 0..MAX_ROW {
            let Some(end) = end(until) else {
                break;
            };
            until = end;
        }
        (until > now).then_some(until)
    }

    /// When the next digest is due: strictly later than now. `None` where there is no digest.
    pub(crate) fn next_digest(
        &self,
        mail: MailChoice,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Option<Timestamp> {
        let now = now.to_zoned(self.zone(zone));
        match mail {
            MailChoice::Never | MailChoice::Each => None,
            // Full hours of the offset that holds now: where the clocks change at 00:01, as they
            // did in St. John's, a full hour of the wall clock may not exist.
            MailChoice::Hourly => {
                let second = now.timestamp().as_second();
                let past = (second + i64::from(now.offset().seconds())).rem_euclid(HOUR);
                Timestamp::from_second(second - past + HOUR).ok()
            }
            MailChoice::Daily => {
                let at = self.digest_at.unwrap_or(DIGEST_AT);
                let on = |day: Date| day.to_datetime(at).to_zoned(now.time_zone().clone()).ok();
                let today = on(now.date()).filter(|today| *today > now);
                let next = today.or_else(|| on(now.date().tomorrow().ok()?))?;
                Some(next.timestamp())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    fn preferences(json: &str) -> Preferences {
        serde_json::from_str(json).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn utc() -> TimeZone {
        TimeZone::UTC
    }

    #[test]
    fn the_night_is_quiet_until_its_morning() {
        let nights = preferences(
            r#"{"time_zone": "Europe/Berlin", "quiet_hours": [{"from": "22:00", "to": "07:00"}]}"#,
        );
        // In winter Berlin is an hour ahead.
        for (now, wants) in [
            ("2026-01-15T20:59:59Z", None),
            ("2026-01-15T21:00:00Z", Some("2026-01-16T06:00:00Z")),
            ("2026-01-16T05:59:59Z", Some("2026-01-16T06:00:00Z")),
            ("2026-01-16T06:00:00Z", None),
            // The night in which the clocks go forward is an hour shorter.
            ("2026-03-28T22:00:00Z", Some("2026-03-29T05:00:00Z")),
        ] {
            let quiet = nights.quiet_until(at(now), &utc());
            assert_eq!(quiet, wants.map(at), "{now}");
        }
    }

    #[test]
    fn hours_that_follow_each_other_are_one_quiet_time() {
        let weekend = preferences(
            r#"{"quiet_hours": [
                {"days": ["fri"], "from": "18:00", "to": "00:00"},
                {"days": ["sat", "sun"], "from": "00:00", "to": "00:00"}]}"#,
        );
        // 2026-01-16 is a Friday.
        let monday = Some(at("2026-01-19T00:00:00Z"));
        for now in [
            "2026-01-16T18:00:00Z",
            "2026-01-17T12:00:00Z",
            "2026-01-18T23:59:59Z",
        ] {
            assert_eq!(weekend.quiet_until(at(now), &utc()), monday, "{now}");
        }
        assert_eq!(
            weekend.quiet_until(at("2026-01-16T17:59:59Z"), &utc()),
            None
        );
        assert_eq!(
            weekend.quiet_until(at("2026-01-19T00:00:00Z"), &utc()),
            None
        );
        // Somebody who is never to be disturbed is asked again some day.
        let always = preferences(r#"{"quiet_hours": [{"from": "00:00", "to": "00:00"}]}"#);
        assert!(always.quiet_until(at("2026-01-16T18:00:00Z"), &utc()) > monday);
    }

    #[test]
    fn a_digest_is_always_to_come() {
        let mut random = random();
        let zones = ["UTC", "Europe/Berlin", "Asia/Kathmandu", "America/St_Johns"];
        for _ in 0..2000 {
            let zone = zones[usize::try_from(random(4)).unwrap()];
            let chosen = Preferences {
                time_zone: Some(zone.into()),
                digest_at: Some(time(i8::try_from(random(24)).unwrap(), 30, 0, 0)),
                ..Preferences::default()
            };
            let second = i64::try_from(random(4_000_000_000)).unwrap();
            let now = Timestamp::from_second(second).unwrap();
            let hourly = chosen.next_digest(MailChoice::Hourly, now, &utc()).unwrap();
            let daily = chosen.next_digest(MailChoice::Daily, now, &utc()).unwrap();
            let seconds = |later: Timestamp| now.duration_until(later).as_secs();
            assert!(
                (1..=3600).contains(&seconds(hourly)),
                "{zone} {now}: {hourly}"
            );
            assert!(
                (1..=90_000).contains(&seconds(daily)),
                "{zone} {now}: {daily}"
            );
        }
        // Half a minute after the clocks there went from 00:01 to 01:01.
        let islander = preferences(r#"{"time_zone": "America/St_Johns"}"#);
        let now = at("2001-04-01T03:31:30Z");
        let hourly = islander.next_digest(MailChoice::Hourly, now, &utc());
        assert_eq!(hourly, Some(at("2001-04-01T04:30:00Z")));
        let nobody = Preferences::default();
        let now = at("2026-01-15T08:00:00Z");
        let daily = nobody.next_digest(MailChoice::Daily, now, &utc());
        assert_eq!(daily, Some(at("2026-01-16T08:00:00Z")));
        assert_eq!(nobody.next_digest(MailChoice::Each, now, &utc()), None);
    }

    #[test]
    fn what_cannot_be_kept_is_said() {
        let known = || ["tasks", "news"].into_iter();
        for (json, wants) in [
            (r#"{"time_zone": "Mars/Olympus"}"#, "Europe/Berlin"),
            (
                r#"{"categories": {"tusks": {"push": false}}}"#,
                "tasks, news",
            ),
        ] {
            let error = preferences(json).check(known()).unwrap_err().to_string();
            assert!(error.contains(wants), "{error}");
        }
        let many = Preferences {
            quiet_hours: vec![
                Quiet {
                    days: vec![],
                    from: time(1, 0, 0, 0),
                    to: time(2, 0, 0, 0)
                };
                15
            ],
            ..Preferences::default()
        };
        assert_eq!(many.check(known()), Err(PreferencesError::TooMany(15)));
        let json =
            r#"{"time_zone":"Asia/Tokyo","categories":{"news":{"push":true,"mail":"daily"}}}"#;
        assert_eq!(preferences(json).check(known()), Ok(()));
        assert!(serde_json::from_str::<Preferences>(r#"{"quiet": []}"#).is_err());
    }
}
