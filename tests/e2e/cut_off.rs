//! Workers that the network cuts off from the broker while others go on.

use std::time::Duration;

use bellhop_common::amqp::{Claim, Claimed, Names, Publisher, Topology};
use bellhop_common::config::{AmqpUrl, HumanDuration};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{NAMESPACE, header};
use bellhop_tests::relay::Relay;
use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::{Outcome, QueueConfig, Registry, Task, TaskContext, WorkerConfig};
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use crate::tasks::{Count, Gated};

/// The configuration of a worker whose way to the broker the test holds.
async fn relayed(stack: &Stack) -> (Relay, WorkerConfig) {
    let relay = Relay::steered(&stack.url).await;
    let mut config = stack.worker_config();
    config.amqp.url = AmqpUrl::new(relay.url(&stack.url));
    (relay, config)
}

fn concurrency(config: &mut WorkerConfig, of_queue: u16) {
    let queue = QueueConfig {
        concurrency: of_queue,
        ..QueueConfig::default()
    };
    config.queues = [("default".to_owned(), queue)].into();
}

#[tokio::test]
async fn what_waited_for_a_place_is_not_run_when_another_worker_has_it() {
    let stack = Stack::shared();
    let (relay, mut config) = relayed(&stack).await;
    concurrency(&mut config, 3);
    config.jobs.concurrency = Some(1);
    let (here, there) = (Gated::new(), Gated::new());
    let cut_off = stack
        .worker(config, Registry::new().with(here.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let first = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&first, |state| state["progress"]["percent"] == 50.0)
        .await;
    let second = stack.enqueue("gated", no_args(), "ann").await;
    rabbit.fetched("jobs.default").await;
    relay.cut();
    cut_off.wait_ready(false).await;
    let mut config = stack.worker_config();
    concurrency(&mut config, 2);
    let other = stack
        .worker(config, Registry::new().with(there.clone()))
        .await;
    ann.task_until(&second, |state| state["progress"]["percent"] == 50.0)
        .await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    relay.open();
    cut_off.wait_ready(true).await;
    here.gate.add_permits(10);
    assert_eq!(
        ann.task_to_end(&first).await.pop().unwrap()["status"],
        "succeeded"
    );
    // The other worker has no room, and here it comes after the second.
    let third = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_to_end(&third).await;
    assert_eq!(here.times_begun(), 2, "the first and the third");
    there.gate.add_permits(10);
    ann.task_to_end(&second).await;
    for worker in [cut_off, other] {
        worker.stop().await;
    }
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn a_run_whose_message_was_elsewhere_and_is_back_does_not_end_again_what_has_ended() {
    let stack = Stack::shared();
    let (relay, config) = relayed(&stack).await;
    let gated = Gated::new();
    let registry = Registry::new().with(gated.clone());
    let worker = stack.worker(config, registry).await;
    let rabbit = stack.rabbit().await;
    let running = rabbit.listening("events", "live.user.ann.#").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    rabbit.take(&running).await;
    relay.cut();
    worker.wait_ready(false).await;
    // Another worker ends it, and dies before it has acknowledged the message.
    rabbit.filled("jobs.default").await;
    let lost = stack.rabbit().await;
    lost.take_and_keep("jobs.default").await;
    rabbit
        .declare("ends", "classic", "events", "stored.#")
        .await;
    let settlement = Uuid::new_v5(&NAMESPACE, format!("{id}//0").as_bytes());
    let event = json!({"type": "task.status_changed", "id": Uuid::now_v7(),
        "time": "2026-01-15T10:30:00Z", "data": {"task_id": id, "status": "succeeded"}});
    let headers = [(header::SETTLED, settlement.to_string())];
    let key = "stored.user.ann.task.status_changed.succeeded";
    lost.publish_headed("events", key, event.to_string(), &headers)
        .await;
    lost.close().await;
    relay.open();
    worker.wait_ready(true).await;
    rabbit.fetched("jobs.default").await;
    gated.open();
    worker.stop().await;
    assert_eq!(gated.times_begun(), 1);
    assert_eq!(rabbit.ready("ends").await, 1, "no second end");
    assert_eq!(rabbit.ready("jobs.default").await, 0);
}

#[tokio::test]
async fn a_job_that_has_its_unique_key_is_not_asked_again_when_the_window_is_over() {
    let stack = Stack::shared();
    let (relay, config) = relayed(&stack).await;
    let (here, there) = (Gated::new(), Gated::new());
    let cut_off = stack
        .worker(config, Registry::new().with(here.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let job = json!({"kind": "gated", "user_id": "ann", "unique_key": "key", "unique_for_s": 2});
    let id = stack.put_in(job).await;
    ann.task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    relay.cut();
    cut_off.wait_ready(false).await;
    // The window ends, and the next job has the key.
    let config = stack.worker_config();
    let names = Names::new(&config.amqp);
    let (topology, health) = (Topology::base(&names), Component::default());
    let (publisher, task) = Publisher::start(&config.amqp, "test", topology, health);
    let claim = Claim {
        queue: &names.unique("gated", "ann", "key"),
        holder: "next",
        mark: "",
        window: Duration::from_hours(1),
    };
    while publisher.claim(&claim).await.unwrap() != Claimed::Mine {
        sleep(Duration::from_millis(50)).await;
    }
    task.close().await;
    there.open();
    let other = stack
        .worker(config, Registry::new().with(there.clone()))
        .await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded", "{end}");
    relay.open();
    cut_off.wait_ready(true).await;
    here.open();
    for worker in [cut_off, other] {
        worker.stop().await;
    }
    notifier.stop().await;
}

/// Waits for its gate without a word.
#[derive(Clone)]
struct Silent(Gated);

impl Task for Silent {
    const KIND: &'static str = "silent";
    type Args = Value;

    async fn run(&self, _: TaskContext, _: Value) -> Outcome {
        self.0.gate.acquire().await.unwrap().forget();
        Outcome::done(&())
    }
}

#[tokio::test]
async fn a_follow_up_whose_confirm_stays_away_says_the_second_time_that_it_may_be_one() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.queues = [("later".to_owned(), QueueConfig::default())].into();
    // Declares the queue.
    stack.worker(config, Registry::new()).await.stop().await;
    let (relay, mut config) = relayed(&stack).await;
    config.amqp.publish_timeout = HumanDuration::from_secs(1);
    let silent = Silent(Gated::new());
    let registry = Registry::new().with(silent.clone()).with(Count);
    let worker = stack.worker(config, registry).await;
    let rabbit = stack.rabbit().await;
    let running = rabbit.listening("events", "live.user.ann.#").await;
    let next = json!({"kind": "count", "args": {"to": 1}, "queue": "later"});
    stack
        .put_in(json!({"kind": "silent", "user_id": "ann", "then": [next]}))
        .await;
    rabbit.take(&running).await;
    relay.deafen();
    silent.0.open();
    rabbit.filled("jobs.later").await;
    // Only time ends the wait for a confirm.
    sleep(Duration::from_millis(1500)).await;
    relay.open();
    rabbit.holds("jobs.later", 2).await;
    worker.stop().await;
    let (first, second) = (
        rabbit.take("jobs.later").await,
        rabbit.take("jobs.later").await,
    );
    let origin = |taken: &bellhop_tests::rabbit::Taken| taken.headers[header::ORIGIN].clone();
    assert_eq!(origin(&first), origin(&second));
    assert!(!first.headers.contains_key(header::ONCE));
    assert_eq!(second.headers[header::ONCE], "1");
}
