//! Jobs that run longer than RabbitMQ waits for an acknowledgement, and jobs that kill.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::program::Program;
use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::Registry;
use serde_json::json;

use crate::tasks::Gated;

/// A broker that loses its patience after eight seconds, and looks each second.
async fn impatient() -> OwnBroker {
    let broker = OwnBroker::started().await;
    for setting in ["consumer_timeout, 8000", "channel_tick_interval, 1000"] {
        let set = format!("application:set_env(rabbit, {setting}).");
        broker.ctl(&["eval", &set]).await;
    }
    broker
}

#[tokio::test]
async fn own_broker_whose_patience_ends_before_the_job() {
    let broker = impatient().await;
    let stack = Stack::on(broker.url());
    let gated = Gated::new();
    let registry = || Registry::new().with(gated.clone());
    let mut config = stack.worker_config();
    config.jobs.ack_timeout = HumanDuration::from_secs(8);
    // The copy waits in a ladder that is made first: eight rungs for this, eleven for the default.
    config.jobs.timeout = HumanDuration::from_secs(60);
    // Two workers: what the broker took back would run a second time.
    let workers = [
        stack.worker(config.clone(), registry()).await,
        stack.worker(config, registry()).await,
    ];
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let ids = [
        stack.enqueue("gated", no_args(), "ann").await,
        stack.enqueue("gated", no_args(), "ann").await,
    ];
    for id in &ids {
        ann.task_until(id, |state| state["progress"]["percent"] == 50.0)
            .await;
    }
    // Twice its patience.
    tokio::time::sleep(Duration::from_secs(17)).await;
    assert_eq!(gated.times_begun(), 2);
    for worker in &workers {
        assert!(worker.is_ready().await, "its channel still stands");
    }
    for _ in &ids {
        gated.open();
    }
    for _ in &ids {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    for worker in workers {
        worker.stop().await;
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_renewed_job_survives_its_worker_and_does_not_run_again_after_its_end() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let mut config = stack.worker_config();
    config.jobs.ack_timeout = HumanDuration(Duration::from_millis(500));
    let worker = stack
        .worker(config, Registry::new().with(gated.clone()))
        .await;
    let rabbit = stack.rabbit().await;
    let ends = rabbit.listening("events", "stored.#").await;
    let job = json!({"id": "long", "kind": "gated", "user_id": "ann", "timeout_s": 600});
    rabbit.publish("jobs", "default", job.to_string()).await;
    // 600 s and the margin: nine rungs.
    let copy = rabbit.take("delay.09").await;
    assert_eq!(copy.headers["x-bellhop-hop"], "1");
    assert_eq!(copy.headers["x-bellhop-attempt"], "1");
    gated.open();
    let end = rabbit.take(&ends).await;
    assert!(end.routing_key.ends_with(".succeeded"), "{end:?}");
    worker.stop().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);

    // The copy arrives when its time has come.
    let headers: Vec<_> = copy
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-bellhop") && *name != "x-bellhop-due")
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    rabbit
        .publish_headed("jobs", "default", &copy.body, &headers)
        .await;
    rabbit.fetched("jobs.default").await;
    worker.stop().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    assert_eq!(gated.times_begun(), 1);
}

#[tokio::test]
async fn a_job_that_kills_its_worker_dies_alone() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // It kills whoever runs it; its neighbour takes longer than that.
    let settings = [
        r#"exec.poison.command=["/bin/sh", "-c", "kill -9 $PPID; sleep 5"]"#,
        r#"exec.neighbour.command=["/bin/sh", "-c", "sleep 1; echo 1"]"#,
        "jobs.max_redeliveries=2",
        "queues.default.concurrency=8",
    ];
    let mut worker = Program::start("worker", &stack, &settings).await;
    let poison = stack.enqueue("poison", no_args(), "ann").await;
    let mut neighbours = Vec::new();
    for _ in 0..3 {
        neighbours.push(stack.enqueue("neighbour", no_args(), "ann").await);
    }
    let mut lives = 1;
    let mut ends = std::collections::BTreeMap::new();
    while ends.len() < 4 {
        tokio::select! {
            _ = worker.ended() => {
                lives += 1;
                worker = Program::start_unready("worker", &stack, &settings);
            }
            end = ann.task_until_any(|state| {
                ["succeeded", "failed"].contains(&state["status"].as_str().unwrap())
            }) => {
                ends.insert(end["task_id"].as_str().unwrap().to_owned(), end);
            }
        }
    }
    assert_eq!(ends[&poison]["error"]["code"], "worker_lost");
    for neighbour in &neighbours {
        assert_eq!(ends[neighbour]["status"], "succeeded");
    }
    assert_eq!(lives, 7, "twice among others, four times alone");
    let rabbit = stack.rabbit().await;
    let letter = rabbit.take("dead").await;
    assert_eq!(letter.headers["x-bellhop-reason"], "worker_lost");
    assert_eq!(letter.headers["x-bellhop-queue"], "default");
    drop(worker);
    notifier.stop().await;
}
