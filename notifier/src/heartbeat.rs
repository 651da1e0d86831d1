//! When to ping, and when to give a client up. Pure: the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// One connection's timer. It is looked at when it runs out, not at every frame.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Duration,
    wait: Duration,
    last_sign: Instant,
    next_ping: Instant,
    /// A fixed end: the token's, or that of the time to log in.
    end: Option<Instant>,
    /// When to give notice of it.
    notice: Option<Instant>,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing yet.
    Nothing,
    /// Ping the client.
    Ping,
    /// The client has been silent for too long.
    Gone,
    /// The fixed end is near.
    Notice,
    /// The fixed end is reached.
    End,
}

impl Heartbeat {
    pub(crate) fn new(now: Instant, interval: Duration, wait: Duration) -> Self {
        Self {
            interval,
            wait,
            last_sign: now,
            next_ping: now + interval,
            end: None,
            notice: None,
        }
    }

    /// The client sent something, a pong or anything else.
    pub(crate) fn sign_of_life(&mut self, now: Instant) {
        self.last_sign = now;
    }

    /// Sets or lifts the fixed end, and how long before it notice is given.
    pub(crate) fn ends_at(&mut self, end: Option<Instant>, notice: Option<Duration>) {
        self.end = end;
        self.notice = end
            .zip(notice)
            .and_then(|(end, notice)| end.checked_sub(notice));
    }

    /// How long it is to the fixed end.
    pub(crate) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.end.map(|end| end.duration_since(now))
    }

    /// When to look again.
    pub(crate) fn wake_at(&self) -> Instant {
        let beat = self.next_ping.min(self.last_sign + self.wait);
        [self.notice, self.end]
            .into_iter()
            .flatten()
            .fold(beat, Instant::min)
    }

    /// What is due now. A ping counts as sent.
    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.end.is_some_and(|end| now >= end) {
            Due::End
        } else if now >= self.last_sign + self.wait {
            Due::Gone
        } else if self.notice.is_some_and(|notice| now >= notice) {
            self.notice = None;
            Due::Notice
        } else if now >= self.next_ping {
            self.next_ping = now + self.interval;
            Due::Ping
        } else {
            Due::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn heartbeat() -> (Instant, Heartbeat) {
        let start = Instant::now();
        (start, Heartbeat::new(start, 30 * SECOND, 60 * SECOND))
    }

    #[test]
    fn a_silent_client_is_pinged_and_then_given_up() {
        let (start, mut beat) = heartbeat();
        assert_eq!(beat.wake_at(), start + 30 * SECOND);
        assert_eq!(beat.due(start + 29 * SECOND), Due::Nothing);
        assert_eq!(beat.due(start + 30 * SECOND), Due::Ping);
        assert_eq!(beat.wake_at(), start + 60 * SECOND);
        assert_eq!(beat.due(start + 60 * SECOND), Due::Gone);
    }

    #[test]
    fn a_client_that_answers_stays() {
        let (start, mut beat) = heartbeat();
        for minute in 1..100 {
            let now = start + 30 * SECOND * minute;
            assert_eq!(beat.due(now), Due::Ping);
            beat.sign_of_life(now + SECOND);
        }
    }

    #[test]
    fn the_fixed_end_comes_whatever_the_client_does() {
        let (start, mut beat) = heartbeat();
        beat.ends_at(Some(start + 10 * SECOND), None);
        assert_eq!(beat.wake_at(), start + 10 * SECOND);
        beat.sign_of_life(start + 10 * SECOND);
        assert_eq!(beat.due(start + 10 * SECOND), Due::End);
        beat.ends_at(None, None);
        assert_eq!(beat.due(start + 10 * SECOND), Due::Nothing);
    }

    #[test]
    fn notice_is_given_once_before_the_end() {
        let (start, mut beat) = heartbeat();
        beat.ends_at(Some(start + 20 * SECOND), Some(5 * SECOND));
        assert_eq!(beat.wake_at(), start + 15 * SECOND);
        assert_eq!(beat.due(start + 15 * SECOND), Due::Notice);
        assert_eq!(beat.due(start + 16 * SECOND), Due::Nothing);
        assert_eq!(beat.due(start + 20 * SECOND), Due::End);
    }
}
