//! What comes in: into which groups, and what it ends. Pure.

use jiff::Timestamp;

use super::alert::{Alert, Message, Severity, Shown, Signal};
use super::group::{Group, Tally};
use super::route::{LABEL_MAX, Route, covers};
use super::silence::Silence;
use super::state::{Refused, State};
use super::{Engine, Fate, hold};
use crate::alerts::markdown::excerpt;

/// The label of the group that takes what has no room of its own.
const OVERFLOW: &str = "overflow";

impl Engine {
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
                vec![refused.key(self.route(&refused.route))]
            }
        }
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
        let own = alert.severity().unwrap_or(route.severity);
        let key = route.key_of(&labels);
        let (key, labels) = self.place(route, key, labels);
        let open = self.state.groups.get(&key);
        let open = open.filter(|group| group.total > 0 && group.resolved.is_none());
        let severity = open.map_or(own, |group| group.severity.max(own));
        let mut group = Group::new(route, labels, alert.time);
        group.severity = severity;
        if self.is_single_out(route, &group, own, alert, now) {
            self.state.suppressed.silenced += 1;
            return false;
        }
        let groups = self.state.groups.len();
        let group = self.state.groups.entry(key).or_insert(group);
        let detail = State::detail(groups, group.pending.is_none(), route.max_shown);
        let tally = Tally::of(alert.shown(detail), now);
        group.severity = severity;
        group.stated |= stated;
        group.add(tally, route, detail.shown, now);
        true
    }

    /// Whether a silence covers this alert, and not its group as it will be, which is then told
    /// without it.
    fn is_single_out(
        &self,
        route: &Route,
        group: &Group,
        own: Severity,
        alert: &Alert,
        now: Timestamp,
    ) -> bool {
        if self.silences.is_empty() {
            return false;
        }
        let mut alone = group.clone();
        alone.severity = own;
        let of_group = |name: &str| hold::label_of(group, route, name);
        // The group's labels are cut, or those of the group for all others.
        let of_alert = |name: &str| match name {
            "route" | "receiver" | "severity" => hold::label_of(&alone, route, name),
            _ => alert.label(name).or_else(|| of_group(name)),
        };
        let covers =
            |silence: &Silence| silence.covers(now, of_alert) && !silence.covers(now, of_group);
        self.silences.iter().any(covers)
    }

    /// The group with this key and its labels, or where there is no room, the one for all others.
    fn place(
        &mut self,
        route: &Route,
        key: String,
        labels: Vec<(String, String)>,
    ) -> (String, Vec<(String, String)>) {
        if let Some(group) = self.state.groups.get(&key) {
            let labels = group.labels.clone();
            return (key, labels);
        }
        let rules = &self.rules;
        let is_done = |group: &Group| {
            group.resolved.is_some()
                && group.posting.is_none()
                && group.wants(rules.route(&group.route)).is_none()
        };
        if self.state.has_room(is_done) {
            let cut = |(name, value): (String, String)| (name, excerpt(&value, LABEL_MAX));
            (key, labels.into_iter().map(cut).collect())
        } else {
            (route.key_of(&overflow()), overflow())
        }
    }

    /// The same, which is there then.
    fn open(
        &mut self,
        route: &Route,
        key: String,
        labels: Vec<(String, String)>,
        at: Timestamp,
    ) -> &mut Group {
        let (key, labels) = self.place(route, key, labels);
        let groups = &mut self.state.groups;
        (groups.entry(key)).or_insert_with(|| Group::new(route, labels, at))
    }

    /// A post that was refused comes back.
    fn readmit(&mut self, refused: Refused, now: Timestamp) {
        let route = self.route(&refused.route).clone();
        let key = refused.key(&route);
        let Some(mut tally) = refused.tally else {
            return;
        };
        tally.since = now;
        let group = self.open(&route, key, refused.labels, tally.first);
        group.severity = group.severity.max(refused.severity);
        group.add(tally, &route, route.max_shown, now);
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
        let group = self.open(&route, key, labels, shown.time);
        group.add(Tally::of(shown, back), &route, route.max_shown, back);
        group.resolve(back, &route, back);
    }
}

fn overflow() -> Vec<(String, String)> {
    vec![(OVERFLOW.to_owned(), "…".to_owned())]
}
