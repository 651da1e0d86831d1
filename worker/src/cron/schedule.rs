//! When: a cron expression in a time zone.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use thiserror::Error;

/// Whether a schedule ever fires does not depend on when somebody asks.
const BEGINNING: Timestamp = Timestamp::constant(1_767_225_600, 0);

const FIELDS: [&str; 6] = [
    "second",
    "minute",
    "hour",
    "day of month",
    "month",
    "day of week",
];

/// Why there is no schedule.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum ScheduleError {
    #[error("{0:?} is not a time zone: name it as in `Europe/Berlin`, or leave it out for UTC")]
    Zone(String),
    #[error(
        "a schedule has five fields (minute, hour, day of month, month, day of week), or six with \
         the second before them, or is one of @hourly, @daily, @weekly, @monthly, @yearly; this has {0}"
    )]
    FieldCount(usize),
    #[error("its {field} field {text:?} is wrong: {why}")]
    Field {
        field: &'static str,
        text: String,
        why: String,
    },
    #[error("it cannot be read: {0}")]
    Other(String),
    #[error("it never fires: there is no such day")]
    Never,
}

/// The times of an entry, at a precision of a second.
///
/// Where the clocks go forward, a fixed time that does not exist fires at the end of the gap, and
/// one with a list or step fires as the clock on the wall shows; where they go back, a fixed time
/// fires once, the first time, and the others twice.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    cron: Cron,
    zone: TimeZone,
    fingerprint: String,
}

impl Schedule {
    pub(crate) fn parse(expression: &str, zone: &str) -> Result<Self, ScheduleError> {
        let found = TimeZone::get(zone).map_err(|_| ScheduleError::Zone(zone.to_owned()))?;
        let cron = match read(expression) {
            Ok(cron) => cron,
            Err(why) => return Err(explain(expression, &why)),
        };
        let schedule = Self {
            cron,
            zone: found,
            fingerprint: format!("{} {zone}", expression.trim()),
        };
        match schedule.next(BEGINNING) {
            Some(_) => Ok(schedule),
            None => Err(ScheduleError::Never),
        }
    }

    /// The expression and the zone: a mark made under another schedule says nothing.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The first time after this one.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = self.whole_second(after)?;
        let found = self.cron.find_next_occurrence(&after, false);
        found.ok().map(|time| time.timestamp())
    }

    /// The last time that is not after this one.
    pub(crate) fn last(&self, until: Timestamp) -> Option<Timestamp> {
        let until = self.whole_second(until)?;
        let found = self.cron.find_previous_occurrence(&until, true);
        found.ok().map(|time| time.timestamp())
    }

    /// The last time before this one.
    pub(crate) fn before(&self, time: Timestamp) -> Option<Timestamp> {
        let time = self.whole_second(time)?;
        let found = self.cron.find_previous_occurrence(&time, false);
        found.ok().map(|time| time.timestamp())
    }

    /// As the clock on the wall shows it.
    pub(crate) fn on_the_wall(&self, time: Timestamp) -> Zoned {
        time.to_zoned(self.zone.clone())
    }

    fn whole_second(&self, time: Timestamp) -> Option<Zoned> {
        let second = Timestamp::from_second(
            time.as_nanosecond()
                .div_euclid(1_000_000_000)
                .try_into()
                .ok()?,
        );
        Some(second.ok()?.to_zoned(self.zone.clone()))
    }
}

fn read(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        .build();
    parser.parse(expression).map_err(|error| error.to_string())
}

/// The library does not say where; so each field is tried alone.
fn explain(expression: &str, why: &str) -> ScheduleError {
    let fields: Vec<_> = expression.split_whitespace().collect();
    if !matches!(fields.len(), 5 | 6) {
        return ScheduleError::FieldCount(fields.len());
    }
    let named = FIELDS.iter().skip(FIELDS.len() - fields.len());
    for (n, (field, text)) in named.zip(&fields).enumerate() {
        let alone: Vec<_> = (0..fields.len())
            .map(|other| if other == n { *text } else { "*" })
            .collect();
        if let Err(why) = read(&alone.join(" ")) {
            return ScheduleError::Field {
                field,
                text: (*text).to_owned(),
                why,
            };
        }
    }
    ScheduleError::Other(why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The next times in Berlin, as its clocks show them.
    fn berlin(expression: &str, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(expression, "Europe/Berlin").unwrap();
        let first = schedule.next(at(after));
        let shown = |time| {
            let wall = schedule.on_the_wall(time);
            wall.strftime("%d %H:%M %:z").to_string()
        };
        std::iter::successors(first, |time| schedule.next(*time))
            .take(count)
            .map(shown)
            .collect()
    }

    #[test]
    fn where_the_clocks_go_forward_a_fixed_time_comes_at_the_end_of_the_gap() {
        // On 29 March 2026 there is no time from 2:00 to 3:00.
        let eve = "2026-03-28T12:00:00Z";
        assert_eq!(
            berlin("30 2 * * *", eve, 2),
            ["29 03:00 +02:00", "30 02:30 +02:00"]
        );
        assert_eq!(
            berlin("0 3 * * *", eve, 2),
            ["29 03:00 +02:00", "30 03:00 +02:00"]
        );
        let midnight = "2026-03-29T00:15:00Z";
        assert_eq!(
            berlin("*/30 * * * *", midnight, 3),
            ["29 01:30 +01:00", "29 03:00 +02:00", "29 03:30 +02:00"]
        );
    }

    #[test]
    fn where_the_clocks_go_back_a_fixed_time_comes_once() {
        // On 25 October 2026 the time from 2:00 to 3:00 comes twice.
        let eve = "2026-10-24T12:00:00Z";
        assert_eq!(
            berlin("30 2 * * *", eve, 2),
            ["25 02:30 +02:00", "26 02:30 +01:00"]
        );
        assert_eq!(
            berlin("0 3 * * *", eve, 2),
            ["25 03:00 +01:00", "26 03:00 +01:00"]
        );
        assert_eq!(
            berlin("*/30 * * * *", "2026-10-24T23:45:00Z", 5),
            [
                "25 02:00 +02:00",
                "25 02:30 +02:00",
                "25 02:00 +01:00",
                "25 02:30 +01:00",
                "25 03:00 +01:00"
            ]
        );
    }

    /// Catching up looks back; it must find the times that looking ahead would have found.
    #[test]
    fn looking_back_finds_what_looking_ahead_finds() {
        let (from, to) = (at("2026-01-01T00:00:00Z"), at("2027-01-01T00:00:00Z"));
        let expressions = [
            "30 2 * * *",
            "0 3 * * *",
            "0 2 * * *",
            "15 */6 * * *",
            "0 0 L * *",
            "45 1-3 * * SUN",
            "*/20 2 * 3,10 *",
            "59 59 23 * * 1#1",
        ];
        for zone in [
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "UTC",
        ] {
            for expression in expressions {
                let schedule = Schedule::parse(expression, zone).unwrap();
                let first = schedule.next(from);
                let ahead: Vec<_> = std::iter::successors(first, |time| schedule.next(*time))
                    .take_while(|time| *time <= to)
                    .collect();
                let last = schedule.last(to);
                let mut back: Vec<_> = std::iter::successors(last, |time| schedule.before(*time))
                    .take_while(|time| *time > from)
                    .collect();
                back.reverse();
                assert_eq!(ahead, back, "{expression} in {zone}");
            }
        }
    }

    #[test]
    fn a_second_has_its_time_whatever_the_fraction() {
        let schedule = Schedule::parse("* * * * * *", "UTC").unwrap();
        let now = at("2026-01-01T00:00:10.7Z");
        let (nine, ten) = (at("2026-01-01T00:00:09Z"), at("2026-01-01T00:00:10Z"));
        assert_eq!(schedule.next(now), Some(at("2026-01-01T00:00:11Z")));
        assert_eq!(schedule.last(now), Some(ten));
        assert_eq!(schedule.before(ten), Some(nine));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (expression, zone, wants) in [
            ("0 25 * * *", "UTC", "hour field \"25\""),
            ("61 * * * *", "UTC", "minute field \"61\""),
            ("* * * * * FOO", "UTC", "day of week field \"FOO\""),
            ("0 0 0 32 * *", "UTC", "day of month field \"32\""),
            ("*/0 * * * *", "UTC", "minute field \"*/0\""),
            ("0 3 * *", "UTC", "five fields"),
            ("", "UTC", "this has 0"),
            ("@sometimes", "UTC", "@daily"),
            ("0 0 30 2 *", "UTC", "never fires"),
            ("0 3 * * *", "Europe/Berln", "\"Europe/Berln\""),
        ] {
            let error = Schedule::parse(expression, zone).unwrap_err().to_string();
            assert!(error.contains(wants), "{expression}: {error}");
        }
        for good in [
            "@daily",
            "0 0 29 2 *",
            "0 9-17 * JAN-MAR MON-FRI",
            "  0 3 * * *  ",
        ] {
            assert!(Schedule::parse(good, "UTC").is_ok(), "{good}");
        }
    }
}
