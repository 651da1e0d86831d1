//! What the engine knows, as it is kept: small, whatever comes in. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Notice;
use super::alert::{Detail, Severity};
use super::group::{Group, Tally};
use super::rate::Pace;
use super::route::{Route, Rules};

/// How many groups there may be; beyond it each route has one for all others.
pub(crate) const GROUPS_MAX: usize = 1_000;

/// How many ids of events are remembered: twice what can be with us unacknowledged.
pub(crate) const REMEMBERED: usize = 2 * crate::alerts::PREFETCH as usize;

/// Everything that must survive a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Who had it has stopped: the next need not wait.
    pub(crate) released: bool,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) receivers: BTreeMap<String, Pace>,
    /// Events that came lately.
    pub(super) recent: VecDeque<Uuid>,
    pub(crate) suppressed: Suppressed,
}

/// Alerts that were counted and will not be posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Suppressed {
    pub(crate) silenced: u64,
    pub(crate) inhibited: u64,
}

/// A post that a receiver will never take, as it lies among the dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refused {
    pub(crate) route: String,
    /// Of its group. The labels alone do not say it: long ones are cut.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) severity: Severity,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tally: Option<Tally>,
}

impl Refused {
    pub(crate) fn of(notice: &Notice) -> Self {
        let Notice {
            key,
            group,
            posting,
            ..
        } = notice;
        Self {
            route: group.route.clone(),
            key: Some(key.clone()),
            labels: group.labels.clone(),
            severity: group.severity,
            tally: posting.tally.clone(),
        }
    }

    /// The group that it left.
    pub(super) fn key(&self, route: &Route) -> String {
        let key = self.key.clone();
        key.unwrap_or_else(|| route.key_of(&self.labels))
    }
}

impl State {
    /// Whether somebody has to look after it.
    pub(crate) fn has_work(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Who had it may have died while a post was under way.
    pub(super) fn recover(&mut self, rules: &Rules) {
        self.released = false;
        for group in self.groups.values_mut() {
            let max_shown = rules.route(&group.route).max_shown;
            group.not_posted(true, max_shown);
        }
    }

    /// Whether an event came before; if not, it is remembered.
    pub(super) fn is_known(&mut self, id: Uuid) -> bool {
        if self.recent.contains(&id) {
            return true;
        }
        self.recent.push_back(id);
        let surplus = self.recent.len().saturating_sub(REMEMBERED);
        self.recent.drain(..surplus);
        false
    }

    /// How much of an alert is kept: the less, the more groups there are.
    pub(super) fn detail(groups: usize, is_first: bool, max_shown: usize) -> Detail {
        let (most, text, short) = match groups {
            0..20 if is_first => (max_shown, 1_000, 100),
            0..20 => (max_shown, 120, 40),
            20..200 => (3, 100, 40),
            _ => (1, 60, 24),
        };
        Detail {
            shown: max_shown.min(most),
            text,
            short,
            all: groups < 200,
        }
    }

    /// Room for one group more, if there is any.
    pub(super) fn has_room(&mut self, is_done: impl Fn(&Group) -> bool) -> bool {
        if self.groups.len() >= GROUPS_MAX {
            let done = self.groups.iter().find(|(_, group)| is_done(group));
            if let Some(key) = done.map(|(key, _)| key.clone()) {
                self.groups.remove(&key);
            }
        }
        self.groups.len() < GROUPS_MAX
    }
}
