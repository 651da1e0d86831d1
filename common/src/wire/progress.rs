//! How far a task is.

use serde::{Deserialize, Serialize};

use super::task::cut;

/// Every state travels to every window of the owner, up to ten times a second: longer texts are
/// cut, and deeper steps left out.
const MAX_MESSAGE_BYTES: usize = 1024;
const MAX_NAME_BYTES: usize = 256;
const MAX_UNIT_BYTES: usize = 64;
const MAX_DEPTH: usize = 4;

/// How far a running task is. What is unknown is absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Amount done, in `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Amount in all, in `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// What is counted, e.g. `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What is being done, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How fast `done` grows, in `unit` a second. The worker fills it in; a handler that knows
    /// better may say its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Whole seconds until the end, as far as can be seen. Filled in like `rate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_s: Option<u64>,
    /// The step that is being done, when the work has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Box<Step>>,
}

/// One step of several, and how far it is. On the wire its progress stands beside its name:
/// `{"name": "upload", "index": 2, "count": 3, "percent": 40.0}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What the step does, for a person.
    pub name: String,
    /// Which one it is, from 1; 0 (absent on the wire) when unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub index: u32,
    /// How many there are; 0 (absent on the wire) when unknown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub count: u32,
    /// How far the step is, with steps of its own if it has any.
    #[serde(flatten)]
    pub progress: Progress,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Progress {
    /// So much of so much; the percentage follows. More done than there is counts as 100 %.
    #[must_use]
    pub fn of(done: u64, total: u64, unit: impl Into<String>) -> Self {
        Self {
            percent: Some(percentage(done, total)),
            done: Some(done),
            total: Some(total),
            unit: Some(unit.into()),
            ..Self::default()
        }
    }

    /// The same with a word for the person who waits.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// As it may travel: percentages within 0 to 100 and, where the handler gave none, from `done`
    /// and `total` or else from the step (each of the steps counts alike); no number that JSON
    /// cannot carry; texts cut and steps below the fourth left out.
    #[must_use]
    pub fn tidied(self) -> Self {
        self.tidied_to(MAX_DEPTH)
    }

    /// Without rate and time left: nothing moves any more.
    #[must_use]
    pub fn at_rest(mut self) -> Self {
        (self.rate, self.remaining_s) = (None, None);
        self.step = self.step.map(|step| {
            let progress = step.progress.at_rest();
            Box::new(Step { progress, ..*step })
        });
        self
    }

    fn tidied_to(mut self, depth: usize) -> Self {
        self.step = self.step.filter(|_| depth > 0).map(|mut step| {
            shorten(&mut step.name, MAX_NAME_BYTES);
            step.progress = step.progress.tidied_to(depth.saturating_sub(1));
            step
        });
        self.percent = match (self.percent, self.done, self.total) {
            (Some(percent), _, _) if percent.is_finite() => Some(percent.clamp(0.0, 100.0)),
            (_, Some(done), Some(total)) => Some(percentage(done, total)),
            _ => self.step.as_ref().and_then(|step| step.share_of_all()),
        };
        self.rate = self.rate.filter(|rate| rate.is_finite() && *rate >= 0.0);
        for (text, limit) in [
            (&mut self.message, MAX_MESSAGE_BYTES),
            (&mut self.unit, MAX_UNIT_BYTES),
        ] {
            if let Some(text) = text {
                shorten(text, limit);
            }
        }
        self
    }
}

impl Step {
    /// Percent of all the steps that are done when this one is so far; a step that does not say
    /// how far it is counts when it is over. `None` when it is not known which of how many it is.
    fn share_of_all(&self) -> Option<f64> {
        if !(1..=self.count).contains(&self.index) {
            return None;
        }
        let before = f64::from(self.index.saturating_sub(1));
        let within = self.progress.percent.unwrap_or(0.0) / 100.0;
        Some(rounded((before + within) / f64::from(self.count) * 100.0))
    }
}

fn percentage(done: u64, total: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a percentage needs no more than 52 bits"
    )]
    match total {
        0 => 100.0,
        total => rounded((done as f64 / total as f64 * 100.0).min(100.0)),
    }
}

fn rounded(percent: f64) -> f64 {
    (percent * 10.0).round() / 10.0
}

fn shorten(text: &mut String, max_bytes: usize) {
    text.truncate(cut(text, max_bytes).len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: serde_json::Value) -> Progress {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn percent_stays_within_bounds() {
        assert_eq!(Progress::of(0, 0, "x").percent, Some(100.0));
        assert_eq!(Progress::of(5, 4, "x").percent, Some(100.0));
        assert_eq!(Progress::of(0, 4, "x").percent, Some(0.0));
    }

    #[test]
    fn nested_steps_read_back_as_they_were_written() {
        let value = json!({
            "percent": 50.0, "rate": 2.5, "remaining_s": 7,
            "step": {"name": "upload", "index": 2, "count": 3, "percent": 50.0,
                     "step": {"name": "part", "done": u64::MAX, "total": u64::MAX, "unit": "bytes"}},
        });
        let progress = read(value.clone());
        let inner = progress.step.as_ref().unwrap().progress.step.as_ref();
        assert_eq!(inner.unwrap().progress.done, Some(u64::MAX));
        assert_eq!(serde_json::to_value(&progress).unwrap(), value);
    }

    #[test]
    fn fields_of_later_versions_are_passed_over() {
        let progress = read(json!({
            "percent": 1, "eta": [1], "step": {"name": "a", "weight": 3, "step": {"name": "b", "x": {}}},
        }));
        assert_eq!(progress.percent, Some(1.0));
        let step = progress.step.unwrap();
        assert_eq!((step.name.as_str(), step.index, step.count), ("a", 0, 0));
        assert_eq!(step.progress.step.unwrap().name, "b");
        assert_eq!(read(json!({})), Progress::default());
    }

    #[test]
    fn the_percent_of_the_whole_follows_from_the_steps() {
        let percent = |value| read(value).tidied().percent;
        let step = |fields: &str| {
            let step: serde_json::Value = serde_json::from_str(fields).unwrap();
            percent(json!({ "step": step }))
        };
        assert_eq!(step(r#"{"name":"a","index":1,"count":4}"#), Some(0.0));
        assert_eq!(
            step(r#"{"name":"a","index":2,"count":4,"percent":50}"#),
            Some(37.5)
        );
        assert_eq!(
            step(r#"{"name":"a","index":4,"count":4,"done":9,"total":9}"#),
            Some(100.0)
        );
        assert_eq!(
            step(
                r#"{"name":"a","index":2,"count":2,"step":{"name":"b","index":2,"count":2,"percent":50}}"#
            ),
            Some(87.5)
        );
        for unknown in [r#"{"name":"a"}"#, r#"{"name":"a","index":5,"count":4}"#] {
            assert_eq!(step(unknown), None, "{unknown}");
        }
        let step = json!({"name": "a", "index": 1, "count": 2, "percent": 100});
        assert_eq!(
            percent(json!({"percent": 7, "step": step})),
            Some(7.0),
            "a handler that knows its steps' weights decides"
        );
        assert_eq!(
            percent(json!({"done": 1, "total": 4, "step": step})),
            Some(25.0)
        );
    }

    #[test]
    fn what_travels_is_bounded() {
        let mut progress = Progress {
            message: Some("ü".repeat(2000)),
            unit: Some("u".repeat(100)),
            percent: Some(f64::NAN),
            rate: Some(f64::INFINITY),
            ..Progress::default()
        };
        for _ in 0..50 {
            progress.step = Some(Box::new(Step {
                name: "n".repeat(1000),
                index: 1,
                count: 1,
                progress: progress.clone(),
            }));
        }
        let tidied = progress.tidied();
        assert_eq!((tidied.percent, tidied.rate), (Some(0.0), None));
        assert_eq!(tidied.message.as_ref().unwrap().len(), 1024);
        let text = serde_json::to_string(&tidied).unwrap();
        assert_eq!(text.matches("\"step\"").count(), MAX_DEPTH);
        assert!(text.len() < 8 * 1024, "{}", text.len());
    }

    #[test]
    fn at_rest_nothing_is_estimated_at_any_level() {
        let progress = read(json!({
            "done": 1, "rate": 1.0, "remaining_s": 1,
            "step": {"name": "a", "rate": 1.0, "step": {"name": "b", "remaining_s": 2}},
        }));
        let text = serde_json::to_string(&progress.at_rest()).unwrap();
        assert_eq!(
            text,
            r#"{"done":1,"step":{"name":"a","step":{"name":"b"}}}"#
        );
    }
}
