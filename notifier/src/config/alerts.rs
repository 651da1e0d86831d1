//! `[alerts]`: which events the team is told, when and where.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bellhop_common::config::{HumanDuration, Secret};
use serde::{Deserialize, Serialize};

use crate::alerts::Severity;

/// `[alerts]`: what holds for routes that do not say otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// Before the first post of a group.
    pub group_wait: HumanDuration,
    /// Between posts of a group that changed.
    pub group_interval: HumanDuration,
    /// Between posts of a group that is open and did not change.
    pub repeat_interval: HumanDuration,
    /// After so long with nothing new a group is over.
    pub resolve_after: HumanDuration,
    /// How many alerts of a post are shown; of the others it says how many they are.
    pub max_shown: usize,
    /// How often a receiver is posted to.
    pub rate: PostRate,
    /// How many posts may be made at once.
    pub burst: u32,
    /// More changes than this are told as one.
    pub flap: FlapConfig,
    /// In which quiet hours are read and times are shown, e.g. `Europe/Berlin`.
    pub time_zone: String,
    /// Where alerts are looked at; a post links there with `?group=` and its group.
    pub console_url: Option<String>,
    /// Who gets what has no receiver of its own; needed when there are several.
    pub receiver: Option<String>,
    /// Where posts go.
    pub receivers: BTreeMap<String, ReceiverConfig>,
    /// Which events; those of failed jobs and of teams if there are none.
    pub routes: Vec<RouteConfig>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            group_wait: HumanDuration::from_secs(10),
            group_interval: HumanDuration::from_secs(60),
            repeat_interval: HumanDuration(Duration::from_hours(4)),
            resolve_after: HumanDuration(Duration::from_hours(1)),
            max_shown: 10,
            rate: PostRate(Duration::from_secs(1)),
            burst: 10,
            flap: FlapConfig::default(),
            time_zone: "UTC".into(),
            console_url: None,
            receiver: None,
            receivers: BTreeMap::new(),
            routes: Vec::new(),
        }
    }
}

/// `flap = { changes, within }`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlapConfig {
    /// So many changes between firing and resolved are told one by one.
    pub changes: usize,
    /// In this time; so long must it be quiet for the summary.
    pub within: HumanDuration,
}

impl Default for FlapConfig {
    fn default() -> Self {
        Self {
            changes: 6,
            within: HumanDuration(Duration::from_mins(30)),
        }
    }
}

/// `[alerts.receivers.<name>]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReceiverConfig {
    /// Whose webhook it is.
    pub kind: ReceiverKind,
    /// The incoming webhook's address. It is a secret: whoever has it can post.
    pub webhook_url: Option<Secret>,
    /// The same from a file.
    pub webhook_url_file: Option<PathBuf>,
    /// A channel's name, where the webhook's own is not wanted.
    pub channel: Option<String>,
    /// The author's name, where the server allows that.
    pub username: Option<String>,
}

/// Whose webhook it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReceiverKind {
    /// Mattermost's.
    #[default]
    Mattermost,
    /// Slack's.
    Slack,
}

/// `[[alerts.routes]]`: which events, and what becomes of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RouteConfig {
    /// Its name, for silences and `inhibited_by`.
    pub name: String,
    /// Patterns of routing keys, as AMQP reads them. The first route that matches takes the event.
    #[serde(rename = "match")]
    pub matches: Vec<String>,
    /// Patterns of routing keys of events that end a group with the same labels.
    pub resolve: Vec<String>,
    /// Labels, with the patterns of which one must match.
    #[serde(rename = "where")]
    pub only: BTreeMap<String, Vec<String>>,
    /// The routes after this one are asked too.
    #[serde(rename = "continue")]
    pub continues: bool,
    /// The labels that make a group.
    pub group_by: Vec<String>,
    /// Of what does not say its own.
    pub severity: Option<Severity>,
    /// Who gets it.
    pub receiver: Option<String>,
    /// Whom a post calls: `none`, `here`, `channel` or `@name`.
    pub mention: Option<String>,
    /// From which severity on.
    pub mention_from: Option<Severity>,
    /// The headline, with labels in braces.
    pub title: Option<String>,
    /// What to do about it.
    pub runbook: Option<String>,
    /// When nothing is posted, except what is critical.
    pub quiet: Vec<QuietConfig>,
    /// Routes of which an open group explains what is matched here.
    pub inhibited_by: Vec<String>,
    /// As in `[alerts]`.
    pub group_wait: Option<HumanDuration>,
    /// As in `[alerts]`.
    pub group_interval: Option<HumanDuration>,
    /// As in `[alerts]`.
    pub repeat_interval: Option<HumanDuration>,
    /// As in `[alerts]`.
    pub resolve_after: Option<HumanDuration>,
    /// As in `[alerts]`.
    pub max_shown: Option<usize>,
    /// As in `[alerts]`.
    pub flap: Option<FlapConfig>,
}

/// `quiet = [{ days, from, to }]`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QuietConfig {
    /// `mon` to `sun`; every day if there are none.
    pub days: Vec<String>,
    /// `22:00`, or with seconds.
    pub from: String,
    /// `07:00`, on the next day if that is earlier.
    pub to: String,
}

/// How often, written as `1/s`, `20/m` or `100/h`: the time between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PostRate(pub Duration);

/// A rate that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a rate is a number and a time, such as `1/s`, `20/m` or `100/h`")]
pub struct PostRateError;

impl FromStr for PostRate {
    type Err = PostRateError;

    fn from_str(text: &str) -> Result<Self, PostRateError> {
        let (count, unit) = text.split_once('/').ok_or(PostRateError)?;
        let count: u32 = count.trim().parse().map_err(|_| PostRateError)?;
        let time = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return Err(PostRateError),
        };
        time.checked_div(count).map(Self).ok_or(PostRateError)
    }
}

impl fmt::Display for PostRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let times = |unit: Duration| unit.as_nanos() / self.0.as_nanos().max(1);
        let units = [("s", 1), ("m", 60), ("h", 3600)];
        let fits = |(_, seconds): &(&str, u64)| times(Duration::from_secs(*seconds)) >= 1;
        let (name, seconds) = units.into_iter().find(fits).unwrap_or(("h", 3600));
        write!(f, "{}/{name}", times(Duration::from_secs(seconds)).max(1))
    }
}

impl Serialize for PostRate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PostRate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_written_as_it_is_read() {
        for (text, millis) in [
            ("1/s", 1_000),
            ("10/s", 100),
            ("20/m", 3_000),
            ("1/h", 3_600_000),
        ] {
            let rate: PostRate = text.parse().unwrap();
            assert_eq!(rate.0.as_millis(), millis);
            assert_eq!(rate.to_string(), text);
        }
        for bad in ["", "1", "0/s", "1/d", "-1/s", "x/s"] {
            assert_eq!(bad.parse::<PostRate>(), Err(PostRateError), "{bad}");
        }
    }
}
