//! What a scenario found, as text or as one JSON object.

use std::collections::BTreeMap;
use std::process::ExitCode;

use bellhop_common::cli::say;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::machine::Machine;

/// The result of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Its name.
    pub(crate) scenario: &'static str,
    /// Where it ran.
    pub(crate) machine: Machine,
    /// Our figures, by name.
    pub(crate) ours: Map<String, Value>,
    /// The peers' figures, by peer.
    pub(crate) peers: BTreeMap<&'static str, Map<String, Value>>,
    /// What the figures are held against.
    pub(crate) bars: Vec<Bar>,
}

/// One promise, and whether it is kept.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the names are those of the JSON")]
pub(crate) struct Bar {
    /// What is measured, with its unit and whether the bar is a floor or a ceiling.
    pub(crate) what: String,
    /// What was measured.
    pub(crate) value: f64,
    /// What was promised.
    pub(crate) bar: f64,
    /// Whether it is kept.
    pub(crate) met: bool,
}

impl Bar {
    /// The value must not be below the bar.
    pub(crate) fn at_least(what: &str, value: f64, bar: f64) -> Self {
        Self {
            what: format!("{what}, at least"),
            value: rounded(value),
            bar,
            met: value >= bar,
        }
    }

    /// The value must not be above the bar.
    pub(crate) fn at_most(what: &str, value: f64, bar: f64) -> Self {
        Self {
            what: format!("{what}, at most"),
            value: rounded(value),
            bar,
            met: value <= bar,
        }
    }
}

impl Report {
    /// Prints it. The exit code speaks of missed bars only if it is asked to.
    pub(crate) fn print(&self, json: bool, check: bool) -> ExitCode {
        if json {
            match serde_json::to_string(self) {
                Ok(text) => say(&text),
                Err(error) => say(&format!("{{\"error\":\"{error}\"}}")),
            }
        } else {
            say(&self.text());
        }
        let missed = self.bars.iter().any(|bar| !bar.met);
        ExitCode::from(u8::from(check && missed))
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{} on {}", self.scenario, self.machine)];
        let sides = std::iter::once(("ours", &self.ours))
            .chain(self.peers.iter().map(|(name, figures)| (*name, figures)));
        for (name, figures) in sides {
            lines.push(format!("\n{name}"));
            lines.extend(
                figures
                    .iter()
                    .map(|(what, value)| format!("  {what:<28} {}", shown(value))),
            );
        }
        lines.push(String::new());
        for Bar {
            what,
            value,
            bar,
            met,
        } in &self.bars
        {
            let verdict = if *met { "met   " } else { "MISSED" };
            lines.push(format!("{verdict}  {what} {bar}: {value}"));
        }
        lines.join("\n")
    }
}

/// A series as its median and spread; anything else as it is.
fn shown(value: &Value) -> String {
    let number = |name: &str| value.get(name).and_then(Value::as_f64).map(rounded);
    match (value, number("median"), number("min"), number("max")) {
        (_, Some(median), Some(min), Some(max)) => format!("{median}  ({min} to {max})"),
        (Value::String(text), ..) => text.clone(),
        (Value::Number(number), ..) => number
            .as_f64()
            .map_or_else(String::new, |value| rounded(value).to_string()),
        _ => value.to_string(),
    }
}

/// To three digits or a whole number: more would say more than was measured.
fn rounded(value: f64) -> f64 {
    if value.abs() >= 100.0 {
        value.round()
    } else {
        (value * 100.0).round() / 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Series;

    #[test]
    fn a_bar_is_a_floor_or_a_ceiling() {
        assert!(Bar::at_least("rate", 0.8, 0.8).met);
        assert!(!Bar::at_least("rate", 0.799, 0.8).met);
        assert!(Bar::at_most("memory", 20.0, 20.0).met);
        assert!(!Bar::at_most("memory", 20.001, 20.0).met);
    }

    #[test]
    fn the_json_has_the_agreed_shape_and_the_text_says_what_was_missed() {
        let rate = serde_json::to_value(Series::of(vec![1.0, 2.0, 3.0])).unwrap();
        let figures = Map::from_iter([("jobs/s".to_owned(), rate)]);
        let report = Report {
            scenario: "worker",
            machine: Machine::default(),
            ours: figures.clone(),
            peers: BTreeMap::from([("celery", figures)]),
            bars: vec![Bar::at_least("jobs/s, of celery", 1.0, 10.0)],
        };
        let json = serde_json::to_value(&report).unwrap();
        for key in ["scenario", "machine", "ours", "peers", "bars"] {
            assert!(json.get(key).is_some(), "{key} in {json}");
        }
        assert_eq!(json["peers"]["celery"]["jobs/s"]["median"], 2.0);
        assert_eq!(json["bars"][0]["met"], false);
        let text = report.text();
        assert!(text.contains("2  (1 to 3)"), "{text}");
        assert!(
            text.contains("MISSED  jobs/s, of celery, at least 10: 1"),
            "{text}"
        );
    }
}
