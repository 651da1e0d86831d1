//! The state of a task: the `data` of a `task.status_changed` event.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::group::GroupPlace;
use super::progress::Progress;

/// The event type that carries a [`TaskStatus`].
pub const TASK_STATUS_CHANGED: &str = "task.status_changed";

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// In the queue.
    Queued,
    /// Waiting for its time.
    Scheduled,
    /// A worker is on it.
    Running,
    /// An attempt failed; another follows.
    Retrying,
    /// Ended well.
    Succeeded,
    /// Ended badly, for good.
    Failed,
    /// Ended on request.
    Cancelled,
}

impl Status {
    /// The word on the wire and in routing keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Why an attempt or a task failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError {
    /// A stable word for programs, e.g. `timeout`, `panic`, `bad_args`, `exit_3`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}

impl TaskError {
    /// An error of that code.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// The state of a task at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    /// The job's id.
    pub task_id: String,
    /// Which handler runs it.
    pub kind: String,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Who owns it.
    pub user_id: String,
    /// Where it stands.
    pub status: Status,
    /// Which attempt this is, from 1; 0 before the first.
    pub attempt: u32,
    /// How many there may be.
    pub max_attempts: u32,
    /// Grows with every event of the task; see [`next_rev`].
    pub rev: u64,
    /// How far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// When it runs next, for `scheduled` and `retrying`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// Which job of which group it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupPlace>,
    /// When it came to stand so.
    pub timestamp: Timestamp,
}

/// The beginning of a text, of at most so many bytes, whole characters only.
#[must_use]
pub fn cut(text: &str, max_bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(max_bytes))
        .unwrap_or_default()
}

/// The `rev` of the next event of a task: microseconds since 1970, and always above the last.
///
/// A counter would start again when another worker takes over after a crash, and a client would
/// then ignore the new worker's events as old. The clock goes on across workers; their clocks may
/// differ by less than it takes the broker to notice a dead worker. Below 2^53 until the year
/// 2255, so JavaScript reads it exactly.
#[must_use]
pub fn next_rev(last: u64, now: Timestamp) -> u64 {
    let micros = u64::try_from(now.as_microsecond()).unwrap_or(0);
    micros.max(last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_back_as_it_was_written() {
        let status = TaskStatus {
            task_id: "t1".into(),
            kind: "files.checksum".into(),
            title: Some("Nightly".into()),
            user_id: "ann".into(),
            status: Status::Running,
            attempt: 1,
            max_attempts: 1,
            rev: 7,
            progress: Some(Progress::of(1, 3, "bytes").with_message("a.txt")),
            error: None,
            result: None,
            next_attempt_at: None,
            group: None,
            timestamp: "2026-01-15T10:30:00Z".parse().unwrap(),
        };
        let text = serde_json::to_string(&status).unwrap();
        assert!(text.contains(r#""percent":33.3,"done":1,"total":3,"unit":"bytes""#));
        assert!(!text.contains("null"), "absent is absent: {text}");
        assert_eq!(serde_json::from_str::<TaskStatus>(&text).unwrap(), status);
    }

    #[test]
    fn every_status_has_the_word_that_serde_writes() {
        for status in [
            Status::Queued,
            Status::Scheduled,
            Status::Running,
            Status::Retrying,
            Status::Succeeded,
            Status::Failed,
            Status::Cancelled,
        ] {
            assert_eq!(
                serde_json::to_value(status).unwrap(),
                Value::from(status.as_str())
            );
        }
    }

    #[test]
    fn rev_grows_even_when_the_clock_does_not() {
        let now: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let first = next_rev(0, now);
        assert_eq!(next_rev(first, now), first + 1);
        let earlier: Timestamp = "2025-01-15T10:30:00Z".parse().unwrap();
        assert_eq!(next_rev(first, earlier), first + 1);
    }
}
