//! Celery's side, where it goes wrong. What goes right is tested with Celery itself, by
//! `scripts/celery-test`.

use bellhop_common::config::HumanSize;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{PATIENCE, Stack};
use bellhop_worker::{CeleryQueueConfig, Registry, WorkerConfig};
use futures_util::StreamExt as _;
use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::json;
use tokio::time::timeout;

use crate::tasks::{Break, Count};

async fn connect(stack: &Stack) -> (Connection, Channel) {
    let properties = ConnectionProperties::default();
    let connection = Connection::connect(&stack.url, properties).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare(channel: &Channel, queue: &str, arguments: FieldTable) {
    let options = QueueDeclareOptions::durable();
    channel
        .queue_declare(queue.into(), options, arguments)
        .await
        .unwrap();
}

/// What Celery's client would send.
/// Sends a task of ann's; answers its id.
async fn send_task(channel: &Channel, queue: &str, task: &str, body: serde_json::Value) -> String {
    let id = uuid::Uuid::now_v7().to_string();
    let mut headers = FieldTable::default();
    for (name, value) in [("task", task), ("id", &id), ("user_id", "ann")] {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_headers(headers);
    let options = BasicPublishOptions::default();
    let body = body.to_string();
    let published = channel.basic_publish(
        "".into(),
        queue.into(),
        options,
        body.as_bytes(),
        properties,
    );
    published.await.unwrap().await.unwrap();
    id
}

fn taking_from(stack: &Stack, queue: &str) -> WorkerConfig {
    let mut config = stack.worker_config();
    let settings = CeleryQueueConfig::default();
    config.celery.queues.insert(queue.into(), settings);
    config
}

#[tokio::test]
async fn a_queue_of_celerys_that_is_declared_otherwise_holds_no_job_up() {
    let stack = Stack::shared();
    let queue = format!("{}otherwise", stack.prefix);
    let (_connection, channel) = connect(&stack).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), AMQPValue::LongLongInt(3));
    declare(&channel, &queue, arguments).await;
    // So that ours is there when the job is put in.
    let plain = stack.worker(stack.worker_config(), Registry::new()).await;
    plain.stop().await;
    let config = taking_from(&stack, &queue);
    let worker = stack
        .start_worker(config, Registry::new().with(Count))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("count", json!({"to": 3}), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert!(!worker.is_ready().await, "its owner has to know");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_task_that_may_have_been_moved_before_says_so() {
    let stack = Stack::shared();
    let queue = format!("{}twice", stack.prefix);
    let (connection, channel) = connect(&stack).await;
    declare(&channel, &queue, FieldTable::default()).await;
    send_task(
        &channel,
        &queue,
        "break",
        json!([[], {"how": "fail"}, null]),
    )
    .await;
    // Taken by somebody who dies over it.
    let options = BasicGetOptions { no_ack: false };
    let taken = channel.basic_get(queue.as_str().into(), options).await;
    assert!(taken.unwrap().is_some());
    connection.close(200, "dies".into()).await.unwrap();
    let config = taking_from(&stack, &queue);
    let worker = stack.worker(config, Registry::new().with(Break)).await;
    let letter = stack.rabbit().await.take("dead").await;
    assert_eq!(letter.headers["x-bellhop-reason"], "broken");
    assert_eq!(letter.headers["x-bellhop-once"], "1");
    assert!(!letter.headers.contains_key("task"), "it is a job of ours");
    let (_connection, channel) = connect(&stack).await;
    let left = channel.basic_get(queue.as_str().into(), options).await;
    assert!(left.unwrap().is_none(), "nothing is left behind");
    worker.stop().await;
}

#[tokio::test]
async fn a_task_over_our_limit_is_run_or_buried_but_does_not_stay() {
    let stack = Stack::shared();
    let queue = format!("{}large", stack.prefix);
    let (_connection, channel) = connect(&stack).await;
    declare(&channel, &queue, FieldTable::default()).await;
    let mut config = taking_from(&stack, &queue);
    config.amqp.max_message_size = HumanSize::kib(2);
    let registry = Registry::new().with(Count);
    let worker = stack.worker(config, registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let much = "x".repeat(4 * 1024);
    // Not what a task's body looks like.
    send_task(&channel, &queue, "count", json!(much)).await;
    let letter = stack.rabbit().await.take("dead").await;
    assert_eq!(letter.headers["x-bellhop-reason"], "unreadable");
    let task = json!([[], {"to": 3, "more": much}, null]);
    let id = send_task(&channel, &queue, "count", task).await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    worker.stop().await;
    let options = BasicGetOptions { no_ack: false };
    let left = channel.basic_get(queue.as_str().into(), options).await;
    assert!(left.unwrap().is_none(), "nothing is left behind");
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_restarted_beside_celerys_queues_and_monitors() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let mut config = taking_from(&stack, "celery");
    config.celery.events = true;
    let worker = stack.worker(config, Registry::new().with(Count)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    for has_restarted in [false, true] {
        if has_restarted {
            broker.stop().await;
            worker.wait_ready(false).await;
            broker.start().await;
            worker.wait_ready(true).await;
            notifier.wait_ready(true).await;
        }
        let (_connection, channel) = connect(&stack).await;
        let task = json!([[], {"to": 3}, null]);
        let id = send_task(&channel, "celery", "count", task).await;
        let end = ann.task_to_end(&id).await.pop().unwrap();
        assert_eq!(end["status"], "succeeded");
        let beat = next_event(&channel, "worker.heartbeat").await;
        assert_eq!(beat["sw_ident"], "bellhop");
    }
    worker.stop().await;
    notifier.stop().await;
}

/// The next of Celery's events with this key, as a monitor would receive it.
async fn next_event(channel: &Channel, key: &str) -> serde_json::Value {
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await
        .unwrap();
    let (queue, none) = (queue.name().as_str(), FieldTable::default());
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            "celeryev".into(),
            key.into(),
            options,
            none.clone(),
        )
        .await
        .unwrap();
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, none);
    let mut consumer = consumer.await.unwrap();
    let event = timeout(PATIENCE, consumer.next()).await.unwrap();
    serde_json::from_slice(&event.unwrap().unwrap().data).unwrap()
}

#[tokio::test]
async fn own_broker_where_the_monitors_exchange_is_declared_otherwise() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let (_connection, channel) = connect(&stack).await;
    for name in ["celeryev", "celery.pidbox"] {
        let options = ExchangeDeclareOptions::default();
        channel
            .exchange_declare(
                name.into(),
                ExchangeKind::Headers,
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
    }
    let mut config = stack.worker_config();
    config.celery.events = true;
    let worker = stack.worker(config, Registry::new().with(Count)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("count", json!({"to": 3}), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    let began = std::time::Instant::now();
    worker.stop().await;
    let taken = began.elapsed();
    assert!(
        taken.as_secs() < 8,
        "the farewell is not waited for: {taken:?}"
    );
    notifier.stop().await;
}
