//! Clients that answer nothing or read nothing, and the end of the notifier.

use std::time::{Duration, Instant};

use bellhop_common::config::HumanDuration;
use bellhop_tests::client::{Client, Raw, metric, metric_becomes, request};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{Stack, token};
use serde_json::{Value, json};

use super::{CONNECTIONS, event, publish_note};

const DELIVERIES: &str = "bellhop_notifier_deliveries_total";
const KIB: usize = 1024;

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_and_one_that_does_stays() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.ping_interval = HumanDuration(Duration::from_millis(500));
    config.websocket.pong_wait = HumanDuration::from_secs(3);
    let notifier = stack.notifier(config).await;
    let mut answering = stack.client(&notifier, "ann").await;
    let mut silent = Raw::connect(notifier.address, &token("ann")).await;
    let until_closed = async {
        let mut pings = 0;
        let content = loop {
            let (opcode, content) = silent.frame().await.expect("a close frame before the end");
            match opcode {
                9 if pings < 100 => pings += 1,
                8 => break content,
                other => panic!("opcode {other}"),
            }
        };
        assert!(pings >= 2, "only {pings} pings");
        assert_eq!(content[..2], 4001_u16.to_be_bytes());
        assert_eq!(&content[2..], b"pong_timeout");
        drop(silent);
        metric_becomes(&notifier, CONNECTIONS, 1).await;
        publish_note(&stack, 1).await;
    };
    // Its library answers while it reads.
    let ((), note) = tokio::join!(until_closed, answering.next());
    assert_eq!(note["data"], 1);
    notifier.stop().await;
}

async fn publish(rabbit: &Rabbit, topic: &str, data: Value) {
    let key = format!("live.user.ann.{topic}");
    let kind = topic.trim_end_matches(".running");
    rabbit.publish("events", &key, event(kind, &data)).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_delays_nobody() {
    const EVENTS: usize = 300;
    const AT_ONCE: usize = 4;
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.queue_size.0 = 512 * 1024;
    config.websocket.write_wait = HumanDuration::from_secs(5);
    let notifier = stack.notifier(config).await;
    // Of the same user, so that both get the same events; the slow one is first in line.
    let mut slow = Raw::connect(notifier.address, &token("ann")).await;
    let mut fast = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let filler = "x".repeat(40 * KIB);
    let mut longest = Duration::ZERO;
    for first in (0..EVENTS).step_by(AT_ONCE) {
        let began = Instant::now();
        for n in first..first + AT_ONCE {
            publish(&rabbit, "note", json!({"n": n, "filler": filler})).await;
        }
        for n in first..first + AT_ONCE {
            assert_eq!(fast.next().await["data"]["n"], n);
        }
        longest = longest.max(began.elapsed());
    }
    // Who had to wait for a write to the slow one would have waited five seconds.
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    let closed = r#"bellhop_notifier_closes_total{reason="slow_consumer"}"#;
    metric_becomes(&notifier, closed, 1).await;
    let mut read = 0;
    let end = loop {
        match slow.frame().await {
            Some((1, _)) => read += 1,
            Some((8, content)) => break Some(content),
            // The socket may end in the middle of a frame.
            _ => break None,
        }
    };
    assert!(end.is_none_or(|end| end[..2] == 4000_u16.to_be_bytes()));
    assert!(read < EVENTS, "it was not slow");
    drop(slow);
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    fast.send(r#"{"type":"ping"}"#).await;
    assert_eq!(fast.next().await["type"], "pong");
    notifier.stop().await;
}

#[tokio::test]
async fn a_client_too_far_behind_is_sent_away_rather_than_miss_something_unseen() {
    const EVENTS: u64 = 300;
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.queue_size.0 = 512 * 1024;
    // So that only the full queue can be why.
    config.websocket.write_wait = HumanDuration::from_secs(60);
    let notifier = stack.notifier(config).await;
    let mut slow = Raw::connect(notifier.address, &token("ann")).await;
    let rabbit = stack.rabbit().await;
    let filler = "x".repeat(40 * KIB);
    for n in 0..EVENTS {
        publish(&rabbit, "note", json!({"n": n, "filler": filler})).await;
    }
    metric_becomes(&notifier, DELIVERIES, EVENTS).await;
    let mut next = 0;
    let reason = loop {
        let (opcode, frame) = slow.frame().await.expect("a close frame before the end");
        if opcode == 8 {
            break frame;
        }
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        assert_eq!(frame["data"]["n"], next, "without a gap up to the end");
        next += 1;
    };
    assert_eq!(reason[..2], 4000_u16.to_be_bytes());
    assert!(next < EVENTS);
    drop(slow);
    notifier.stop().await;
}

#[tokio::test]
async fn a_slow_client_gets_the_newest_progress_instead_of_all() {
    const EVENTS: u64 = 300;
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    // Far less than what will be published.
    config.websocket.queue_size.0 = 512 * 1024;
    config.websocket.write_wait = HumanDuration::from_secs(60);
    let notifier = stack.notifier(config).await;
    let mut slow = Raw::connect(notifier.address, &token("ann")).await;
    let rabbit = stack.rabbit().await;
    let filler = "x".repeat(40 * KIB);
    for rev in 0..EVENTS {
        for task_id in ["a", "b"] {
            let status = "running";
            let state = json!({"task_id": task_id, "status": status, "rev": rev, "f": filler});
            publish(&rabbit, "task.status_changed.running", state).await;
        }
    }
    publish(&rabbit, "note", json!("last")).await;
    metric_becomes(&notifier, DELIVERIES, 2 * EVENTS + 1).await;
    let (mut frames, mut newest) = (0, [0, 0]);
    loop {
        let (opcode, frame) = slow.frame().await.expect("it is not closed");
        assert_eq!(opcode, 1, "it is not closed");
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        if frame["data"] == "last" {
            break;
        }
        frames += 1;
        let data = &frame["data"];
        let (task, rev) = (&data["task_id"], data["rev"].as_u64().unwrap());
        let newest = &mut newest[usize::from(task == "b")];
        assert!(rev >= *newest, "older than what came before");
        *newest = rev;
    }
    assert_eq!(newest, [EVENTS - 1, EVENTS - 1]);
    assert!(frames < EVENTS, "{frames} of {} came", 2 * EVENTS);
    drop(slow);
    notifier.stop().await;
}

#[tokio::test]
async fn at_the_end_every_client_is_asked_to_come_back() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    let deadline = config.shutdown.deadline.0;
    config.websocket.write_wait = HumanDuration::from_secs(5);
    config.websocket.queue_size.0 = 64 << 20;
    let notifier = stack.notifier(config).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut also_ann = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    let mut silent = Raw::connect(notifier.address, &token("bob")).await;
    let nobody = request(notifier.address, "/ws", &[]);
    let mut nobody = Client::open(nobody).await.unwrap().0;
    // Takes nothing, and has more coming than the sockets can hold.
    let deaf = Raw::connect(notifier.address, &token("deaf")).await;
    let rabbit = stack.rabbit().await;
    let large = event("note", &json!("x".repeat(200_000)));
    for _ in 0..50 {
        let key = "live.user.deaf.note";
        rabbit.publish("events", key, &large).await;
    }
    metric_becomes(&notifier, DELIVERIES, 50).await;
    assert_eq!(metric(&notifier, CONNECTIONS).await, 6);

    let began = Instant::now();
    notifier.begin_stop();
    let restart = Some((1012, "restart".to_owned()));
    for client in [&mut ann, &mut also_ann, &mut bob, &mut nobody] {
        assert_eq!(client.closed().await, restart);
    }
    assert_eq!(silent.closed().await, restart);
    notifier.stop().await;
    assert!(began.elapsed() < deadline / 2, "{:?}", began.elapsed());
    drop((silent, deaf));
}
