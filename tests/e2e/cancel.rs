//! Ending a task on request.

use bellhop_tests::program::{Program, command};
use bellhop_tests::stack::{Running, Stack, http, no_args, token};
use bellhop_worker::Registry;
use serde_json::{Value, json};

use crate::tasks::Gated;

async fn delete(notifier: &Running, id: &str, user: &str) -> (u16, Value) {
    let request = http().delete(notifier.url(&format!("/api/tasks/{id}")));
    let answer = request.bearer_auth(token(user)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn the_owner_ends_a_running_task_and_nobody_else_does() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    let other = stack.enqueue("gated", no_args(), "ann").await;
    for id in [&id, &other] {
        ann.task_until(id, |state| state["progress"]["percent"] == 50.0)
            .await;
    }
    let (status, answer) = delete(&notifier, &id, "bob").await;
    assert_eq!((status, &answer["status"]), (202, &json!("cancelling")));
    let (status, _) = delete(&notifier, &id, "ann").await;
    assert_eq!(status, 202);
    // Orders keep their order: had the stranger's worked, this task would have ended before.
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "cancelled");
    assert_eq!(end["progress"]["percent"], 50.0);
    gated.open();
    let end = ann.task_to_end(&other).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded", "its neighbour goes on");
    let rabbit = stack.rabbit().await;
    assert_eq!(
        rabbit.ready("dead").await,
        0,
        "what was asked for is no failure"
    );
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_stranger_cancels_nothing() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    delete(&notifier, &id, "bob").await;
    // A task of his own, cancelled after: when this is through, so was the order before.
    let his = stack.enqueue("gated", no_args(), "bob").await;
    bob.task_until(&his, |state| state["status"] == "running")
        .await;
    delete(&notifier, &his, "bob").await;
    bob.task_to_end(&his).await;
    gated.open();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_order_holds_although_no_worker_runs() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let registry = || Registry::new().with(gated.clone());
    // Makes the queue.
    let worker = stack.worker(stack.worker_config(), registry()).await;
    worker.stop().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    let mut cancel = command("worker", &stack);
    let output = cancel.args(["cancel", &id]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let worker = stack.worker(stack.worker_config(), registry()).await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "cancelled");
    worker.stop().await;

    // And for the next worker, which was not there either.
    let job = json!({"id": id, "kind": "gated", "user_id": "ann"}).to_string();
    let rabbit = stack.rabbit().await;
    let worker = stack.worker(stack.worker_config(), registry()).await;
    rabbit.publish("jobs", "default", job).await;
    rabbit.fetched("jobs.default").await;
    worker.stop().await;
    assert_eq!(gated.times_begun(), 0);
    notifier.stop().await;
}

#[tokio::test]
async fn a_program_gets_term_and_then_kill() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // It ignores TERM, and tells its process's id.
    let script = r#"trap "" TERM; echo "{\"progress\":{\"done\":$$,\"total\":9999999}}"; while :; do sleep 1; done"#;
    let setting = format!("exec.stubborn.command=['/bin/sh', '-c', '{script}']");
    let settings = [&setting, "exec.stubborn.grace=300ms"];
    let worker = Program::start("worker", &stack, &settings).await;
    let id = stack.enqueue("stubborn", no_args(), "ann").await;
    let state = ann
        .task_until(&id, |state| state["progress"]["done"].is_u64())
        .await;
    delete(&notifier, &id, "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "cancelled");
    let pid = state["progress"]["done"].to_string();
    assert!(!std::path::Path::new("/proc").join(pid).exists());
    drop(worker);
    notifier.stop().await;
}
