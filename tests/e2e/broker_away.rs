//! RabbitMQ goes away and comes back. Every test has a broker of its own to stop and kill.

use std::time::Duration;

use bellhop_common::amqp::{Message, Names, PublishError, Publisher, Route, Topology};
use bellhop_common::config::HumanDuration;
use bellhop_common::telemetry::Component;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{PATIENCE, Stack, no_args};
use bellhop_worker::Registry;
use tokio::time::timeout;

use crate::tasks::Gated;

#[tokio::test]
async fn own_broker_restarted_in_the_middle_of_a_job() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let gated = Gated::new();
    let registry = Registry::new().with(gated.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;

    // Stopped in order, and the job ends while the broker is away.
    let id = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    broker.stop().await;
    worker.wait_ready(false).await;
    gated.open();
    broker.start().await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");

    // Killed while the job runs; it runs on, and ends after the broker is back. Not before the
    // stop: RabbitMQ 3.10 can lose its note of a quorum queue that is killed within a second of
    // being declared, and then never answers a consumer of it again.
    worker.wait_ready(true).await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    ann.task_until(&id, |state| state["progress"]["percent"] == 50.0)
        .await;
    broker.kill().await;
    worker.wait_ready(false).await;
    notifier.wait_ready(false).await;
    broker.start().await;
    worker.wait_ready(true).await;
    notifier.wait_ready(true).await;
    gated.open();
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");

    worker.wait_ready(true).await;
    assert_eq!(gated.times_begun(), 2, "each job ran once");
    // Both were acknowledged: nothing returns when the worker lets go.
    worker.stop().await;
    let rabbit = stack.rabbit().await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_that_starts_after_the_services() {
    let broker = OwnBroker::prepare();
    let stack = Stack::on(broker.url());
    let gated = Gated::new();
    gated.open();
    let registry = Registry::new().with(gated.clone());
    let worker = stack.start_worker(stack.worker_config(), registry).await;
    let mut config = stack.notifier_config();
    // Otherwise nobody is let in before it is known who was revoked.
    config.auth.revocations_wait = HumanDuration(Duration::ZERO);
    let notifier = stack.start_notifier(config).await;
    assert!(!worker.is_ready().await && !notifier.is_ready().await);
    let mut ann = stack.client(&notifier, "ann").await;
    broker.start().await;
    worker.wait_ready(true).await;
    notifier.wait_ready(true).await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn services_stop_in_time_although_the_broker_is_away() {
    // Nothing listens there.
    let stack = Stack::on(OwnBroker::prepare().url());
    let worker = stack
        .start_worker(stack.worker_config(), Registry::new())
        .await;
    let notifier = stack.start_notifier(stack.notifier_config()).await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_that_blocks_publishers() {
    let broker = OwnBroker::started().await;
    let mut config = Stack::on(broker.url()).worker_config().amqp;
    config.publish_timeout = HumanDuration::from_secs(3);
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, "default");
    let health = Component::default();
    let (publisher, task) = Publisher::start(&config, "test", topology, health.clone());
    let exchange = names.jobs();
    let route = Route {
        exchange: &exchange,
        key: "default",
        mandatory: true,
    };
    let message = Message {
        body: b"{}".to_vec(),
        persistent: true,
        ..Message::default()
    };
    publisher.publish(route, &message).await.unwrap();

    // A memory alarm: the broker stops reading from whoever publishes.
    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let refused = timeout(PATIENCE, publisher.publish(route, &message)).await;
    let refused = refused.expect("a deadline of its own").unwrap_err();
    assert!(matches!(refused, PublishError::Timeout { .. }), "{refused}");
    assert!(!health.is_up(), "a blocked publisher is not ready");
    let through = async {
        // Tries until it is through, as the worker does with an outcome.
        while publisher.publish(route, &message).await.is_err() {}
    };
    let unblock = broker.ctl(&["set_vm_memory_high_watermark", "0.6"]);
    let both = async { tokio::join!(through, unblock) };
    timeout(PATIENCE, both).await.expect("through at last");
    timeout(PATIENCE, async {
        while !health.is_up() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("ready again");
    task.close().await;
}
