//! The configuration of alerts, checked and ready for use. Pure.

mod receivers;
mod routes;

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

pub(super) use self::receivers::address;
use self::receivers::{default_receiver, receivers};
use self::routes::{Reader, check_circles, check_names, default_routes};
use super::engine::{BROKER, Rate, Rules, Severity};
use crate::config::{AlertsConfig, MattermostConfig, ReceiverConfig, RouteConfig};

/// Everything about alerts that is configured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) rules: Rules,
    /// What posts of each route look like.
    pub(crate) looks: BTreeMap<String, Look>,
    pub(crate) receivers: BTreeMap<String, ReceiverConfig>,
    pub(crate) console_url: Option<String>,
    pub(crate) task_url: Option<String>,
}

/// What posts of a route look like.
#[derive(Debug, Clone, Default)]
pub(crate) struct Look {
    pub(crate) title: Option<String>,
    pub(crate) runbook: Option<String>,
    /// Whom to call, from which severity on.
    pub(crate) mention: Option<(Mention, Severity)>,
}

/// Whom a post calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mention {
    Here,
    Channel,
    /// A user, without the `@`.
    User(String),
}

impl Plan {
    /// The plan, if there is anybody to tell; or everything that is wrong.
    pub(crate) fn new(
        alerts: &AlertsConfig,
        mattermost: &MattermostConfig,
    ) -> Result<Option<Self>, Vec<String>> {
        let mut problems = Vec::new();
        let receivers = receivers(alerts, mattermost, &mut problems);
        let Some(default) = default_receiver(alerts, &receivers, &mut problems) else {
            return if problems.is_empty() {
                Ok(None)
            } else {
                Err(problems)
            };
        };
        let zone = time_zone(&alerts.time_zone, &mut problems);
        if alerts.burst == 0 {
            problems.push("alerts.burst must be at least 1".into());
        }
        let defaults;
        let configured = if alerts.routes.is_empty() {
            defaults = default_routes();
            &defaults
        } else {
            &alerts.routes
        };
        check_names(configured, &mut problems);
        check_circles(configured, &mut problems);
        let mut reader = Reader {
            alerts,
            receivers: &receivers,
            default: &default,
            problems: &mut problems,
        };
        let (mut routes, mut looks) = (Vec::new(), BTreeMap::new());
        for route in configured {
            routes.push(reader.route(route));
            looks.insert(route.name.clone(), reader.look(route));
        }
        let broker = RouteConfig {
            name: BROKER.into(),
            ..RouteConfig::default()
        };
        let broker = reader.route(&broker);
        if !problems.is_empty() {
            return Err(problems);
        }
        let rate = Rate {
            period: alerts.rate.0,
            burst: alerts.burst,
        };
        Ok(Some(Self {
            rules: Rules {
                routes,
                broker,
                receivers: receivers.keys().map(|name| (name.clone(), rate)).collect(),
                zone,
            },
            looks,
            receivers,
            console_url: alerts.console_url.clone(),
            task_url: mattermost.task_url.clone(),
        }))
    }

    /// The patterns of all events that somebody wants, each once.
    pub(crate) fn patterns(&self) -> Vec<&str> {
        let routes = self.rules.routes.iter();
        let patterns = routes.flat_map(|route| route.fires.iter().chain(&route.resolves));
        let mut patterns: Vec<&str> = patterns.map(String::as_str).collect();
        patterns.sort_unstable();
        patterns.dedup();
        patterns
    }
}

fn time_zone(name: &str, problems: &mut Vec<String>) -> TimeZone {
    TimeZone::get(name).unwrap_or_else(|_| {
        problems.push(format!(
            "alerts.time_zone: there is no time zone {name:?}; names are such as Europe/Berlin"
        ));
        TimeZone::UTC
    })
}

#[cfg(test)]
mod tests;
