//! Times in which nothing is sent to a person or posted to a channel. Pure.

use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// Hours of some days. Those that go past midnight belong to the day they begin on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuietHours {
    /// Every day if there are none.
    pub(crate) days: Vec<Weekday>,
    pub(crate) from: Time,
    /// The first time that is not quiet; the same as `from` means the whole day.
    pub(crate) to: Time,
}

impl QuietHours {
    /// Until when it is quiet, if it is.
    pub(crate) fn until(&self, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let today = now.to_zoned(zone.clone()).date();
        // What began yesterday may not be over.
        [today.yesterday().ok(), Some(today)]
            .into_iter()
            .flatten()
            .filter(|day| self.days.is_empty() || self.days.contains(&day.weekday()))
            .filter_map(|day| {
                let last_day = if self.to > self.from {
                    day
                } else {
                    day.checked_add(1.day()).ok()?
                };
                let begin = zone.to_timestamp(day.to_datetime(self.from)).ok()?;
                let end = zone.to_timestamp(last_day.to_datetime(self.to)).ok()?;
                (begin <= now && now < end).then_some(end)
            })
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::time;

    fn until(hours: &QuietHours, now: &str) -> Option<String> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = now.parse().unwrap();
        hours.until(now, &zone).map(|end| end.to_string())
    }

    #[test]
    fn nights_belong_to_the_day_they_begin_on() {
        let hours = QuietHours {
            days: vec![Weekday::Saturday, Weekday::Sunday],
            from: time(22, 0, 0, 0),
            to: time(7, 0, 0, 0),
        };
        let end = |text: &str| Some(text.to_owned());
        // 2026-01-17 is a Saturday; Berlin is an hour ahead.
        assert_eq!(until(&hours, "2026-01-17T20:59:59Z"), None);
        assert_eq!(
            until(&hours, "2026-01-17T21:00:00Z"),
            end("2026-01-18T06:00:00Z")
        );
        assert_eq!(
            until(&hours, "2026-01-18T05:59:59Z"),
            end("2026-01-18T06:00:00Z")
        );
        assert_eq!(until(&hours, "2026-01-18T06:00:00Z"), None);
        // Friday's night is not quiet, Sunday's is, into Monday.
        assert_eq!(until(&hours, "2026-01-17T03:00:00Z"), None);
        assert_eq!(
            until(&hours, "2026-01-19T03:00:00Z"),
            end("2026-01-19T06:00:00Z")
        );
    }

    #[test]
    fn a_whole_day_has_the_hours_that_the_clock_gives_it() {
        let hours = QuietHours {
            days: vec![Weekday::Sunday],
            from: time(0, 0, 0, 0),
            to: time(0, 0, 0, 0),
        };
        // In the night to 2026-03-29 the clocks go forward: that day has 23 hours.
        assert_eq!(until(&hours, "2026-03-28T22:59:59Z"), None);
        let end = Some("2026-03-29T22:00:00Z".to_owned());
        assert_eq!(until(&hours, "2026-03-28T23:00:00Z"), end);
        assert_eq!(until(&hours, "2026-03-29T22:00:00Z"), None);
    }
}
