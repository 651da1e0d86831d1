//! Very many failures are a few posts, and none is missing.

use std::time::{Duration, Instant};

use bellhop_tests::mattermost::Mattermost;
use bellhop_tests::stack::Stack;
use serde_json::json;
use uuid::Uuid;

use super::{config, count};

const GROUPS: usize = 50;

fn number() -> usize {
    let given = std::env::var("BELLHOP_TEST_ALERTS").ok();
    given.map_or(2_000, |number| number.parse().unwrap())
}

/// A failure as a worker tells it.
pub(super) fn failure(kind: &str, message: &str) -> Vec<u8> {
    let (id, now) = (Uuid::now_v7(), jiff::Timestamp::now());
    let data = json!({"task_id": id, "kind": kind, "user_id": "ann", "status": "failed",
        "attempt": 1, "max_attempts": 1, "rev": 1, "timestamp": now,
        "error": {"code": "broken", "message": message}});
    let body = json!({"type": "task.status_changed", "id": id, "time": now, "data": data});
    body.to_string().into_bytes()
}

#[tokio::test]
async fn thousands_of_failures_are_counted_in_as_few_posts_as_the_rate_allows() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.alerts.group_wait.0 = Duration::from_secs(1);
    config.alerts.rate.0 = Duration::from_millis(50);
    let notifier = stack.notifier(config).await;
    let (rabbit, number, begun) = (stack.rabbit().await, number(), Instant::now());
    let failures = (0..number).map(|n| failure(&format!("kind-{}", n % GROUPS), "no disk"));
    let key = "stored.user.ann.task.status_changed.failed";
    rabbit.publish_all("events", key, failures.collect()).await;
    let told = |posts: &[_]| posts.iter().map(count).sum::<u64>() >= number as u64;
    let posts = double.wait_until(told, Duration::from_mins(2)).await;
    let posts = posts.unwrap_or_else(|posts| panic!("{} posts", posts.len()));
    let (took, made) = (begun.elapsed(), posts.len());
    println!("{number} alerts in {made} posts within {took:?}");
    assert_eq!(posts.iter().map(count).sum::<u64>(), number as u64);
    let allowed = 10 + took.as_millis() / 50 + 1;
    assert!(
        (made as u128) <= allowed,
        "{made} posts, {allowed} are allowed"
    );
    assert_eq!(rabbit.ready("alerts").await, 0);
    notifier.stop().await;
}
