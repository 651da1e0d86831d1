//! What a publisher promises: each message meets its own fate, and a broker that is half there
//! costs nothing that stays.

use std::cell::Cell;
use std::collections::HashSet;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Message, Names, PublishError, Publisher, Route, Source, StreamPosition, Subscription,
    Topology,
};
use bellhop_common::config::{AmqpConfig, AmqpUrl, HumanDuration, HumanSize};
use bellhop_common::telemetry::Component;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{PATIENCE, Stack};
use bellhop_worker::Registry;
use futures_util::FutureExt as _;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

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

#[tokio::test]
async fn a_sender_that_gives_up_leaves_nothing_behind() {
    const GIVEN_UP: usize = 40_000;
    let config = Stack::shared().worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::base(&names);
    let (publisher, task) = Publisher::start(&config, "fickle", topology, Component::default());
    let exchange = names.events();
    let route = Route {
        exchange: &exchange,
        key: "live.user.nobody.note",
        mandatory: false,
    };
    let message = Message {
        body: b"{}".to_vec(),
        ..Message::default()
    };
    let give_up = async |times: usize| {
        for _ in 0..times / 20 {
            for _ in 0..20 {
                // Far enough to be on its way, and then dropped.
                let _ = publisher.publish(route, &message).now_or_never();
                tokio::task::yield_now().await;
            }
            publisher.publish(route, &message).await.unwrap();
        }
    };
    give_up(GIVEN_UP / 10).await;
    let before = resident_kib();
    give_up(GIVEN_UP).await;
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB for {GIVEN_UP} messages");
    task.close().await;
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let figure = line.unwrap().split_whitespace().nth(1).unwrap();
    figure.parse().unwrap()
}

#[tokio::test]
async fn a_missing_exchange_harms_no_other_message() {
    const EACH: usize = 100;
    let mut config = Stack::shared().worker_config().amqp;
    config.publish_timeout = HumanDuration::from_secs(5);
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, "beside");
    let (publisher, task) = Publisher::start(&config, "wrong", topology, Component::default());
    let exchange = names.jobs();
    let publish = |exchange: String| {
        let publisher = &publisher;
        async move {
            let route = Route {
                exchange: &exchange,
                key: "beside",
                mandatory: true,
            };
            publisher.publish(route, &Message::default()).await
        }
    };
    let good = (0..EACH).map(|_| publish(exchange.clone()));
    let bad = (0..4).map(|_| publish(names.jobs() + ".missing"));
    let (good, bad) = tokio::join!(
        futures_util::future::join_all(good),
        futures_util::future::join_all(bad)
    );
    assert!(good.iter().all(Result::is_ok), "{good:?}");
    for result in bad {
        let error = result.unwrap_err();
        assert!(matches!(error, PublishError::Timeout { .. }), "{error}");
        assert!(error.to_string().contains("no exchange"), "{error}");
    }
    task.close().await;
}

#[tokio::test]
async fn headers_as_large_as_the_broker_takes_stop_no_worker() {
    let stack = Stack::shared();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let large = [("x", "y".repeat(120 * 1024))];
    let wrong = "no job";
    rabbit
        .publish_headed("jobs", "default", wrong, &large)
        .await;
    let id = stack.enqueue("count", json!({"to": 3}), "ann").await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    assert_eq!(rabbit.take("dead").await.body, wrong.as_bytes());
    worker.stop().await;
    notifier.stop().await;
}

/// RabbitMQ before 4.0 loses what it confirms for a stream, where a channel carries other messages
/// as well, see `Lanes`.
#[tokio::test]
async fn own_broker_keeps_in_a_stream_what_it_confirmed_while_its_leader_changed() {
    const SENDERS: usize = 16;
    const CHANGES: usize = 4;
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::worker(&names).with_job_queue(&names, "there");
    let (publisher, task) = Publisher::start(&config, "mix", topology, Component::default());
    let (confirmed, stop) = (Cell::new(0), Cell::new(false));
    let send_on = async |sender: usize| {
        let mut ids = Vec::new();
        while !stop.get() {
            let id = format!("{sender}-{}", ids.len());
            let message = Message {
                body: b"{}".to_vec(),
                id: Some(id.clone()),
                persistent: true,
                ..Message::default()
            };
            for (exchange, key) in [(names.jobs(), "there"), (names.dead(), "x")] {
                let route = Route {
                    exchange: &exchange,
                    key,
                    mandatory: true,
                };
                publisher.publish(route, &message).await.unwrap();
            }
            ids.push(id);
            confirmed.update(|count| count + 1);
        }
        ids
    };
    let stream = names.settled();
    let kill = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"/\">>, queue, <<\"{stream}\">>)), \
         exit(amqqueue:get_pid(Q), kill)."
    );
    let changes = async {
        for change in 0..=CHANGES {
            let enough = (change + 1) * 500;
            while confirmed.get() < enough {
                sleep(Duration::from_millis(10)).await;
            }
            if change < CHANGES {
                broker.ctl(&["eval", &kill]).await;
            }
        }
        stop.set(true);
    };
    let senders = futures_util::future::join_all((0..SENDERS).map(send_on));
    let (sent, ()) = tokio::join!(senders, changes);
    task.close().await;
    let mut missing: HashSet<String> = sent.into_iter().flatten().collect();

    take_out(&mut missing, &config, stream).await;
    let count = confirmed.get();
    assert!(missing.is_empty(), "of {count}: {missing:?}");
}

/// Reads a stream until it has given all of these or nothing more comes.
async fn take_out(ids: &mut HashSet<String>, config: &AmqpConfig, stream: String) {
    let (sender, mut deliveries) = mpsc::channel(100);
    let source = Source::Stream {
        name: stream,
        position: StreamPosition::at(0),
    };
    let subscriptions = vec![Subscription::new(source, 100, sender)];
    let (topology, health) = (Topology::default(), Component::default());
    let consumer = Consumer::start(config, "reader", topology, subscriptions, health);
    while !ids.is_empty()
        && let Ok(Some(delivery)) = timeout(PATIENCE, deliveries.recv()).await
    {
        ids.remove(delivery.properties.message_id.as_deref().unwrap());
        delivery.receipt.ack().await.unwrap();
    }
    consumer.close().await;
}
