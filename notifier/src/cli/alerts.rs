//! `notifier alerts`.

use std::collections::BTreeMap;

use bellhop_common::cli::say;
use bellhop_common::table::{aligned, clean};
use clap::Args;
use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;

use super::api::{ApiFlags, read};

/// A person reads one line; `--json` has the rest.
const WIDEST: usize = 60;

#[derive(Debug, Args)]
pub(super) struct Alerts {
    /// All that the notifier says, as JSON in one line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiFlags,
}

/// What of the answer is shown.
#[derive(Deserialize)]
struct Open {
    groups: Vec<Group>,
    receivers: Vec<Receiver>,
}

#[derive(Deserialize)]
struct Group {
    route: String,
    labels: BTreeMap<String, String>,
    severity: String,
    state: String,
    last_at: Timestamp,
    count: u64,
    pending: u64,
    held: Option<Held>,
}

#[derive(Deserialize)]
struct Held {
    reason: String,
    until: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Receiver {
    name: String,
    up: bool,
    failures: u32,
    not_before: Option<Timestamp>,
}

impl Alerts {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let answer = self
            .api
            .open()?
            .ask(Method::GET, "/api/alerts", None)
            .await?;
        if self.json {
            say(&answer.to_string());
            return Ok(());
        }
        let open: Open = read(answer)?;
        if open.groups.is_empty() {
            say("nothing is open");
        } else {
            say(table(&open.groups).trim_end());
        }
        for receiver in open.receivers.iter().filter(|receiver| !receiver.up) {
            say(&failing(receiver));
        }
        Ok(())
    }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn failing(receiver: &Receiver) -> String {
    let name = clean(&receiver.name, WIDEST);
    let times = receiver.failures;
    let next = receiver.not_before.map(seconds);
    let next = next.map_or_else(String::new, |next| {
        format!(", and is asked again at {next}")
    });
    format!("the receiver {name} failed {times} times{next}")
}

fn table(groups: &[Group]) -> String {
    let headings = [
        "STATE", "SEVERITY", "COUNT", "UNPOSTED", "LAST", "HELD", "ROUTE", "LABELS",
    ];
    let mut rows = vec![headings.map(str::to_owned)];
    for group in groups {
        let labels = group.labels.iter();
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        rows.push([
            clean(&group.state, WIDEST),
            clean(&group.severity, WIDEST),
            group.count.to_string(),
            group.pending.to_string(),
            seconds(group.last_at),
            group.held.as_ref().map_or_else(|| "-".into(), held),
            clean(&group.route, WIDEST),
            clean(&labels.join(" "), WIDEST),
        ]);
    }
    aligned(&rows)
}

fn held(held: &Held) -> String {
    let reason = clean(&held.reason, WIDEST);
    match held.until {
        Some(until) => format!("{reason} until {}", seconds(until)),
        None => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_group_is_a_line_that_steers_no_terminal() {
        let open: Open = read(json!({
            "groups": [{
                "group": "k", "route": "failures", "labels": {"kind": "a\u{1b}[2Jb"},
                "severity": "error", "state": "open", "opened_at": "2026-01-15T10:30:00Z",
                "last_at": "2026-01-15T10:31:00.123Z", "ended_at": null, "count": 12, "pending": 2,
                "posts": 1, "posted_at": null,
                "held": {"reason": "silenced", "until": "2026-01-15T12:00:00Z"},
            }],
            "receivers": [{"name": "ops", "up": false, "failures": 3,
                "failing_since": "2026-01-15T10:30:00Z", "not_before": "2026-01-15T10:40:00Z"}],
            "suppressed": {"silenced": 0, "inhibited": 0},
        }))
        .unwrap();
        let wants = "\
STATE  SEVERITY  COUNT  UNPOSTED  LAST                  HELD                                 ROUTE     LABELS
open   error     12     2         2026-01-15T10:31:00Z  silenced until 2026-01-15T12:00:00Z  failures  kind=a\u{fffd}[2Jb
";
        assert_eq!(table(&open.groups), wants);
        assert_eq!(
            failing(&open.receivers[0]),
            "the receiver ops failed 3 times, and is asked again at 2026-01-15T10:40:00Z"
        );
    }
}
