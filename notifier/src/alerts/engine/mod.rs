//! Which alerts make which posts, and when.
//!
//! Pure: events, outcomes of posts and the time go in, posts come out, and what is known in between
//! can be kept and read back. Every alert that a route takes is counted in exactly one post, or as
//! silenced or inhibited; only what may have been posted before a crash is told again, and says so.

mod alert;
mod group;
mod hold;
mod intake;
mod posting;
mod rate;
mod route;
mod silence;
mod state;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;

pub use self::alert::Severity;
pub(crate) use self::alert::{Message, REFUSED, Shown};
#[cfg(test)]
use self::group::OTHERS_MAX;
pub(crate) use self::group::{Group, Kind, Posting, Tally};
pub(crate) use self::hold::Holds;
#[cfg(test)]
use self::hold::Reason;
pub(crate) use self::rate::{Pace, Rate};
pub(crate) use self::route::{BROKER, Flap, Route, Rules, Timing};
pub(crate) use self::silence::Silence;
#[cfg(test)]
use self::state::{GROUPS_MAX, Suppressed};
pub(crate) use self::state::{Refused, State};

/// Turns alerts into posts.
#[derive(Debug, Clone)]
pub(crate) struct Engine {
    rules: Rules,
    state: State,
    silences: Vec<Silence>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is counted in a group, or has ended one.
    Taken,
    /// It came before.
    Known,
    /// No route wants it.
    Unrouted,
    /// A silence covers it, but not its whole group.
    Silenced,
}

/// A post to make.
#[derive(Debug, Clone)]
pub(crate) struct Notice {
    pub(crate) key: String,
    pub(crate) receiver: String,
    pub(crate) posting: Posting,
    /// The group as it is now.
    pub(crate) group: Group,
}

/// The time after a while, as far as there is any.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Engine {
    /// Goes on from a state, which another may have left in the middle of a post.
    pub(crate) fn new(rules: Rules, mut state: State, silences: Vec<Silence>) -> Self {
        state.recover(&rules);
        Self {
            rules,
            state,
            silences,
        }
    }

    /// How many groups are open.
    pub(crate) fn open_groups(&self) -> u32 {
        let groups = self.state.groups.values();
        let open = groups.filter(|group| group.resolved.is_none()).count();
        u32::try_from(open).unwrap_or(u32::MAX)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Another instance need not wait to go on from this state.
    pub(crate) fn release(&mut self) {
        self.state.released = true;
    }

    pub(crate) fn silence(&mut self, silences: Vec<Silence>) {
        self.silences = silences;
    }

    /// Whether something of a group is not posted yet.
    pub(crate) fn owes(&self, key: &str) -> bool {
        let group = self.state.groups.get(key);
        group.is_some_and(|group| group.pending.is_some() || group.posting.is_some())
    }

    /// The next post may repeat an earlier one of this group.
    pub(crate) fn doubt(&mut self, key: &str) {
        if let Some(group) = self.state.groups.get_mut(key) {
            group.may_repeat = true;
        }
    }

    fn route(&self, name: &str) -> &Route {
        self.rules.route(name)
    }

    /// Why groups are not told now.
    pub(crate) fn holds(&self, now: Timestamp) -> Holds<'_> {
        Holds::new(&self.rules, &self.silences, &self.state, now)
    }
}
