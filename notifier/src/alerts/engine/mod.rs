//! Which alerts make which posts, and when.
//!
//! Pure: events, outcomes of posts and the time go in, posts come out, and what is known in between
//! can be kept and read back. Every alert that a route takes is counted in exactly one post, or as
//! silenced or inhibited; only what may have been posted before a crash is told again, and says so.

mod alert;
mod group;
mod hold;
mod quiet;
mod rate;
mod route;
mod silence;
mod state;
mod topic;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use self::alert::{Alert, Signal};
pub(crate) use self::alert::{Message, REFUSED, Severity, Shown};
pub(crate) use self::group::{Group, Kind, Posting, Tally};
pub(crate) use self::hold::{Hold, Holds, Reason};
pub(crate) use self::quiet::QuietHours;
pub(crate) use self::rate::{Pace, Rate};
pub(crate) use self::route::{BROKER, Flap, Route, Rules, Timing};
use self::route::{LABEL_MAX, covers};
pub(crate) use self::silence::Silence;
pub(crate) use self::state::{GROUPS_MAX, Refused, State, Suppressed};
use super::markdown::excerpt;

/// The label of the group that takes what has no room of its own.
const OVERFLOW: &str = "overflow";

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
    pub(crate) fn new(rules: Rules, mut state: State) -> Self {
        state.recover();
        Self {
            rules,
            state,
            silences: Vec::new(),
        }
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

    /// Whether a message is worth reading: most ends of tasks end nothing that is open.
    pub(crate) fn may_want(&self, routing_key: &str) -> bool {
        let is_open = |route: &Route| {
            let mut groups = self.state.groups.values();
            groups.any(|group| group.route == route.name && group.resolved.is_none())
        };
        let mut routes = self.rules.routes.iter();
        !routing_key.starts_with("stored.user.")
            || routes.any(|route| {
                covers(&route.fires, routing_key)
                    || covers(&route.resolves, routing_key) && is_open(route)
            })
    }

    /// Takes a message in.
    pub(crate) fn take(&mut self, message: Message, now: Timestamp) -> Fate {
        match message {
            Message::Alert(alert) => self.take_alert(&alert, now),
            Message::Again(id, _) if self.state.is_known(id) => Fate::Known,
            Message::Again(_, refused) => {
                self.readmit(*refused, now);
                Fate::Taken
            }
        }
    }

    /// The groups that an alert is counted in, whether it is there or not.
    pub(crate) fn keys_of(&self, message: &Message) -> Vec<String> {
        match message {
            Message::Alert(alert) => {
                let routes = self.taking(alert).into_iter();
                let keys = routes.filter_map(|index| {
                    let route = self.rules.routes.get(index)?;
                    let own = route.key_of(&route.labels_of(alert));
                    Some([own, route.key_of(&overflow())])
                });
                keys.flatten().collect()
            }
            Message::Again(_, refused) => {
                vec![self.route(&refused.route).key_of(&refused.labels)]
            }
        }
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

    /// The routes by whose patterns it fires: the first, and more if that one says so.
    fn taking(&self, alert: &Alert) -> Vec<usize> {
        let mut taking = Vec::new();
        for (index, route) in self.rules.routes.iter().enumerate() {
            if route.fires(alert) {
                taking.push(index);
                if !route.continues {
                    break;
                }
            }
        }
        taking
    }

    fn take_alert(&mut self, alert: &Alert, now: Timestamp) -> Fate {
        let ended: Vec<String> = self
            .rules
            .routes
            .iter()
            .filter(|route| route.resolves(alert))
            .map(|route| route.key_of(&route.labels_of(alert)))
            .filter(|key| self.is_open(key))
            .collect();
        let taking = self.taking(alert);
        if ended.is_empty() && taking.is_empty() {
            return Fate::Unrouted;
        }
        if self.state.is_known(alert.id) {
            return Fate::Known;
        }
        for key in ended {
            self.resolve(&key, alert.time, now);
        }
        let mut fate = Fate::Taken;
        for index in taking {
            let Some(route) = self.rules.routes.get(index).cloned() else {
                continue;
            };
            let labels = route.labels_of(alert);
            match alert.signal() {
                Signal::Resolved => self.resolve(&route.key_of(&labels), alert.time, now),
                Signal::Firing { stated } => {
                    if !self.fire(&route, labels, alert, stated, now) {
                        fate = Fate::Silenced;
                    }
                }
            }
        }
        fate
    }

    fn is_open(&self, key: &str) -> bool {
        let group = self.state.groups.get(key);
        group.is_some_and(|group| group.resolved.is_none())
    }

    fn resolve(&mut self, key: &str, at: Timestamp, now: Timestamp) {
        if let Some(group) = self.state.groups.get_mut(key) {
            let route = self.rules.route(&group.route);
            group.resolve(at, route, now);
        }
    }

    /// Counts an alert in its group; whether it may ever be posted.
    fn fire(
        &mut self,
        route: &Route,
        labels: Vec<(String, String)>,
        alert: &Alert,
        stated: bool,
        now: Timestamp,
    ) -> bool {
        let severity = alert.severity().unwrap_or(route.severity);
        if self.is_single_out(route, &labels, severity, alert, now) {
            self.state.suppressed.silenced += 1;
            return false;
        }
        let key = self.group_for(route, labels, alert.time);
        let Some(group) = self.state.groups.get(&key) else {
            return true;
        };
        let detail = (self.state).detail(group.pending.is_none(), route.max_shown);
        let tally = Tally::of(alert.shown(detail), now);
        if let Some(group) = self.state.groups.get_mut(&key) {
            let is_new = group.total == 0 || group.resolved.is_some();
            let before = if is_new { severity } else { group.severity };
            group.severity = before.max(severity);
            group.stated |= stated;
            group.add(tally, route, detail.shown, now);
        }
        true
    }

    /// Whether a silence covers this alert, and not its group, which is then told without it.
    fn is_single_out(
        &self,
        route: &Route,
        labels: &[(String, String)],
        severity: Severity,
        alert: &Alert,
        now: Timestamp,
    ) -> bool {
        if self.silences.is_empty() {
            return false;
        }
        let mut group = Group::new(route, labels.to_vec(), now);
        group.severity = severity;
        let of_group = |name: &str| hold::label_of(&group, route, name);
        let of_alert = |name: &str| of_group(name).or_else(|| alert.label(name));
        let covers =
            |silence: &Silence| silence.covers(now, of_alert) && !silence.covers(now, of_group);
        self.silences.iter().any(covers)
    }

    /// The group with these labels, or where there is no room, the one for all others.
    fn group_for(&mut self, route: &Route, labels: Vec<(String, String)>, at: Timestamp) -> String {
        let key = route.key_of(&labels);
        if self.state.groups.contains_key(&key) {
            return key;
        }
        let rules = &self.rules;
        let is_done = |group: &Group| {
            group.resolved.is_some()
                && group.posting.is_none()
                && group.wants(rules.route(&group.route)).is_none()
        };
        let (key, labels) = if self.state.has_room(is_done) {
            let cut = |(name, value): (String, String)| (name, excerpt(&value, LABEL_MAX));
            (key, labels.into_iter().map(cut).collect())
        } else {
            (route.key_of(&overflow()), overflow())
        };
        let groups = &mut self.state.groups;
        (groups.entry(key.clone())).or_insert_with(|| Group::new(route, labels, at));
        key
    }

    /// A post that was refused comes back.
    fn readmit(&mut self, refused: Refused, now: Timestamp) {
        let Some(mut tally) = refused.tally else {
            return;
        };
        tally.since = now;
        let route = self.route(&refused.route).clone();
        let key = self.group_for(&route, refused.labels, tally.first);
        if let Some(group) = self.state.groups.get_mut(&key) {
            group.severity = group.severity.max(refused.severity);
            group.add(tally, &route, route.max_shown, now);
        }
    }

    /// The broker was away, and is back.
    pub(crate) fn broker_was_away(&mut self, shown: Shown, back: Timestamp) {
        let route = self.rules.broker.clone();
        let labels = Vec::new();
        let key = route.key_of(&labels);
        let known = self.state.groups.get(&key);
        // Another instance has told.
        if known.is_some_and(|group| group.resolved.is_some_and(|end| end >= shown.time)) {
            return;
        }
        let key = self.group_for(&route, labels, shown.time);
        if let Some(group) = self.state.groups.get_mut(&key) {
            group.add(Tally::of(shown, back), &route, route.max_shown, back);
            group.resolve(back, &route, back);
        }
    }

    fn holds(&self, now: Timestamp) -> Holds<'_> {
        Holds::new(&self.rules, &self.silences, &self.state, now)
    }

    /// Why a group is not told now.
    pub(crate) fn hold_of(&self, group: &Group, now: Timestamp) -> Option<Hold> {
        self.holds(now).of(group, self.route(&group.route))
    }

    /// Ends what is over; how many alerts will not be posted for that.
    pub(crate) fn tidy(&mut self, now: Timestamp) -> Suppressed {
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
    pub(crate) fn refused(&mut self, key: &str, now: Timestamp) -> Option<Refused> {
        let group = self.state.groups.get_mut(key)?;
        let receiver = self.rules.route(&group.route).receiver.clone();
        let posting = group.posted(now)?;
        let count = posting.tally.as_ref().map_or(0, |tally| tally.count);
        group.total = group.total.saturating_sub(count);
        let refused = Refused {
            route: group.route.clone(),
            labels: group.labels.clone(),
            severity: group.severity,
            tally: posting.tally,
        };
        // It answers: that is not what is wrong.
        self.pace(&receiver).succeeded();
        Some(refused)
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

fn overflow() -> Vec<(String, String)> {
    vec![(OVERFLOW.to_owned(), "…".to_owned())]
}
