//! What goes out: which post is next, and what became of it. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::group::{Group, Posting};
use super::hold::Reason;
use super::rate::Pace;
use super::state::Suppressed;
use super::{Engine, Notice};

impl Engine {
    /// Takes back what is noted of times to come: the clock was ahead, perhaps that of another instance.
    fn not_ahead(&mut self, now: Timestamp) {
        for group in self.state.groups.values_mut() {
            group.not_ahead(now);
        }
        for (name, pace) in &mut self.state.receivers {
            if let Some(rate) = self.rules.receivers.get(name) {
                pace.not_ahead(*rate, now);
            }
        }
    }

    /// Ends what is over; how many alerts will not be posted for that.
    pub(crate) fn tidy(&mut self, now: Timestamp) -> Suppressed {
        self.not_ahead(now);
        let mut suppressed = Suppressed::default();
        let (mut gone, mut faded, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
        let holds = self.holds(now);
        for (key, group) in &self.state.groups {
            let route = self.rules.route(&group.route);
            let is_open = group.resolved.is_none();
            let ends = is_open && group.fades_at(route) <= now && group.flapping.is_none();
            let hold = holds.of(group, route);
            let is_over = !is_open || ends || hold.is_some_and(|hold| hold.for_good);
            if group.posting.is_some() || !is_over {
                continue;
            }
            if let Some(tally) = &group.pending {
                let counts = match hold.map(|hold| hold.reason) {
                    Some(Reason::Silenced) => &mut suppressed.silenced,
                    Some(Reason::Inhibited) => &mut suppressed.inhibited,
                    // It is told first.
                    Some(Reason::Quiet) | None => continue,
                };
                *counts += tally.count;
                dropped.push(key.clone());
            }
            if is_open && !ends {
                continue;
            }
            let is_forgotten = group.forgotten_at(route).is_some_and(|end| end <= now);
            let will_tell = group.says_firing() || group.flapping.is_some();
            if is_open && group.says_firing() && group.stated {
                faded.push(key.clone());
            } else if is_open || !will_tell && is_forgotten {
                gone.push(key.clone());
            }
        }
        let groups = &mut self.state.groups;
        for key in dropped {
            (groups.get_mut(&key)).map(|group| group.pending.take());
        }
        for key in faded {
            if let Some(group) = groups.get_mut(&key) {
                group.resolved = Some(group.last);
                group.faded = true;
            }
        }
        for key in gone {
            groups.remove(&key);
        }
        self.state.suppressed.silenced += suppressed.silenced;
        self.state.suppressed.inhibited += suppressed.inhibited;
        suppressed
    }

    /// The post that is most urgent, if one may be made now. It is under way then, until one of
    /// [`posted`](Self::posted), [`failed`](Self::failed) and [`refused`](Self::refused) is called.
    pub(crate) fn next_post(&mut self, now: Timestamp) -> Option<Notice> {
        let (holds, ready) = (self.holds(now), self.ready());
        let urgent = |(key, group): (&String, &Group)| {
            let route = self.rules.route(&group.route);
            let (due, kind) = group.wants(route)?;
            let ready = ready.get(route.receiver.as_str())?;
            if due > now || *ready > now || holds.of(group, route).is_some() {
                return None;
            }
            // One that a receiver cannot take must not hold the others up.
            let rank = (group.failures, std::cmp::Reverse(group.severity), due);
            Some((rank, key.clone(), route.receiver.clone(), kind))
        };
        let (_, key, receiver, kind) = self.state.groups.iter().filter_map(urgent).min()?;
        let rate = *self.rules.receivers.get(&receiver)?;
        let pace = self.state.receivers.entry(receiver.clone()).or_default();
        pace.spend(rate, now);
        let group = self.state.groups.get_mut(&key)?;
        let posting = group.begin(kind, now);
        Some(Notice {
            receiver,
            posting,
            group: group.clone(),
            key,
        })
    }

    /// When each receiver takes the next post, unless one is under way.
    fn ready(&self) -> BTreeMap<&str, Timestamp> {
        let receivers = self.rules.receivers.iter();
        let mut ready: BTreeMap<_, _> = receivers
            .map(|(name, rate)| {
                let pace = self.state.receivers.get(name);
                let ready = pace.map_or(Timestamp::MIN, |pace| pace.ready_at(*rate));
                (name.as_str(), ready)
            })
            .collect();
        let groups = self.state.groups.values();
        for group in groups.filter(|group| group.posting.is_some()) {
            ready.remove(self.rules.route(&group.route).receiver.as_str());
        }
        ready
    }

    /// A post is in.
    pub(crate) fn posted(&mut self, key: &str, now: Timestamp) -> Option<Posting> {
        let group = self.state.groups.get_mut(key)?;
        let receiver = self.rules.route(&group.route).receiver.clone();
        let posting = group.posted(now);
        self.pace(&receiver).succeeded();
        posting
    }

    /// How often in a row a receiver has failed.
    pub(crate) fn failures(&self, receiver: &str) -> u32 {
        let pace = self.state.receivers.get(receiver);
        pace.map_or(0, |pace| pace.failures)
    }

    /// A post is not in, or (`may_repeat`) perhaps; what it told is told with the group's next,
    /// which its receiver gets after the pause.
    pub(crate) fn failed(&mut self, key: &str, now: Timestamp, pause: Duration, may_repeat: bool) {
        let Some(group) = self.state.groups.get_mut(key) else {
            return;
        };
        let route = self.rules.route(&group.route);
        let (receiver, max_shown) = (route.receiver.clone(), route.max_shown);
        group.not_posted(may_repeat, max_shown);
        group.failures = group.failures.saturating_add(1);
        self.pace(&receiver).failed(now, pause);
    }

    /// A post will never be taken; what it told leaves the engine.
    pub(crate) fn refused(&mut self, key: &str, now: Timestamp) -> Option<Posting> {
        let group = self.state.groups.get_mut(key)?;
        let receiver = self.rules.route(&group.route).receiver.clone();
        let posting = group.over_with(now)?;
        let count = posting.tally.as_ref().map_or(0, |tally| tally.count);
        group.total = group.total.saturating_sub(count);
        self.pace(&receiver).refused(now);
        Some(posting)
    }

    fn pace(&mut self, receiver: &str) -> &mut Pace {
        self.state.receivers.entry(receiver.to_owned()).or_default()
    }

    /// When there is something to do, as far as nothing comes in before.
    pub(crate) fn next_wake(&self, now: Timestamp) -> Option<Timestamp> {
        let (holds, ready) = (self.holds(now), self.ready());
        let of_group = |group: &Group| {
            if group.posting.is_some() {
                return None;
            }
            let route = self.rules.route(&group.route);
            let ends = match group.resolved {
                Some(_) => group.forgotten_at(route),
                None => Some(group.fades_at(route)),
            };
            let ends = ends.filter(|end| *end > now);
            let told = match holds.of(group, route) {
                Some(hold) => hold.until,
                None => group
                    .wants(route)
                    .and_then(|(due, _)| Some(due.max(*ready.get(route.receiver.as_str())?))),
            };
            [ends, told].into_iter().flatten().min()
        };
        self.state.groups.values().filter_map(of_group).min()
    }
}
