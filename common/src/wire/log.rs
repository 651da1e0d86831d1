//! What a task says besides its progress: the `data` of a `task.log` event.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The event type that carries a [`TaskLog`].
pub const TASK_LOG: &str = "task.log";

/// Lines that a running task wrote for its owner, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskLog {
    /// The job's id.
    pub task_id: String,
    /// Which attempt wrote them, from 1.
    pub attempt: u32,
    /// The lines, in the order in which they were written.
    pub lines: Vec<LogLine>,
    /// How many lines before these were left out, because they came faster than they could be
    /// told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub at: Timestamp,
    /// What it says, without the end of the line.
    pub text: String,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_as_they_were_written() {
        let mut log = TaskLog {
            task_id: "t1".into(),
            attempt: 1,
            lines: vec![LogLine {
                at: "2026-01-15T10:30:00Z".parse().unwrap(),
                text: "12 rows skipped".into(),
            }],
            dropped: 0,
        };
        let text = serde_json::to_string(&log).unwrap();
        assert_eq!(
            text,
            r#"{"task_id":"t1","attempt":1,"lines":[{"at":"2026-01-15T10:30:00Z","text":"12 rows skipped"}]}"#
        );
        assert_eq!(serde_json::from_str::<TaskLog>(&text).unwrap(), log);
        log.dropped = 7;
        assert_eq!(serde_json::to_value(&log).unwrap()["dropped"], 7);
    }
}
