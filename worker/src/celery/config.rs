//! `[celery]`.

use std::collections::BTreeMap;

use bellhop_common::amqp::QueueKind;
use bellhop_common::wire::MAX_ID_BYTES;
use serde::{Deserialize, Serialize};

use crate::config::QueueConfig;

/// `[celery]`: what is done for Celery's producers and monitors.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CeleryConfig {
    /// Whose the tasks are that name no user. Without it they are refused.
    pub user_id: Option<String>,
    /// Whether to publish Celery's events and answer its inspections, for monitors like Flower.
    pub events: bool,
    /// What monitors call this worker; `bellhop@<host>` if unset. Two workers with one name are one
    /// to them.
    pub node: Option<String>,
    /// Queues of Celery's to take tasks from, by name.
    pub queues: BTreeMap<String, CeleryQueueConfig>,
}

/// `[celery.queues.<name>]`: a queue that Celery's producers publish to.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CeleryQueueConfig {
    /// The queue of ours, one of `[queues]`, that its tasks are moved to.
    pub queue: String,
    /// `task_default_queue_type` of the producers.
    #[serde(rename = "type")]
    pub kind: CeleryQueueKind,
    /// `task_queue_max_priority` of the producers.
    pub max_priority: Option<u8>,
}

/// What Celery's client makes of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CeleryQueueKind {
    /// Celery's default.
    #[default]
    Classic,
    /// With `task_default_queue_type = "quorum"`.
    Quorum,
}

impl Default for CeleryQueueConfig {
    fn default() -> Self {
        Self {
            queue: "default".into(),
            kind: CeleryQueueKind::Classic,
            max_priority: None,
        }
    }
}

impl CeleryQueueConfig {
    pub(super) fn queue_kind(&self) -> QueueKind {
        match self.kind {
            CeleryQueueKind::Classic => QueueKind::Classic {
                max_priority: self.max_priority,
            },
            CeleryQueueKind::Quorum => QueueKind::Plain,
        }
    }
}

impl CeleryConfig {
    /// What is wrong with the values together; empty when nothing is.
    pub(crate) fn problems(&self, ours: &BTreeMap<String, QueueConfig>) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [("user_id", &self.user_id), ("node", &self.node)] {
            if let Some(value) = value
                && !(1..=MAX_ID_BYTES).contains(&value.len())
            {
                problems.push(format!(
                    "celery.{key} must have 1 to {MAX_ID_BYTES} bytes, it is {value:?}"
                ));
            }
        }
        for (name, queue) in &self.queues {
            if name.is_empty() || name.len() > 255 {
                problems.push(format!(
                    "celery queue name {name:?} must have 1 to 255 bytes"
                ));
            }
            if !ours.contains_key(&queue.queue) {
                problems.push(format!(
                    "celery.queues.{name:?}.queue is {:?}, which this worker does not serve: add \
                     [queues.{0:?}], or name one of {:?}",
                    queue.queue,
                    ours.keys().collect::<Vec<_>>()
                ));
            }
            let quorum = queue.kind == CeleryQueueKind::Quorum;
            if queue.max_priority == Some(0) || queue.max_priority.is_some() && quorum {
                problems.push(format!(
                    "celery.queues.{name:?}.max_priority must be 1 to 255, and quorum queues take none"
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_that_do_not_fit_together_are_named() {
        let config: CeleryConfig = serde_json::from_value(json!({
            "user_id": "",
            "queues": {
                "celery": {"queue": "absent"},
                "fast": {"type": "quorum", "max_priority": 9}
            }
        }))
        .unwrap();
        let ours = BTreeMap::from([("default".to_owned(), QueueConfig::default())]);
        let problems = config.problems(&ours).join("\n");
        for wants in [
            "celery.user_id",
            "celery.queues.\"celery\".queue",
            "[queues.\"absent\"]",
            "celery.queues.\"fast\".max_priority",
        ] {
            assert!(problems.contains(wants), "{wants} in {problems}");
        }
        assert!(CeleryConfig::default().problems(&ours).is_empty());
    }
}
