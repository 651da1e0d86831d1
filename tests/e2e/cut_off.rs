//! Workers that the network cuts off from the broker while others go on.

use std::time::Duration;

use bellhop_common::config::{AmqpUrl, HumanDuration};
use bellhop_common::wire::header;
use bellhop_tests::relay::Relay;
use bellhop_tests::stack::Stack;
use bellhop_worker::{Outcome, QueueConfig, Registry, Task, TaskContext, WorkerConfig};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::tasks::{Count, Gated};

/// The configuration of a worker whose way to the broker the test holds.
async fn relayed(stack: &Stack) -> (Relay, WorkerConfig) {
    let relay = Relay::steered(&stack.url).await;
    let mut config = stack.worker_config();
    config.amqp.url = AmqpUrl::new(relay.url(&stack.url));
    (relay, config)
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
