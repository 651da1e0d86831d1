//! Silences: what an administrator wants not to be posted for a while. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::access::pattern;

/// Alerts that are counted and not posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Silence {
    pub(crate) id: Uuid,
    /// Labels with the pattern that each must match.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) created_at: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) author: String,
    pub(crate) reason: String,
}

impl Silence {
    /// Whether it covers what has these labels, now. A label that is not known matches nothing, not
    /// even `*`.
    pub(crate) fn covers(&self, now: Timestamp, label: impl Fn(&str) -> Option<String>) -> bool {
        let fits = |(name, wants): (&String, &String)| {
            label(name).is_some_and(|has| pattern::matches(wants, &has))
        };
        now < self.until && !self.labels.is_empty() && self.labels.iter().all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_has_all_of_its_labels_until_it_ends() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (now, until) = (at("2026-01-15T10:30:00Z"), at("2026-01-15T11:00:00Z"));
        let silence = |labels: &[(&str, &str)]| Silence {
            id: Uuid::nil(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            created_at: now,
            until,
            author: "ann".into(),
            reason: "upgrade".into(),
        };
        let label = |name: &str| match name {
            "kind" => Some("report.daily".to_owned()),
            "user_id" => Some(String::new()),
            _ => None,
        };
        for (labels, wants) in [
            (&[("kind", "report.daily")][..], true),
            (&[("kind", "report.*")], true),
            (&[("kind", "report.*"), ("user_id", "*")], true),
            (&[("kind", "report.*"), ("user_id", "ann")], false),
            (&[("kind", "report.*"), ("host", "*")], false),
            (&[("kind", "report")], false),
            (&[], false),
        ] {
            assert_eq!(silence(labels).covers(now, label), wants, "{labels:?}");
        }
        assert!(!silence(&[("kind", "*")]).covers(until, label));
    }
}
