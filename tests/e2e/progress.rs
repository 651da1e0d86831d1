//! How fast, how long still, in which step, and what the task logs.

use std::time::Duration;

use bellhop_common::wire::Progress;
use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::{Outcome, Registry, Task, TaskContext};
use serde_json::Value;
use tokio::time::sleep;

use crate::tasks::NoArgs;

/// Copies for a second and a half, in the first of two steps, and then hangs.
struct Stalls;

impl Task for Stalls {
    const KIND: &'static str = "stalls";
    type Args = NoArgs;

    async fn run(&self, ctx: TaskContext, _: NoArgs) -> Outcome {
        let copy = ctx.step("Copy", 1, 2).step("Part", 1, 1);
        for n in 0..=15 {
            copy.progress(Progress::of(n * 1000, 30_000, "bytes"));
            sleep(Duration::from_millis(100)).await;
        }
        ctx.cancelled().cancelled().await;
        Outcome::Cancelled
    }
}

/// Says more than anybody can read, and ends at once.
struct Chatty;

impl Task for Chatty {
    const KIND: &'static str = "chatty";
    type Args = NoArgs;

    async fn run(&self, ctx: TaskContext, _: NoArgs) -> Outcome {
        for n in 1..=1000 {
            ctx.log(format!("line {n}"));
        }
        Outcome::done(&())
    }
}

#[tokio::test]
async fn a_nested_step_has_rate_and_time_left_and_a_stall_is_seen() {
    let stack = Stack::shared();
    let registry = Registry::new().with(Stalls);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("stalls", no_args(), "ann").await;
    let part = |state: &Value| state["progress"]["step"]["step"].clone();
    let full = ann
        .task_until(&id, |state| part(state)["done"] == 15_000)
        .await;
    assert_eq!(full["progress"]["step"]["name"], "Copy");
    assert_eq!(
        full["progress"]["percent"], 25.0,
        "half of the first of two"
    );
    assert!(full["progress"]["remaining_s"].is_null(), "a step follows");
    let rate = part(&full)["rate"].as_f64().unwrap();
    assert!(rate > 2000.0 && rate < 11_000.0, "{rate}");
    assert!(part(&full)["remaining_s"].as_u64().unwrap() >= 1);
    // The task says nothing more, and its owner sees that all the same.
    let slower = |state: &Value| part(state)["rate"].as_f64().unwrap() < rate * 0.9;
    ann.task_until(&id, slower).await;
    worker.begin_stop();
    drop(worker);
    notifier.stop().await;
}

#[tokio::test]
async fn the_last_log_lines_come_before_the_end_and_those_left_out_are_counted() {
    let stack = Stack::shared();
    let registry = Registry::new().with(Chatty);
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    let id = stack.enqueue("chatty", no_args(), "ann").await;
    let (mut lines, mut dropped) = (Vec::new(), 0);
    loop {
        let frame = ann.next().await;
        let data = &frame["data"];
        if frame["type"] == "task.log" {
            assert_eq!(data["task_id"], id.as_str());
            dropped += data["dropped"].as_u64().unwrap_or(0);
            lines.extend(data["lines"].as_array().unwrap().clone());
        } else if data["status"] == "succeeded" {
            break;
        }
    }
    assert_eq!(lines.last().unwrap()["text"], "line 1000");
    assert_eq!(lines.len() as u64 + dropped, 1000);
    assert!(dropped > 0);
    assert!(bob.is_silent(Duration::from_millis(300)).await);
    worker.stop().await;
    notifier.stop().await;
}
