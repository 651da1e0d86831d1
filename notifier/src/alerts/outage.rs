//! How long the broker was away. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::engine::later;

/// What is shorter is no trouble.
const WORTH_TELLING: Duration = Duration::from_secs(10);

/// Watches a connection.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// It has been up at all: before that nothing is lost.
    begun: bool,
    lost: Option<Timestamp>,
}

impl Outage {
    /// Notes whether the connection stands; when it was lost, if it is back and was away for long.
    pub(super) fn look(&mut self, is_up: bool, now: Timestamp) -> Option<Timestamp> {
        if !is_up {
            if self.begun {
                self.lost.get_or_insert(now);
            }
            return None;
        }
        self.begun = true;
        let lost = self.lost.take();
        lost.filter(|lost| later(*lost, WORTH_TELLING) <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_and_long_away_is_told() {
        let start: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let at = |seconds| later(start, Duration::from_secs(seconds));
        let mut outage = Outage::default();
        for (is_up, seconds, wants) in [
            (false, 0, None),
            (true, 60, None),
            (false, 61, None),
            (true, 70, None),
            (false, 80, None),
            (false, 85, None),
            (true, 90, Some(80)),
            (true, 91, None),
        ] {
            assert_eq!(outage.look(is_up, at(seconds)), wants.map(at), "{seconds}");
        }
    }
}
