//! Jobs that a worker hands back because it must stop.

use std::time::Duration;

use bellhop_common::amqp::{Consumer, Names, Source, Subscription, Topology};
use bellhop_common::config::HumanDuration;
use bellhop_common::telemetry::Component;
use bellhop_tests::stack::{PATIENCE, Stack, no_args};
use bellhop_worker::Registry;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::tasks::Gated;

#[tokio::test]
async fn a_job_that_is_handed_back_often_is_as_good_as_new() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let mut config = stack.worker_config();
    config.shutdown.deadline = HumanDuration(Duration::ZERO);
    // The first that counted as the death of its worker would send it to the quarantine.
    config.jobs.max_redeliveries = 1;
    config.jobs.max_attempts = 1;
    let registry = || Registry::new().with(gated.clone());
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // Declares the queue.
    stack.worker(config.clone(), registry()).await.stop().await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    let rabbit = stack.rabbit().await;
    for times in 1..=12 {
        let worker = stack.worker(config.clone(), registry()).await;
        let state = ann
            .task_until(&id, |state| state["progress"]["percent"] == 50.0)
            .await;
        assert_eq!(state["attempt"], 1);
        worker.stop().await;
        assert_eq!(gated.times_begun(), times);
        rabbit.settles_at("jobs.default", 1).await;
        assert_eq!(rabbit.ready("quarantine.default").await, 0);
    }
    let message = rabbit.take("jobs.default").await;
    assert_eq!(message.headers["x-bellhop-hop"], "12");
    assert_eq!(message.headers["x-bellhop-attempt"], "1");
    let losses = message.headers.get("x-delivery-count");
    assert!(
        losses.is_none_or(|count| count.contains("(0)")),
        "{losses:?}"
    );

    // It runs to its end like any other.
    let headers: Vec<_> = message
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-bellhop"))
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    rabbit
        .publish_headed("jobs", "default", &message.body, &headers)
        .await;
    let worker = stack.worker(config, registry()).await;
    gated.open();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_has_not_begun_goes_to_another_worker_while_the_rest_ends() {
    let stack = Stack::shared();
    let (here, there) = (Gated::new(), Gated::new());
    let mut config = stack.worker_config();
    config.jobs.concurrency = Some(1);
    // Longer than the test has patience.
    config.shutdown.deadline = HumanDuration::from_secs(120);
    let stopping = stack
        .worker(config, Registry::new().with(here.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let first = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&first, |state| state["progress"]["percent"] == 50.0)
        .await;
    let second = stack.enqueue("gated", no_args(), "ann").await;
    let rabbit = stack.rabbit().await;
    rabbit.fetched("jobs.default").await;
    stopping.begin_stop();
    let registry = Registry::new().with(there.clone());
    let other = stack.worker(stack.worker_config(), registry).await;
    there.open();
    let end = ann.task_to_end(&second).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["attempt"]),
        (&json!("succeeded"), &json!(1))
    );
    here.open();
    ann.task_to_end(&first).await;
    stopping.stop().await;
    other.stop().await;
    assert_eq!((here.times_begun(), there.times_begun()), (1, 1));
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn what_a_service_no_longer_takes_goes_to_others_while_it_is_still_connected() {
    let stack = Stack::shared();
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, "default");
    let (sender, mut deliveries) = mpsc::channel(1);
    let source = Source::Queue(names.job_queue("default"));
    let subscription = vec![Subscription::new(source, 10, sender)];
    let health = Component::default();
    let consumer = Consumer::start(&config, "test", topology, subscription, health.clone());
    let connected = async {
        while !health.is_up() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, connected).await.unwrap();
    let rabbit = stack.rabbit().await;
    for n in 0..8 {
        rabbit.publish("jobs", "default", n.to_string()).await;
    }
    let kept = deliveries.recv().await.unwrap();
    rabbit.fetched("jobs.default").await;
    deliveries.close();
    while let Some(left) = deliveries.recv().await {
        left.receipt.requeue().await.unwrap();
    }
    rabbit.settles_at("jobs.default", 7).await;
    // What is in hand can still be settled.
    kept.receipt.ack().await.unwrap();
    consumer.close().await;
    rabbit.settles_at("jobs.default", 7).await;
}
