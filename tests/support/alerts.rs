//! Failures as workers tell them, and what the posts about them say.

use std::time::Instant;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::mattermost::Post;
use crate::rabbit::Rabbit;

/// The routing key of ann's failures.
pub const FAILED: &str = "stored.user.ann.task.status_changed.failed";

/// Tells a failure of hers.
pub async fn fail(rabbit: &Rabbit, kind: &str, message: &str) {
    let failure = failure(kind, message);
    rabbit.publish("events", FAILED, failure).await;
}

/// A failure as a worker tells it.
pub fn failure(kind: &str, message: &str) -> Vec<u8> {
    failure_at(kind, message, Timestamp::now())
}

/// The same of another time.
pub fn failure_at(kind: &str, message: &str, now: Timestamp) -> Vec<u8> {
    failure_of("ann", kind, message, now)
}

/// The same of another user.
pub fn failure_of(user: &str, kind: &str, message: &str, now: Timestamp) -> Vec<u8> {
    let id = Uuid::now_v7();
    let data = json!({"task_id": id, "kind": kind, "user_id": user, "status": "failed",
        "attempt": 1, "max_attempts": 1, "rev": 1, "timestamp": now,
        "error": {"code": "broken", "message": message}});
    let body = json!({"type": "task.status_changed", "id": id, "time": now, "data": data});
    body.to_string().into_bytes()
}

/// How many alerts a post tells.
pub fn count(post: &Post) -> u64 {
    let fields = post.attachments[0].fields.iter().flatten().flatten();
    let count = fields.filter(|field| field.title == "Count");
    let mut count = count.filter_map(|field| field.value.as_str()?.parse().ok());
    count.next().unwrap_or(1)
}

/// The most posts in any window of time beyond those that the rate allows for its length. It is
/// never more than the burst, give or take a post for the time that a request takes.
pub fn most_beyond(times: &[Instant], per_second: f64) -> f64 {
    let mut most: f64 = 0.0;
    for (first, begin) in times.iter().enumerate() {
        for (posts, end) in times[first..].iter().enumerate() {
            let allowed = per_second * end.duration_since(*begin).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a few hundred posts")]
            let beyond = (posts + 1) as f64 - allowed;
            most = most.max(beyond);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_anywhere_is_seen() {
        let begun = Instant::now();
        let steady = (0..20).map(|n| begun + Duration::from_millis(500 * n));
        let mut times: Vec<_> = steady.collect();
        assert!((most_beyond(&times, 2.0) - 1.0).abs() < 1e-9);
        let burst = times[10];
        times.splice(10..10, [burst; 4]);
        assert!((most_beyond(&times, 2.0) - 5.0).abs() < 1e-9);
        assert!(most_beyond(&[], 2.0).abs() < 1e-9);
    }
}
