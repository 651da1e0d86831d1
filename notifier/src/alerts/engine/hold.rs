//! Why a group is not told although it wants to be. Pure.

use jiff::Timestamp;
use serde::Serialize;

use super::alert::Severity;
use super::group::Group;
use super::route::{Route, Rules};
use super::silence::Silence;
use super::state::State;

/// A reason to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Reason {
    Silenced,
    Inhibited,
    Quiet,
}

/// A reason to wait, and until when, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reason: Reason,
    pub(crate) until: Option<Timestamp>,
    /// It will not be told later either.
    pub(crate) for_good: bool,
}

/// When something was wrong that others follow from.
#[derive(Debug)]
struct Episode {
    route: String,
    opened: Timestamp,
    resolved: Option<Timestamp>,
}

/// All reasons at one moment.
#[derive(Debug)]
pub(crate) struct Holds<'a> {
    rules: &'a Rules,
    silences: &'a [Silence],
    episodes: Vec<Episode>,
    now: Timestamp,
}

impl<'a> Holds<'a> {
    pub(super) fn new(
        rules: &'a Rules,
        silences: &'a [Silence],
        state: &State,
        now: Timestamp,
    ) -> Self {
        let inhibits = |group: &&Group| {
            let mut routes = rules.routes.iter();
            routes.any(|route| route.inhibited_by.contains(&group.route))
        };
        let episode = |group: &Group| Episode {
            route: group.route.clone(),
            opened: group.opened,
            resolved: group.resolved,
        };
        Self {
            rules,
            silences,
            episodes: (state.groups.values().filter(inhibits))
                .map(episode)
                .collect(),
            now,
        }
    }

    /// The first reason for a group to wait.
    pub(crate) fn of(&self, group: &Group, route: &Route) -> Option<Hold> {
        self.silenced(group, route)
            .or_else(|| self.inhibited(group, route))
            .or_else(|| self.quiet(group, route))
    }

    fn silenced(&self, group: &Group, route: &Route) -> Option<Hold> {
        let label = |name: &str| label_of(group, route, name);
        let covering = |silence: &&Silence| silence.covers(self.now, label);
        let until = self.silences.iter().filter(covering);
        let until = until.map(|silence| silence.until).max()?;
        Some(Hold {
            reason: Reason::Silenced,
            until: Some(until),
            for_good: false,
        })
    }

    fn inhibited(&self, group: &Group, route: &Route) -> Option<Hold> {
        let pending = group.pending.as_ref();
        // What happened during an outage often arrives after it.
        let happened_in = |from: Timestamp, to: Timestamp| {
            pending.is_some_and(|tally| from <= tally.first && tally.last <= to)
        };
        let causes = (self.episodes.iter())
            .filter(|episode| route.inhibited_by.contains(&episode.route))
            .filter_map(|episode| match episode.resolved {
                None => Some(false),
                Some(end) => happened_in(episode.opened, end).then_some(true),
            });
        Some(Hold {
            reason: Reason::Inhibited,
            until: None,
            for_good: causes.max()?,
        })
    }

    fn quiet(&self, group: &Group, route: &Route) -> Option<Hold> {
        if group.severity == Severity::Critical {
            return None;
        }
        let zone = &self.rules.zone;
        let hours = route.quiet.iter();
        let until = hours.filter_map(|hours| hours.until(self.now, zone)).max();
        Some(Hold {
            reason: Reason::Quiet,
            until: Some(until?),
            for_good: false,
        })
    }
}

/// What a silence can ask of a whole group.
pub(super) fn label_of(group: &Group, route: &Route, name: &str) -> Option<String> {
    match name {
        "route" => Some(group.route.clone()),
        "receiver" => Some(route.receiver.clone()),
        "severity" => serde_json::to_value(group.severity)
            .ok()?
            .as_str()
            .map(str::to_owned),
        _ => {
            let mut labels = group.labels.iter();
            let found = labels.find(|(label, _)| label == name);
            found.map(|(_, value)| value.clone())
        }
    }
}
