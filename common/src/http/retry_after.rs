//! What a server means by `Retry-After`. No I/O.

use std::time::Duration;

use jiff::Timestamp;

/// Reads a `Retry-After`: a number of seconds, or a date. `None` when it is neither; a date that
/// has passed asks for no wait. Never more than `cap`, so that a mistaken answer does not put
/// things off for ever.
#[must_use]
pub fn retry_after(header: &str, now: Timestamp, cap: Duration) -> Option<Duration> {
    let header = header.trim();
    let wait = if let Ok(seconds) = header.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::DateTimeParser::new()
            .parse_timestamp(header)
            .ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_understood_and_capped() {
        let now: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let cap = Duration::from_hours(1);
        for (header, wants) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("86400", Some(3600)),
            ("Thu, 15 Jan 2026 10:30:30 GMT", Some(30)),
            ("Thu, 15 Jan 2026 10:29:30 GMT", Some(0)),
            ("Fri, 16 Jan 2026 10:30:00 GMT", Some(3600)),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("2026-01-15T10:30:30Z", None),
            ("Sat, 31 Feb 2026 10:30:00 GMT", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            let wants = wants.map(Duration::from_secs);
            assert_eq!(retry_after(header, now, cap), wants, "{header:?}");
        }
    }
}
