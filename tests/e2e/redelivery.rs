//! Messages that come back: what was dealt with is not dealt with again.

use bellhop_common::wire::NAMESPACE;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::Registry;
use serde_json::json;
use uuid::Uuid;

use crate::tasks::{Break, Count, Gated};

fn settlement(task_id: &str, hop: u32) -> String {
    Uuid::new_v5(&NAMESPACE, format!("{task_id}//{hop}").as_bytes()).to_string()
}

/// Takes a job as a worker would that dies later: its message comes back when this is dropped.
async fn taken_and_lost(stack: &Stack, kind: &str, args: serde_json::Value) -> (String, Rabbit) {
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    worker.stop().await;
    let id = stack.enqueue(kind, args, "ann").await;
    let lost = stack.rabbit().await;
    lost.take_and_keep("jobs.default").await;
    (id, lost)
}

#[tokio::test]
async fn a_job_that_ended_elsewhere_is_not_run_again() {
    let stack = Stack::shared();
    let (id, lost) = taken_and_lost(&stack, "gated", no_args()).await;
    // What the lost worker told before it died.
    let event = json!({"type": "task.status_changed", "id": Uuid::now_v7(),
        "time": "2026-01-15T10:30:00Z", "data": {"task_id": id, "status": "succeeded"}});
    let headers = [("x-bellhop-settled", settlement(&id, 0))];
    let key = "stored.user.ann.task.status_changed.succeeded";
    lost.publish_headed("events", key, event.to_string(), &headers)
        .await;
    lost.close().await;
    let gated = Gated::new();
    let registry = Registry::new().with(gated.clone()).with(Count);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let rabbit = stack.rabbit().await;
    rabbit.fetched("jobs.default").await;
    // The message was acknowledged, not merely held: nothing returns.
    worker.stop().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    assert_eq!(gated.times_begun(), 0);
}

#[tokio::test]
async fn a_job_that_waits_for_another_attempt_is_not_run_twice() {
    let stack = Stack::shared();
    let (id, lost) = taken_and_lost(&stack, "gated", no_args()).await;
    // The lost worker had put the next attempt on the ladder; here it leads nowhere.
    let headers = [("x-bellhop-settled", settlement(&id, 0))];
    lost.publish_headed("delay", "nowhere", "{}", &headers)
        .await;
    lost.close().await;
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let rabbit = stack.rabbit().await;
    rabbit.fetched("jobs.default").await;
    worker.stop().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    assert_eq!(gated.times_begun(), 0);
}

#[tokio::test]
async fn an_end_that_was_buried_but_not_told_is_told() {
    let stack = Stack::shared();
    let (id, lost) = taken_and_lost(&stack, "break", json!({"how": "fail"})).await;
    let headers = [
        ("x-bellhop-settled", settlement(&id, 0)),
        ("x-bellhop-reason", "no_paper".to_owned()),
        ("x-bellhop-error", "the tray is empty".to_owned()),
    ];
    lost.publish_headed("dead", "default", "{}", &headers).await;
    lost.close().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Break))
        .await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["error"]["code"], &end["error"]["message"]),
        (&json!("no_paper"), &json!("the tray is empty"))
    );
    let rabbit = stack.rabbit().await;
    // One dead letter, not two.
    rabbit.settles_at("dead", 1).await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_end_that_is_told_twice_is_shown_once() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let event = |task: &str| {
        let id = Uuid::new_v5(&NAMESPACE, task.as_bytes());
        json!({"type": "task.status_changed", "id": id, "time": "2026-01-15T10:30:00Z",
            "data": {"task_id": task, "status": "succeeded"}})
        .to_string()
    };
    let key = "user.ann.task.status_changed.succeeded";
    let stored = format!("stored.{key}");
    // By two workers.
    for _ in 0..2 {
        rabbit.publish("events", &stored, event("told")).await;
    }
    let shown = ann.next_of("task.updated").await;
    assert_eq!(shown["data"]["task_id"], "told");
    // By a notifier that did not hear that the first bundle had arrived.
    let body = event("told");
    let head = json!({"key": format!("live.{key}"), "epoch": shown["epoch"], "seq": shown["seq"],
        "bytes": body.len()});
    let bundle = format!("{head}\n{body}\n");
    rabbit.publish("events", "bundle.other", bundle).await;
    rabbit.publish("events", &stored, event("end")).await;
    let shown = ann.next_of("task.updated").await;
    assert_eq!(shown["data"]["task_id"], "end");
    notifier.stop().await;
}

#[tokio::test]
async fn a_job_that_nobody_ended_is_run_again() {
    let stack = Stack::shared();
    let (id, lost) = taken_and_lost(&stack, "count", json!({"to": 3})).await;
    lost.close().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["attempt"]),
        (&json!("succeeded"), &json!(1))
    );
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_that_forgets_the_acknowledgement_of_a_job_that_ended() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    broker.stop().await;
    worker.wait_ready(false).await;
    gated.open();
    broker.start().await;
    assert_eq!(
        ann.task_to_end(&id).await.pop().unwrap()["status"],
        "succeeded"
    );
    worker.wait_ready(true).await;
    stack.rabbit().await.fetched("jobs.default").await;
    assert_eq!(gated.times_begun(), 1);
    worker.stop().await;
    notifier.stop().await;
}
