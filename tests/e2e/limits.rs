//! How many at once, how often, and who first.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::{KindConfig, Outcome, QueueConfig, Registry, Task, TaskContext};
use serde::Deserialize;
use serde_json::json;

use crate::tasks::Gated;

/// Notes who ran when, and takes a moment.
#[derive(Clone, Default)]
struct Note {
    seen: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Note {
    fn names(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(name, _)| name.clone()).collect()
    }
}

#[derive(Deserialize)]
struct NoteArgs {
    name: String,
}

impl Task for Note {
    const KIND: &'static str = "note";
    type Args = NoteArgs;

    async fn run(&self, _: TaskContext, args: NoteArgs) -> Outcome {
        self.seen.lock().unwrap().push((args.name, Instant::now()));
        Outcome::done(&())
    }
}

#[tokio::test]
async fn a_kind_has_a_limit_of_its_own_and_holds_no_other_up() {
    let stack = Stack::shared();
    let (gated, note) = (Gated::new(), Note::default());
    let mut config = stack.worker_config();
    let one = KindConfig {
        concurrency: Some(1),
        ..KindConfig::default()
    };
    config.kinds = [("gated".to_owned(), one)].into();
    let registry = Registry::new().with(gated.clone()).with(note.clone());
    let worker = stack.worker(config, registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // More than the queue runs at once.
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(stack.enqueue("gated", no_args(), "ann").await);
    }
    let other = stack.enqueue("note", json!({"name": "other"}), "ann").await;
    let end = ann.task_to_end(&other).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert_eq!(gated.times_begun(), 1);
    for _ in &ids {
        gated.open();
    }
    for _ in &ids {
        let end = ann
            .task_until_any(|state| state["status"] == "succeeded")
            .await;
        assert_eq!(end["attempt"], 1, "to be put off is no attempt");
    }
    assert_eq!(gated.times_begun(), ids.len());
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_kind_begins_no_more_often_than_it_may() {
    let stack = Stack::shared();
    let note = Note::default();
    let mut config = stack.worker_config();
    let rate = KindConfig {
        rate: Some("2/s".parse().unwrap()),
        ..KindConfig::default()
    };
    config.kinds = [("note".to_owned(), rate)].into();
    let worker = stack
        .worker(config, Registry::new().with(note.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    for _ in 0..6 {
        stack.enqueue("note", json!({"name": "n"}), "ann").await;
    }
    for _ in 0..6 {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    let seen = note.seen.lock().unwrap().clone();
    // Two at once, and then one each half second.
    let took = seen.last().unwrap().1 - seen.first().unwrap().1;
    assert!(took >= Duration::from_millis(1950), "{took:?}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_urgent_queue_goes_before_what_was_fetched_already() {
    let stack = Stack::shared();
    let (gated, note) = (Gated::new(), Note::default());
    let mut config = stack.worker_config();
    config.jobs.concurrency = Some(1);
    let queue = |priority| QueueConfig {
        concurrency: 10,
        priority,
        ..QueueConfig::default()
    };
    config.queues = [
        ("default".to_owned(), queue(0)),
        ("urgent".to_owned(), queue(10)),
    ]
    .into();
    let registry = Registry::new().with(gated.clone()).with(note.clone());
    let worker = stack.worker(config, registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let blocker = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&blocker, |state| state["status"] == "running")
        .await;
    let rabbit = stack.rabbit().await;
    for queue in ["default", "urgent"] {
        for n in 0..3 {
            let job = json!({"id": format!("{queue}-{n}"), "kind": "note", "user_id": "ann",
                "args": {"name": queue}});
            rabbit.publish("jobs", queue, job.to_string()).await;
        }
        // All of them are with the worker before the place gets free.
        rabbit.fetched(&format!("jobs.{queue}")).await;
    }
    gated.open();
    for _ in 0..7 {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    assert_eq!(
        note.names(),
        [
            "urgent", "urgent", "urgent", "default", "default", "default"
        ]
    );
    worker.stop().await;
    notifier.stop().await;
}
