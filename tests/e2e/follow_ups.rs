//! What follows a job's end: other jobs, and an answer to who asked.

use bellhop_tests::stack::Stack;
use bellhop_worker::{Outcome, Registry, Task, TaskContext};
use lapin::BasicProperties;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

use crate::tasks::{Break, Count};

/// Gives its arguments back.
#[derive(Clone, Default)]
struct Echo(Arc<Mutex<Vec<Value>>>);

impl Task for Echo {
    const KIND: &'static str = "echo";
    type Args = Value;

    async fn run(&self, _: TaskContext, args: Value) -> Outcome {
        self.0.lock().unwrap().push(args.clone());
        Outcome::Done(args)
    }
}

#[tokio::test]
async fn a_chain_hands_its_results_on() {
    let stack = Stack::shared();
    let echo = Echo::default();
    let registry = Registry::new().with(Count).with(echo.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    stack
        .put_in(
            json!({"kind": "count", "args": {"to": 7}, "user_id": "ann", "then": [{
            "kind": "echo", "args": {"step": 2}, "title": "Second",
            "then": [{"kind": "echo", "args": {"step": 3}, "as": "before"}],
        }], "on_failure": [{"kind": "echo", "args": {"wrong": true}}]}),
        )
        .await;
    for _ in 0..3 {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    let second = json!({"step": 2, "result": 7});
    let third = json!({"step": 3, "before": second});
    assert_eq!(*echo.0.lock().unwrap(), [second, third]);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_failure_has_its_own_sequel() {
    let stack = Stack::shared();
    let echo = Echo::default();
    let registry = Registry::new().with(Break).with(echo.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack
        .put_in(
            json!({"kind": "break", "args": {"how": "fail", "message": "no"}, "user_id": "ann",
            "then": [{"kind": "echo", "args": {"wrong": true}}],
            "on_failure": [{"kind": "echo"}, {"kind": "echo", "queue": "nobody"}]}),
        )
        .await;
    let end = ann
        .task_until_any(|state| state["status"] == "succeeded")
        .await;
    assert_eq!(
        end["result"],
        json!({"error": {"code": "broken", "message": "no"}})
    );
    let rabbit = stack.rabbit().await;
    let letters = [rabbit.take("dead").await, rabbit.take("dead").await];
    let of = |reason: &str| {
        let mut letters = letters.iter();
        let letter = letters.find(|letter| letter.headers["x-bellhop-reason"] == reason);
        serde_json::from_slice::<Value>(&letter.unwrap().body).unwrap()
    };
    assert_eq!(of("broken")["id"], json!(id));
    assert_eq!(
        of("no_such_queue")["kind"],
        "echo",
        "a sequel that has no queue is kept"
    );
    assert_eq!(echo.0.lock().unwrap().len(), 1);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn who_asks_gets_an_answer() {
    let stack = Stack::shared();
    let registry = Registry::new().with(Count).with(Break);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let rabbit = stack.rabbit().await;
    let answers = rabbit.own_queue().await;
    for (kind, args, status) in [
        ("count", json!({"to": 5}), "succeeded"),
        ("break", json!({"how": "fail"}), "failed"),
    ] {
        let job = json!({"id": kind, "kind": kind, "args": args, "user_id": "ann"});
        let properties = BasicProperties::default()
            .with_reply_to(answers.as_str().into())
            .with_correlation_id(format!("question-{kind}").into());
        rabbit
            .publish_with("jobs", "default", job.to_string(), properties)
            .await;
        let answer = rabbit.take_named(&answers).await;
        assert_eq!(answer.correlation_id.unwrap(), format!("question-{kind}"));
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(
            (&body["task_id"], &body["status"]),
            (&json!(kind), &json!(status))
        );
    }
    worker.stop().await;
}

#[tokio::test]
async fn an_answer_that_nobody_has_room_for_does_not_hold_the_end_up() {
    let stack = Stack::shared();
    let registry = Registry::new().with(Count);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    rabbit.declare_full("full").await;
    let job = json!({"id": "asked", "kind": "count", "args": {"to": 5}, "user_id": "ann"});
    let full = format!("{}full", stack.prefix);
    let properties = BasicProperties::default().with_reply_to(full.into());
    rabbit
        .publish_with("jobs", "default", job.to_string(), properties)
        .await;
    let end = ann.task_to_end("asked").await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    worker.stop().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn a_trace_goes_from_the_producer_to_the_end() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.jobs.retry_base = bellhop_common::config::HumanDuration::from_secs(0);
    let registry = Registry::new().with(crate::tasks::Flaky::new(1));
    let worker = stack.worker(config, registry).await;
    let rabbit = stack.rabbit().await;
    let ends = rabbit.listening("events", "stored.#").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let job = json!({"id": "traced", "kind": "flaky", "user_id": "ann"});
    let headers = [("traceparent", trace.to_owned())];
    rabbit
        .publish_headed("jobs", "default", job.to_string(), &headers)
        .await;
    let end = rabbit.take(&ends).await;
    assert!(end.routing_key.ends_with(".succeeded"), "{end:?}");
    assert_eq!(end.headers["traceparent"], trace);
    worker.stop().await;
}
