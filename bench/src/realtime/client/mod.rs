//! The load generator: very many connections in a few threads, each an epoll loop.
//!
//! It has to cost less than what it measures, on the same cores. So it reads the heads of frames
//! and no JSON, takes all that has come with one call, and counts.

mod connection;
mod frames;
mod swarm;

pub(crate) use connection::{Count, Entry};
pub(crate) use swarm::{Plan, Swarm};

/// Before the time of a publication in its body.
const STAMP: &[u8] = b"\"at\":\"";
/// The time's digits, enough for any number of nanoseconds.
const DIGITS: usize = 20;

/// The time in nanoseconds, by the clock that all processes of the machine share.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + nanos.unwrap_or(0)
}

/// What `{"at": …}` of a body says at a time.
pub(crate) fn stamp(now: u64) -> String {
    format!("{now:0DIGITS$}")
}

/// How long ago a body was stamped.
pub(crate) fn age(body: &[u8], now: u64) -> Option<u64> {
    let at = body.windows(STAMP.len()).position(|part| part == STAMP)? + STAMP.len();
    let digits = std::str::from_utf8(body.get(at..at + DIGITS)?).ok()?;
    now.checked_sub(digits.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_in_a_body() {
        let body = format!(r#"{{"data":{{"at":"{}"}}}}"#, stamp(7));
        assert_eq!(age(body.as_bytes(), 10), Some(3));
        assert_eq!(age(body.as_bytes(), 6), None);
        assert_eq!(age(br#"{"at":"00"}"#, 6), None);
        assert!(now() > 0);
    }
}
