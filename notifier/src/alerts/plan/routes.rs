//! Which events are told, and how. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bellhop_common::wire::MAX_KEY_BYTES;
use jiff::civil::{Time, Weekday};

use super::receivers::unknown_receiver;
use super::{Look, Mention};
use crate::alerts::engine::{BROKER, Flap, Route, Severity, Timing};
use crate::alerts::link::web_address;
use crate::config::{AlertsConfig, FlapConfig, QuietConfig, ReceiverConfig, RouteConfig};
use crate::quiet_hours::QuietHours;

/// More would not be read, and not fit.
const MAX_SHOWN: usize = 20;

pub(super) fn check_names(routes: &[RouteConfig], problems: &mut Vec<String>) {
    for (index, route) in routes.iter().enumerate() {
        let name = &route.name;
        if name.is_empty() || name.len() > 64 {
            problems.push(format!(
                "alerts.routes[{index}].name must have 1 to 64 bytes"
            ));
        } else if name == BROKER {
            problems.push(format!(
                "alerts.routes[{index}]: the name {BROKER:?} is taken"
            ));
        } else if routes.iter().take(index).any(|other| other.name == *name) {
            problems.push(format!("alerts.routes: there are two named {name:?}"));
        }
        for other in &route.inhibited_by {
            if other != BROKER && !routes.iter().any(|route| route.name == *other) {
                problems.push(format!(
                    "alerts.routes {name:?}: inhibited_by names {other:?}, which is no route"
                ));
            }
        }
    }
}

/// Routes that inhibit each other in a circle: once all of them are open, none is told.
pub(super) fn check_circles(routes: &[RouteConfig], problems: &mut Vec<String>) {
    for (index, route) in routes.iter().enumerate() {
        // Each circle once, by the first of its routes.
        let those = routes.get(index..).unwrap_or_default();
        let mut names = vec![route.name.as_str()];
        if !leads_back(those, route, &mut BTreeSet::new(), &mut names) {
            continue;
        }
        let mut steps = names.iter().zip(names.iter().skip(1));
        let first = steps
            .next()
            .map(|(name, by)| format!("{name:?} is inhibited by {by:?}"));
        let others = steps.map(|(name, by)| format!("{name:?} by {by:?}"));
        let circle: Vec<String> = first.into_iter().chain(others).collect();
        let circle = circle.join(", ");
        problems.push(format!("alerts.routes: {circle}: none of it would be told"));
    }
}

/// Whether a route is inhibited, in the end, by the first of the names; the names of those between
/// are added, and its own once more.
fn leads_back<'a>(
    routes: &'a [RouteConfig],
    from: &'a RouteConfig,
    seen: &mut BTreeSet<&'a str>,
    names: &mut Vec<&'a str>,
) -> bool {
    for by in &from.inhibited_by {
        names.push(by);
        if names.first() == Some(&by.as_str()) {
            return true;
        }
        let next = routes.iter().find(|route| route.name == *by);
        if let Some(next) = next
            && seen.insert(by)
            && leads_back(routes, next, seen, names)
        {
            return true;
        }
        names.pop();
    }
    false
}

/// What is told when nothing else is configured.
pub(super) fn default_routes() -> Vec<RouteConfig> {
    let route = |name: &str, matches: &[&str], group_by: &[&str]| RouteConfig {
        name: name.into(),
        matches: matches.iter().map(|text| (*text).into()).collect(),
        group_by: group_by.iter().map(|text| (*text).into()).collect(),
        ..RouteConfig::default()
    };
    let failed = "stored.user.*.task.status_changed.failed";
    vec![
        route("failures", &[failed], &["kind"]),
        route(
            "team",
            &["stored.team.#", "live.team.#"],
            &["channel", "fingerprint"],
        ),
    ]
}

/// Reads routes, and notes what is wrong.
pub(super) struct Reader<'a> {
    pub(super) alerts: &'a AlertsConfig,
    pub(super) receivers: &'a BTreeMap<String, ReceiverConfig>,
    pub(super) default: &'a str,
    pub(super) problems: &'a mut Vec<String>,
}

impl Reader<'_> {
    fn wrong(&mut self, route: &RouteConfig, what: &str) {
        let name = &route.name;
        self.problems
            .push(format!("alerts.routes {name:?}: {what}"));
    }

    pub(super) fn route(&mut self, route: &RouteConfig) -> Route {
        let alerts = self.alerts;
        let receiver = route.receiver.as_deref().unwrap_or(self.default);
        if !self.receivers.contains_key(receiver) {
            let names: Vec<&str> = self.receivers.keys().map(String::as_str).collect();
            let problem = unknown_receiver("receiver", receiver, &names);
            self.wrong(route, &problem);
        }
        self.check_patterns(route);
        let flap: &FlapConfig = route.flap.as_ref().unwrap_or(&alerts.flap);
        let max_shown = route.max_shown.unwrap_or(alerts.max_shown);
        if !(1..=MAX_SHOWN).contains(&max_shown) {
            self.wrong(route, &format!("max_shown must be 1 to {MAX_SHOWN}"));
        }
        if flap.changes < 2 {
            self.wrong(route, "flap.changes must be at least 2");
        }
        let quiet = route.quiet.iter().filter_map(|quiet| {
            let hours = hours(quiet);
            let hours = hours.map_err(|problem| self.wrong(route, &format!("quiet: {problem}")));
            hours.ok()
        });
        Route {
            quiet: quiet.collect(),
            name: route.name.clone(),
            fires: route.matches.clone(),
            resolves: route.resolve.clone(),
            only: route.only.clone(),
            group_by: route.group_by.clone(),
            severity: route.severity.unwrap_or(Severity::Error),
            receiver: receiver.to_owned(),
            continues: route.continues,
            timing: Timing {
                wait: route.group_wait.unwrap_or(alerts.group_wait).0,
                interval: route.group_interval.unwrap_or(alerts.group_interval).0,
                repeat: route.repeat_interval.unwrap_or(alerts.repeat_interval).0,
                resolve_after: route.resolve_after.unwrap_or(alerts.resolve_after).0,
            },
            max_shown,
            flap: Flap {
                changes: flap.changes,
                within: flap.within.0,
            },
            inhibited_by: route.inhibited_by.clone(),
        }
    }

    fn check_patterns(&mut self, route: &RouteConfig) {
        if route.matches.is_empty() && route.name != BROKER {
            self.wrong(route, "match needs a pattern of routing keys");
        }
        for pattern in route.matches.iter().chain(&route.resolve) {
            // Everything else on that exchange is between notifiers.
            let is_event = pattern.starts_with("stored.") || pattern.starts_with("live.");
            if !is_event || pattern.len() > MAX_KEY_BYTES {
                let problem = format!(
                    "the pattern {pattern:?} must begin with `stored.` or `live.`, e.g. \
                     stored.user.*.task.status_changed.failed"
                );
                self.wrong(route, &problem);
            }
        }
    }

    pub(super) fn look(&mut self, route: &RouteConfig) -> Look {
        let mention = match route.mention.as_deref() {
            None | Some("none") => None,
            Some("here") => Some(Mention::Here),
            Some("channel") => Some(Mention::Channel),
            Some(name) => {
                let user = name.strip_prefix('@').filter(|name| is_user(name));
                if user.is_none() {
                    self.wrong(route, "mention must be none, here, channel or @name");
                }
                user.map(|user| Mention::User(user.to_owned()))
            }
        };
        if let Some(runbook) = &route.runbook
            && web_address(runbook).is_none()
        {
            self.wrong(route, "runbook must be an http or https address");
        }
        let from = route.mention_from.unwrap_or(Severity::Error);
        Look {
            title: route.title.clone(),
            runbook: route.runbook.clone(),
            mention: mention.map(|mention| (mention, from)),
        }
    }
}

fn is_user(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.chars().all(fits)
}

fn hours(quiet: &QuietConfig) -> Result<QuietHours, String> {
    let time = |text: &str| {
        let time = Time::strptime("%H:%M", text).or_else(|_| Time::strptime("%H:%M:%S", text));
        time.map_err(|_| format!("{text:?} is no time such as 22:00"))
    };
    let day = |text: &String| match text.as_str() {
        "mon" => Ok(Weekday::Monday),
        "tue" => Ok(Weekday::Tuesday),
        "wed" => Ok(Weekday::Wednesday),
        "thu" => Ok(Weekday::Thursday),
        "fri" => Ok(Weekday::Friday),
        "sat" => Ok(Weekday::Saturday),
        "sun" => Ok(Weekday::Sunday),
        other => Err(format!("{other:?} is no day; days are mon to sun")),
    };
    Ok(QuietHours {
        days: quiet.days.iter().map(day).collect::<Result<_, _>>()?,
        from: time(&quiet.from)?,
        to: time(&quiet.to)?,
    })
}
