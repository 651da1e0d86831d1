//! Routes: which events become alerts, in which groups, and how those are told. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_common::wire::{NAMESPACE, topic_matches};
use jiff::tz::TimeZone;
use uuid::Uuid;

use super::alert::{Alert, Severity};
use super::rate::Rate;
use crate::access::pattern;
use crate::quiet_hours::QuietHours;

/// The route of what goes wrong with the connection to RabbitMQ.
pub(crate) const BROKER: &str = "broker";

/// Longest label value that is shown, in bytes; groups are told apart by the whole.
pub(super) const LABEL_MAX: usize = 80;

/// Everything that is configured.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) routes: Vec<Route>,
    /// Also of groups whose own route is configured no more.
    pub(crate) broker: Route,
    pub(crate) receivers: BTreeMap<String, Rate>,
    pub(crate) zone: TimeZone,
}

/// Which events, and what becomes of them.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) name: String,
    /// Patterns of routing keys of what is an alert.
    pub(crate) fires: Vec<String>,
    /// Patterns of routing keys of what ends one.
    pub(crate) resolves: Vec<String>,
    /// Labels that must have one of these patterns.
    pub(crate) only: BTreeMap<String, Vec<String>>,
    pub(crate) group_by: Vec<String>,
    pub(crate) severity: Severity,
    pub(crate) receiver: String,
    /// The routes after it are asked too.
    pub(crate) continues: bool,
    pub(crate) timing: Timing,
    pub(crate) max_shown: usize,
    pub(crate) flap: Flap,
    pub(crate) quiet: Vec<QuietHours>,
    pub(crate) inhibited_by: Vec<String>,
}

/// When a group is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timing {
    /// Before the first post.
    pub(crate) wait: Duration,
    /// Between posts of what changed.
    pub(crate) interval: Duration,
    /// Between posts when nothing changed.
    pub(crate) repeat: Duration,
    /// After so long with nothing new it is over.
    pub(crate) resolve_after: Duration,
}

/// More changes than this between firing and resolved are told as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flap {
    pub(crate) changes: usize,
    pub(crate) within: Duration,
}

impl Rules {
    pub(crate) fn route(&self, name: &str) -> &Route {
        let found = self.routes.iter().find(|route| route.name == name);
        found.unwrap_or(&self.broker)
    }
}

impl Route {
    pub(crate) fn fires(&self, alert: &Alert) -> bool {
        covers(&self.fires, &alert.routing_key) && self.admits(alert)
    }

    pub(crate) fn resolves(&self, alert: &Alert) -> bool {
        covers(&self.resolves, &alert.routing_key) && self.admits(alert)
    }

    fn admits(&self, alert: &Alert) -> bool {
        self.only.iter().all(|(name, patterns)| {
            let value = alert.label(name).unwrap_or_default();
            let fits = |wants: &String| pattern::matches(wants, &value);
            patterns.iter().any(fits)
        })
    }

    /// The labels by which it groups, of an alert.
    pub(crate) fn labels_of(&self, alert: &Alert) -> Vec<(String, String)> {
        let names = self.group_by.iter();
        names
            .map(|name| (name.clone(), alert.label(name).unwrap_or_default()))
            .collect()
    }

    /// The name of the group with these labels.
    pub(crate) fn key_of(&self, labels: &[(String, String)]) -> String {
        let says = serde_json::json!([self.name, labels]).to_string();
        let hash = Uuid::new_v5(&NAMESPACE, says.as_bytes()).simple();
        hash.to_string().chars().take(16).collect()
    }
}

pub(super) fn covers(patterns: &[String], routing_key: &str) -> bool {
    let covers = |pattern: &String| topic_matches(pattern, routing_key);
    patterns.iter().any(covers)
}
