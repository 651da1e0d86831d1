//! A job goes in over AMQP, and its owner watches it to its end.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_tests::stack::{Stack, no_args, open_kind, token};
use bellhop_worker::{QueueConfig, Registry};
use serde_json::{Value, json};

use crate::tasks::{Break, Count, Gated};

#[tokio::test]
async fn the_owner_sees_progress_and_success_and_nobody_else_does() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let registry = Registry::new().with(gated.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut second_device = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;

    let id = stack.enqueue("gated", no_args(), "ann").await;
    let half = ann
        .task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    assert_eq!(half["status"], "running");
    assert_eq!(half["progress"]["unit"], "steps");
    assert_eq!(half["attempt"], 1);
    gated.open();
    let end = ann
        .task_until(&id, |state| state["status"] == "succeeded")
        .await;
    assert_eq!(end["result"], "through the gate");
    assert_eq!(
        end["progress"]["percent"], 100.0,
        "the last progress arrives"
    );
    let states = second_device.task_to_end(&id).await;
    assert_eq!(states.last().unwrap()["status"], "succeeded");
    assert!(bob.is_silent(Duration::from_millis(300)).await);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn progress_is_conflated_and_the_last_state_arrives() {
    let stack = Stack::shared();
    let registry = Registry::new().with(Count);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let began = std::time::Instant::now();
    let id = stack.enqueue("count", json!({"to": 200_000}), "ann").await;
    let states = ann.task_to_end(&id).await;
    let last = states.last().unwrap();
    assert_eq!(last["progress"]["done"], 200_000);
    // Ten a second, the first and the last.
    let allowed = 3 + began.elapsed().as_millis() / 100;
    assert!(states.len() as u128 <= allowed, "{} states", states.len());
    worker.stop().await;
    notifier.stop().await;
}

/// Jobs that fail, with the code and a part of the message that their owner must see.
fn failures() -> Vec<(Value, &'static str, &'static str)> {
    vec![
        (
            json!({"kind": "break", "args": {"how": "fail", "message": "no disk"}}),
            "broken",
            "no disk",
        ),
        (
            json!({"kind": "break", "args": {"how": "panic", "message": "oh"}}),
            "panic",
            "panicked: oh",
        ),
        (
            json!({"kind": "break", "args": {"how": "retry", "message": "later"}}),
            "flaky",
            "later",
        ),
        (
            json!({"kind": "break", "args": {"how": "large"}}),
            "result_too_large",
            "max_result_size",
        ),
        (
            json!({"kind": "break", "args": {"how": 5}}),
            "bad_args",
            "do not fit break",
        ),
        (
            json!({"kind": "brake", "args": {}}),
            "unknown_kind",
            "it knows: break",
        ),
        (
            json!({"kind": "break", "args": {"how": "hang"}, "timeout_s": 1}),
            "timeout",
            "longer than 1s",
        ),
        (
            json!({"kind": "break", "args": {"how": "wait"}, "timeout_s": 1}),
            "timeout",
            "longer than 1s",
        ),
    ]
}

#[tokio::test]
async fn every_kind_of_failure_reaches_the_owner_and_the_dead_letters() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.jobs.grace = HumanDuration(Duration::from_millis(100));
    config.jobs.max_attempts = 1;
    let worker = stack.worker(config, Registry::new().with(Break)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    for (number, (job, code, message)) in failures().into_iter().enumerate() {
        let mut job = job;
        let id = format!("job-{number}");
        job["id"] = json!(id);
        job["user_id"] = json!("ann");
        rabbit.publish("jobs", "default", job.to_string()).await;
        let end = ann.task_to_end(&id).await.pop().unwrap();
        assert_eq!(end["status"], "failed");
        assert_eq!(end["error"]["code"], code);
        let told = end["error"]["message"].as_str().unwrap();
        assert!(told.contains(message), "{told}");
        let letter = rabbit.take("dead").await;
        assert_eq!(letter.headers["x-bellhop-reason"], code);
        assert_eq!(letter.headers["x-bellhop-queue"], "default");
        assert_eq!(letter.routing_key, "default");
        let body: Value = serde_json::from_slice(&letter.body).unwrap();
        assert_eq!(body, job, "the dead letter is the job as it came");
    }
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_unreadable_message_goes_to_the_dead_letters_and_holds_nothing_up() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.queues.get_mut("default").unwrap().concurrency = 1;
    let worker = stack.worker(config, Registry::new().with(Count)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let unreadable: [&[u8]; 4] = [
        b"not json",
        b"[1,2]",
        br#"{"kind":"count","user_id":"ann"}"#,
        &[0xff, 0xfe, 0x00],
    ];
    for body in unreadable {
        rabbit.publish("jobs", "default", body).await;
    }
    let id = stack.enqueue("count", json!({"to": 3}), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    let mut letters = Vec::new();
    for _ in unreadable {
        letters.push(rabbit.take("dead").await);
    }
    for body in unreadable {
        let letter = letters.iter().find(|letter| letter.body == body).unwrap();
        assert_eq!(letter.headers["x-bellhop-reason"], "unreadable");
        assert!(letter.headers["x-bellhop-error"].len() > 10);
    }
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_queue_runs_as_many_jobs_at_once_as_it_may_and_no_more() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let mut config = stack.worker_config();
    config.queues.get_mut("default").unwrap().concurrency = 3;
    let registry = Registry::new().with(gated.clone());
    let worker = stack.worker(config, registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(stack.enqueue("gated", no_args(), "ann").await);
    }
    for _ in 0..3 {
        ann.task_until_any(|state| state["progress"]["percent"] == 50.0)
            .await;
    }
    assert_eq!(gated.times_begun(), 3);
    assert!(
        ann.is_silent(Duration::from_millis(300)).await,
        "no fourth begins"
    );
    for _ in 0..5 {
        gated.open();
    }
    for _ in 0..5 {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    assert_eq!(gated.times_begun(), 5);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_full_queue_holds_no_other_up() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let mut config = stack.worker_config();
    config.queues = ["slow", "quick"]
        .map(|name| (name.to_owned(), one_at_a_time()))
        .into();
    let registry = Registry::new().with(gated.clone()).with(Count);
    let worker = stack.worker(config, registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let job = |id: &str, kind: &str| {
        json!({"id": id, "kind": kind, "args": {"to": 1}, "user_id": "ann"}).to_string()
    };
    for id in ["slow-1", "slow-2"] {
        rabbit.publish("jobs", "slow", job(id, "gated")).await;
    }
    ann.task_until("slow-1", |state| state["status"] == "running")
        .await;
    rabbit
        .publish("jobs", "quick", job("quick-1", "count"))
        .await;
    let end = ann.task_to_end("quick-1").await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert_eq!(gated.times_begun(), 1, "the slow queue has its own limit");
    gated.open();
    gated.open();
    ann.task_to_end("slow-2").await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_job_by_http_belongs_to_the_caller() {
    let stack = Stack::shared();
    let config = || stack.worker_config();
    // Makes the queue, and leaves the job waiting.
    stack.worker(config(), Registry::new()).await.stop().await;
    let mut settings = stack.notifier_config();
    open_kind(&mut settings, "count");
    let notifier = stack.notifier(settings).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let answer = bellhop_tests::stack::http()
        .post(notifier.url("/api/tasks"))
        .bearer_auth(token("ann"))
        .json(&json!({"kind": "count", "args": {"to": 2}, "title": "Two"}))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    let id = answer["task_id"].as_str().unwrap();
    let queued = ann.task_until(id, |_| true).await;
    assert_eq!(queued["status"], "queued");
    let worker = stack.worker(config(), Registry::new().with(Count)).await;
    let end = ann.task_to_end(id).await.pop().unwrap();
    assert!(end["rev"].as_u64() > queued["rev"].as_u64());
    assert_eq!(
        (&end["status"], &end["user_id"], &end["title"]),
        (&json!("succeeded"), &json!("ann"), &json!("Two"))
    );
    worker.stop().await;
    notifier.stop().await;
}

fn one_at_a_time() -> QueueConfig {
    QueueConfig {
        concurrency: 1,
        ..QueueConfig::default()
    }
}
