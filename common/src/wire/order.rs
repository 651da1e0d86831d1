//! Orders to all workers, of today and to come.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::routing_key::encode_word;

/// What workers are told through the exchange `control`; the routing key says it first, so that
/// queues can choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// A task is to end, wherever it is.
    Cancel {
        /// Which one.
        task_id: String,
        /// Only if it belongs to this user; whoever may cancel any task leaves it out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user_id: Option<String>,
        /// When it was given.
        time: Timestamp,
    },
    /// A message that waits in the delay ladder in case its worker dies is of no use any more.
    Spent {
        /// Which message; see the header `x-bellhop-settled`.
        settlement: Uuid,
    },
}

impl Order {
    /// The routing key it is published with.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Cancel { task_id, .. } => format!("cancel.{}", word(task_id)),
            Self::Spent { settlement } => format!("spent.{settlement}"),
        }
    }
}

/// Nobody binds to a single id; a long one must not make the key too long.
pub(super) fn word(id: &str) -> String {
    let word = encode_word(id);
    if word.len() > 200 { "-".into() } else { word }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_reads_back_as_it_was_written() {
        let cancel = Order::Cancel {
            task_id: "a.b".into(),
            user_id: Some("ann".into()),
            time: "2026-01-15T10:30:00Z".parse().unwrap(),
        };
        assert_eq!(cancel.key(), "cancel.a%2Eb");
        let text = serde_json::to_string(&cancel).unwrap();
        assert!(text.contains(r#""order":"cancel""#), "{text}");
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), cancel);
        let long = Order::Cancel {
            task_id: "#".repeat(128),
            user_id: None,
            time: "2026-01-15T10:30:00Z".parse().unwrap(),
        };
        assert_eq!(long.key(), "cancel.-");
    }
}
