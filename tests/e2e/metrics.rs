//! What Prometheus reads of a worker.

use std::time::Duration;

use bellhop_tests::stack::{PATIENCE, Running, Stack, http};
use bellhop_worker::Registry;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::tasks::{Break, Flaky, Gated};

async fn page(worker: &Running) -> String {
    let answer = http().get(worker.url("/metrics")).send().await.unwrap();
    answer.text().await.unwrap()
}

/// The value of the series of that name which has all of these labels.
fn value(page: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |line: &&str| {
        let named = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('{'));
        named
            && labels
                .iter()
                .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    let line = page.lines().find(fits)?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn is(page: &str, name: &str, labels: &[(&str, &str)], wants: u32) {
    let name = format!("bellhop_worker_{name}");
    let value = value(page, &name, labels);
    assert_eq!(
        value,
        Some(f64::from(wants)),
        "{name} {labels:?} in\n{page}"
    );
}

/// The page once a series has a value: what ends is counted after it is told.
async fn page_with(worker: &Running, name: &str, labels: &[(&str, &str)], wants: u32) -> String {
    let counted = async {
        loop {
            let page = page(worker).await;
            let now = value(&page, &format!("bellhop_worker_{name}"), labels);
            if now == Some(f64::from(wants)) {
                return page;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let counted = timeout(PATIENCE, counted).await;
    counted.unwrap_or_else(|_| panic!("{name} {labels:?} does not become {wants}"))
}

async fn put_in(stack: &Stack, kind: &str, args: Value) {
    let job = json!({"id": format!("{kind}-1"), "kind": kind, "user_id": "ann", "args": args});
    let since = [("x-bellhop-since", Timestamp::now().to_string())];
    let rabbit = stack.rabbit().await;
    rabbit
        .publish_headed("jobs", "default", job.to_string(), &since)
        .await;
}

#[tokio::test]
async fn a_kind_shows_how_long_how_often_and_how_it_ended() {
    let stack = Stack::shared();
    let (gated, flaky) = (Gated::new(), Flaky::new(1));
    let registry = Registry::new().with(gated.clone()).with(Break);
    let mut config = stack.worker_config();
    config.jobs.retry_base = "1ms".parse().unwrap();
    let worker = stack.worker(config, registry.with(flaky)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    put_in(&stack, "flaky", json!({})).await;
    put_in(&stack, "break", json!({"how": "fail"})).await;
    ann.task_to_end("flaky-1").await;
    put_in(&stack, "gated", json!({})).await;
    ann.task_until("gated-1", |state| state["progress"]["percent"] == 50.0)
        .await;

    let of = |kind| ("kind", kind);
    let failed = [of("break"), ("outcome", "failed")];
    let text = page_with(&worker, "jobs_total", &failed, 1).await;
    is(
        &text,
        "job_seconds_bucket",
        &[of("flaky"), ("le", "+Inf")],
        2,
    );
    is(&text, "job_seconds_bucket", &[of("flaky"), ("le", "1")], 2);
    is(&text, "wait_seconds_count", &[of("flaky")], 1);
    is(&text, "attempts_bucket", &[of("flaky"), ("le", "1")], 0);
    is(&text, "attempts_bucket", &[of("flaky"), ("le", "2")], 1);
    for (kind, outcome) in [
        ("flaky", "retrying"),
        ("flaky", "succeeded"),
        ("break", "failed"),
    ] {
        is(&text, "jobs_total", &[of(kind), ("outcome", outcome)], 1);
    }
    let queue = ("queue", "default");
    is(&text, "jobs_running", &[queue, of("gated")], 1);
    is(&text, "jobs_running", &[queue, of("flaky")], 0);

    gated.open();
    ann.task_to_end("gated-1").await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_producers_invent_makes_no_series() {
    let stack = Stack::shared();
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    let rabbit = stack.rabbit().await;
    let ends = rabbit.listening("events", "stored.#").await;
    let before = page(&worker).await;
    for n in 0..50 {
        let job = json!({"id": format!("id-{n}"), "kind": format!("invented-{n}"),
            "user_id": format!("user-{n}"), "room_id": format!("room-{n}")});
        let headers = [("x-bellhop-queue", format!("queue-{n}"))];
        rabbit
            .publish_headed("jobs", "default", job.to_string(), &headers)
            .await;
        let id = format!("no job {n}");
        rabbit
            .publish_headed("jobs", "default", &id, &headers)
            .await;
    }
    // Each unknown kind ends for its owner and for the room; each that is no job is buried.
    rabbit.holds(&ends, 100).await;
    rabbit.holds("dead", 100).await;
    let counted = [("kind", "unknown"), ("outcome", "failed")];
    let text = page_with(&worker, "jobs_total", &counted, 50).await;
    is(&text, "unreadable_total", &[("queue", "default")], 50);
    for invented in ["invented", "user-", "room-", "queue-", "id-"] {
        assert!(!text.contains(invented), "{invented} in\n{text}");
    }
    let series = |page: &str| page.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series(&text) < series(&before) + 60, "{text}");
    worker.stop().await;
}
