//! Groups of jobs: one progress for all, and one job at the end.

mod cancel;
mod producers;

use bellhop_common::wire::{FollowUp, Group, Job};
use bellhop_notifier::StoreKind;
use bellhop_tests::client::{Client, metric_becomes};
use bellhop_tests::program::command;
use bellhop_tests::stack::{Running, Stack, http, token};
use bellhop_worker::{Outcome, Registry, Task, TaskContext};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::tasks::Count;

/// Notes its arguments.
#[derive(Clone, Default)]
struct Sum(Arc<Mutex<Vec<Value>>>);

impl Task for Sum {
    const KIND: &'static str = "sum";
    type Args = Value;

    async fn run(&self, _: TaskContext, args: Value) -> Outcome {
        self.0.lock().unwrap().push(args);
        Outcome::done(&"summed")
    }
}

/// Fails one index as long as it is broken; else gives its index.
#[derive(Clone)]
struct Fragile {
    broken: Arc<AtomicBool>,
}

#[derive(Deserialize)]
struct FragileArgs {
    breaks: u32,
}

impl Task for Fragile {
    const KIND: &'static str = "fragile";
    type Args = FragileArgs;

    async fn run(&self, ctx: TaskContext, args: FragileArgs) -> Outcome {
        let index = ctx.group.unwrap().index;
        if index == args.breaks && self.broken.load(Ordering::SeqCst) {
            return Outcome::fail("fragile", "it broke");
        }
        Outcome::done(&index)
    }
}

fn group(id: &str, size: u32) -> Group {
    Group {
        id: id.into(),
        index: 0,
        size,
        title: Some("Quarterly".into()),
        then: vec![FollowUp::new("sum", json!({"of": id}))],
        on_failure: vec![FollowUp::new("sum", json!({"failed": id}))],
    }
}

/// Puts the jobs of a group in as a foreign producer would, the last first.
async fn put_in(stack: &Stack, group: &Group, kind: &str, args: impl Fn(u32) -> Value, user: &str) {
    let rabbit = stack.rabbit().await;
    for index in (0..group.size).rev() {
        let id = format!("{}-{index}", group.id);
        let mut job = Job::new(id, kind, args(index), user);
        let group = group.clone();
        job.group = Some(Box::new(Group { index, ..group }));
        let body = serde_json::to_vec(&job).unwrap();
        rabbit.publish("jobs", "default", body).await;
    }
}

async fn standing(notifier: &Running, id: &str) -> Value {
    let request = http().get(notifier.url(&format!("/api/tasks/{id}")));
    let answer = request.bearer_auth(token("ann")).send().await.unwrap();
    answer.json().await.unwrap()
}

/// The next states until a group has ended and what follows it, too, in whichever order that is told.
async fn until_all_is_over(client: &mut Client) -> Vec<Value> {
    let (mut seen, mut over) = (Vec::new(), 0);
    while over < 2 {
        let state = client.next_of("task.updated").await["data"].take();
        let status = state["status"].as_str().unwrap();
        let ended = ["succeeded", "failed", "cancelled"].contains(&status);
        over += u32::from(ended && ["group", "sum"].contains(&state["kind"].as_str().unwrap()));
        seen.push(state);
    }
    seen
}

/// The states of one task, of which each is newer than the last. `queued` is said by the producer, and
/// may be late.
fn of_task<'a>(states: &'a [Value], id: &str) -> Vec<&'a Value> {
    let of_task = states.iter().filter(|state| state["task_id"] == id);
    let mut states: Vec<_> = of_task.collect();
    if let Some(late) = states
        .iter()
        .skip(1)
        .position(|it| it["status"] == "queued")
    {
        states.remove(late + 1);
    }
    let rev = |state: &Value| state["rev"].as_u64().unwrap();
    assert!(
        states.is_sorted_by(|one, next| rev(one) < rev(next)),
        "{states:?}"
    );
    states
}

#[tokio::test]
async fn fifty_jobs_are_one_bar_and_one_job_at_the_end() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let registry = Registry::new().with(Count).with(sum.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let to = |index| json!({"to": index + 1});
    put_in(&stack, &group("g", 50), "count", to, "ann").await;

    let seen = until_all_is_over(&mut ann).await;
    let states = of_task(&seen, "g");
    let done = |state: &Value| state["progress"]["done"].as_u64().unwrap();
    assert!(states.is_sorted_by_key(|state| done(state)), "{states:?}");
    let (end, on_the_way) = states.split_last().unwrap();
    assert!(!on_the_way.is_empty(), "some of it is seen on the way");
    for state in on_the_way {
        assert_eq!(state["status"], "running");
        assert_eq!(state["kind"], "group");
        assert_eq!(state["title"], "Quarterly");
        assert_eq!(state["progress"]["unit"], "jobs");
        assert_eq!(state["progress"]["total"], 50);
    }
    let results: Vec<_> = (1..=50).collect();
    let result = json!({"size": 50, "succeeded": 50, "results": results});
    assert_eq!((&end["status"], done(end)), (&json!("succeeded"), 50));
    assert_eq!(end["result"], result);
    assert_eq!(&&standing(&notifier, "g").await, end);

    // Which job of the group each was.
    let counts = seen.iter().filter(|state| state["kind"] == "count");
    let ends = counts.filter(|state| state["status"] == "succeeded");
    let index = |end: &Value| end["group"]["index"].as_u64().unwrap();
    let mut ends: Vec<_> = ends.map(index).collect();
    ends.sort_unstable();
    assert_eq!(ends, (0..50).collect::<Vec<_>>());
    let wants = json!({"of": "g", "result": result});
    assert_eq!(*sum.0.lock().unwrap(), [wants]);
    let ended = r#"bellhop_notifier_groups_total{outcome="succeeded"}"#;
    metric_becomes(&notifier, ended, 1).await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_group_that_failed_succeeds_after_a_replay() {
    let stack = Stack::shared();
    let (sum, broken) = (Sum::default(), Arc::new(AtomicBool::new(true)));
    let fragile = Fragile {
        broken: Arc::clone(&broken),
    };
    let registry = Registry::new().with(fragile).with(sum.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let third = |_| json!({"breaks": 3});
    put_in(&stack, &group("g", 5), "fragile", third, "ann").await;
    let seen = until_all_is_over(&mut ann).await;
    let end = *of_task(&seen, "g").last().unwrap();
    let error = json!({"code": "group_failed", "message": "1 of 5 jobs failed: g-3"});
    assert_eq!((&end["status"], &end["error"]), (&json!("failed"), &error));
    assert_eq!(end["progress"]["message"], "1 failed");
    let failed = json!({"failed": "g", "error": error});
    assert_eq!(*sum.0.lock().unwrap(), std::slice::from_ref(&failed));

    broken.store(false, Ordering::SeqCst);
    let mut replay = command("worker", &stack);
    let output = replay.args(["dead", "replay", "g-3"]).output().await;
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let seen = until_all_is_over(&mut ann).await;
    let end = *of_task(&seen, "g").last().unwrap();
    let result = json!({"size": 5, "succeeded": 5, "results": [0, 1, 2, 3, 4]});
    assert_eq!(
        (&end["status"], &end["result"]),
        (&json!("succeeded"), &result)
    );
    assert_eq!(standing(&notifier, "g").await, *end);
    let succeeded = json!({"of": "g", "result": result});
    assert_eq!(*sum.0.lock().unwrap(), [failed, succeeded]);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_end_that_is_told_again_changes_nothing() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let registry = Registry::new().with(Count).with(sum.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let told = rabbit.listening("events", "stored.user.#").await;
    // The next end of a task: its body, its event's id, and the header that came with it.
    let next_of = async |kind: &str| loop {
        let taken = rabbit.take(&told).await;
        let event: Value = serde_json::from_slice(&taken.body).unwrap();
        if event["data"]["kind"] == kind {
            let header = taken.headers.get("x-bellhop-group").cloned();
            return (taken.body, event["id"].clone(), header);
        }
    };
    let to = |index| json!({"to": index + 1});
    put_in(&stack, &group("g", 2), "count", to, "ann").await;
    until_all_is_over(&mut ann).await;
    let (end, _, header) = next_of("count").await;
    let header = header.unwrap();
    assert!(header.contains("\"then\""), "{header}");
    let (_, first, none) = next_of("group").await;
    assert_eq!(none, None, "a group is in no group");

    // As after a crash between the store and the broker.
    let key = "stored.user.ann.task.status_changed.succeeded";
    let headers = [("x-bellhop-group", header)];
    rabbit.publish_headed("events", key, end, &headers).await;
    let (_, second, _) = next_of("group").await;
    assert_eq!(first, second);
    // What followed again is in the queue before this.
    put_in(&stack, &group("h", 1), "count", to, "ann").await;
    let seen = until_all_is_over(&mut ann).await;
    assert!(of_task(&seen, "g").is_empty(), "{seen:?}");
    let runs = sum.0.lock().unwrap().clone();
    let of: Vec<_> = runs.iter().map(|args| &args["of"]).collect();
    assert_eq!(of, ["g", "h"]);
    worker.stop().await;
    notifier.stop().await;
}

/// The end of a job as a worker that is not ours tells it.
fn end(index: u32, size: u32) -> Vec<u8> {
    let data = json!({"task_id": format!("big-{index}"), "kind": "foreign", "user_id": "ann",
        "status": "succeeded", "attempt": 1, "max_attempts": 1, "rev": 7, "result": index,
        "group": {"id": "big", "index": index, "size": size}, "timestamp": Timestamp::now()});
    let event = json!({"type": "task.status_changed", "id": Uuid::now_v7(),
        "time": Timestamp::now(), "data": data});
    event.to_string().into_bytes()
}

#[tokio::test]
async fn a_group_as_large_as_may_be_is_counted_by_either_store() {
    const SIZE: u32 = 10_000;
    for kind in [StoreKind::Sqlite, StoreKind::Redis] {
        let stack = Stack::shared();
        let config = match kind {
            StoreKind::Redis => stack.shared_config(),
            _ => stack.notifier_config(),
        };
        let notifier = stack.notifier(config).await;
        let rabbit = stack.rabbit().await;
        let ends = (0..SIZE).map(|index| end(index, SIZE)).collect();
        let began = Instant::now();
        let key = "stored.user.ann.task.status_changed.succeeded";
        rabbit.publish_all("events", key, ends).await;
        let counted = async {
            loop {
                let state = standing(&notifier, "big").await;
                if state["status"] == "succeeded" {
                    return state;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let state = timeout(Duration::from_mins(1), counted).await.unwrap();
        let (took, result) = (began.elapsed(), &state["result"]);
        let results: Vec<_> = (0..SIZE).collect();
        assert_eq!(result["results"], json!(results));
        println!("{kind:?}: {SIZE} ends counted in {took:.1?}");
        notifier.stop().await;
    }
}
