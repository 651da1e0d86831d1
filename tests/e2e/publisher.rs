//! What a publisher promises: each message meets its own fate, and a broker that is half there
//! costs nothing that stays.

use std::time::Duration;

use bellhop_common::amqp::{Message, Names, PublishError, Publisher, Route, Topology};
use bellhop_common::config::{AmqpUrl, HumanDuration, HumanSize};
use bellhop_common::telemetry::Component;
use bellhop_tests::stack::{PATIENCE, Stack};
use bellhop_worker::Registry;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::tasks::Count;

#[tokio::test]
async fn a_returned_message_is_an_error_for_its_sender_and_nobody_else() {
    const EACH: usize = 400;
    let stack = Stack::shared();
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, "there");
    let (publisher, task) = Publisher::start(&config, "mix", topology, Component::default());
    let exchange = names.jobs();
    let message = Message {
        body: b"{}".to_vec(),
        persistent: true,
        ..Message::default()
    };
    let publish = |key: &'static str| {
        let (publisher, exchange, message) = (&publisher, &exchange, &message);
        async move {
            let route = Route {
                exchange,
                key,
                mandatory: true,
            };
            publisher.publish(route, message).await
        }
    };
    let good = (0..EACH).map(|_| publish("there"));
    let bad = (0..EACH).map(|_| publish("nowhere"));
    let (good, bad) = tokio::join!(
        futures_util::future::join_all(good),
        futures_util::future::join_all(bad)
    );
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    let unroutable = |result| matches!(result, &Err(PublishError::Unroutable { .. }));
    assert!(bad.iter().all(unroutable), "{bad:?}");
    task.close().await;
    let ready = stack.rabbit().await.ready("jobs.there").await;
    assert_eq!(usize::try_from(ready), Ok(EACH));
}

#[tokio::test]
async fn a_broker_that_takes_connections_and_says_nothing_leaves_no_threads_behind() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = silent.local_addr().unwrap();
    let mut config = Stack::shared().worker_config().amqp;
    config.url = AmqpUrl::new(format!("amqp://{address}/%2f"));
    config.connect_timeout = HumanDuration(Duration::from_millis(100));
    let topology = Topology::default();
    let (_publisher, task) = Publisher::start(&config, "x", topology, Component::default());
    for _ in 0..6 {
        let (mut stream, _) = timeout(PATIENCE, silent.accept()).await.unwrap().unwrap();
        // To its end: the other side has given this connection up.
        let mut all = Vec::new();
        let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
        assert!(read.is_ok(), "the connection stays open");
    }
    task.close().await;
    let gone = async {
        while threads_of_lapin() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = timeout(PATIENCE, gone).await;
    assert!(ended.is_ok(), "{} threads are left", threads_of_lapin());
}

fn threads_of_lapin() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("lapin")).count()
}

#[tokio::test]
async fn a_message_too_large_to_be_published_again_holds_no_queue_up() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.queues.get_mut("default").unwrap().concurrency = 1;
    config.amqp.max_message_size = HumanSize::kib(32);
    let worker = stack.worker(config, Registry::new().with(Count)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let large = vec![b'x'; 64 * 1024];
    rabbit.publish("jobs", "default", &large).await;
    let id = stack.enqueue("count", json!({"to": 3}), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert_eq!(rabbit.take("dead").await.body, large);
    worker.stop().await;
    notifier.stop().await;
}
