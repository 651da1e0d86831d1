//! Ending a group on request.

use bellhop_common::wire::{FollowUp, Group, Job};
use bellhop_tests::client::Client;
use bellhop_tests::program::command;
use bellhop_tests::stack::{Running, Stack, http, token};
use bellhop_worker::Registry;
use serde_json::{Value, json};

use super::{Sum, of_task};
use crate::tasks::Gated;

async fn delete(notifier: &Running, id: &str, user: &str) -> u16 {
    let request = http().delete(notifier.url(&format!("/api/tasks/{id}")));
    let answer = request.bearer_auth(token(user)).send().await.unwrap();
    answer.status().as_u16()
}

/// A worker with room for two jobs at once, and a group of six: one is scheduled, and the others run or wait.
async fn six(stack: &Stack, gated: &Gated, sum: &Sum) -> Running {
    let mut config = stack.worker_config();
    config.queues.get_mut("default").unwrap().concurrency = 2;
    let registry = Registry::new().with(gated.clone()).with(sum.clone());
    let worker = stack.worker(config, registry).await;
    let rabbit = stack.rabbit().await;
    for index in 0..6 {
        let mut job = Job::new(format!("g-{index}"), "gated", json!({}), "ann");
        job.delay_s = (index == 0).then_some(4);
        job.group = Some(Box::new(Group {
            index,
            size: 6,
            then: vec![FollowUp::new("sum", json!({}))],
            on_failure: vec![FollowUp::new("sum", json!({}))],
            ..Group::new("g")
        }));
        let body = serde_json::to_vec(&job).unwrap();
        rabbit.publish("jobs", "default", body).await;
    }
    worker
}

/// The states up to the group's end.
async fn to_the_end(ann: &mut Client) -> Vec<Value> {
    let mut seen = Vec::new();
    loop {
        let state = ann.next_of("task.updated").await["data"].take();
        let is_last = state["task_id"] == "g" && state["status"] != "running";
        seen.push(state);
        if is_last {
            return seen;
        }
    }
}

fn with<'a>(seen: &'a [Value], status: &str) -> Vec<&'a str> {
    let ended = seen.iter().filter(|state| state["status"] == status);
    let ids = ended.map(|state| state["task_id"].as_str().unwrap());
    ids.collect()
}

#[tokio::test]
async fn its_owner_ends_what_runs_waits_and_is_scheduled() {
    let stack = Stack::shared();
    let (gated, sum) = (Gated::new(), Sum::default());
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let worker = six(&stack, &gated, &sum).await;
    ann.task_until_any(|state| state["status"] == "scheduled")
        .await;
    // One is through, and two others run.
    gated.open();
    ann.task_until_any(|state| state["status"] == "succeeded")
        .await;
    ann.task_until_any(|state| state["task_id"] == "g").await;
    // A stranger's order comes before, and does nothing.
    assert_eq!(delete(&notifier, "g", "bob").await, 202);
    assert_eq!(delete(&notifier, "g", "ann").await, 202);
    let seen = to_the_end(&mut ann).await;
    let end = *of_task(&seen, "g").last().unwrap();
    assert_eq!(end["status"], "cancelled");
    assert_eq!(end["progress"]["message"], "5 cancelled");
    assert_eq!(
        (&end["result"], &end["error"]),
        (&json!(null), &json!(null))
    );
    let mut cancelled = with(&seen, "cancelled");
    cancelled.sort_unstable();
    cancelled.dedup();
    // The group, and five of its jobs.
    assert_eq!(cancelled.len(), 6, "{cancelled:?}");
    assert!(with(&seen, "failed").is_empty());
    assert!(sum.0.lock().unwrap().is_empty(), "nothing follows");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn the_command_line_ends_it_too() {
    let stack = Stack::shared();
    let (gated, sum) = (Gated::new(), Sum::default());
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let worker = six(&stack, &gated, &sum).await;
    ann.task_until_any(|state| state["status"] == "running")
        .await;
    let mut cancel = command("worker", &stack);
    let output = cancel.args(["cancel", "g"]).output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = to_the_end(&mut ann).await;
    assert_eq!(seen.last().unwrap()["progress"]["message"], "6 cancelled");
    worker.stop().await;
    notifier.stop().await;
}
