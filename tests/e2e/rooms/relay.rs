//! What clients send to each other, and what they may not.

use std::time::{Duration, Instant};

use bellhop_common::config::HumanDuration;
use bellhop_notifier::Access;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::client::{Raw, masked, metric_becomes};
use bellhop_tests::stack::{Stack, room_token};
use serde_json::{Value, json};

use super::{event, member, say};

#[tokio::test]
async fn a_frame_goes_to_the_one_room_or_the_one_named() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    let notifier = stack.notifier(config).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let wave = json!({"type": "wave", "id": 1});
    let nowhere = say(&mut ann, wave.clone()).await;
    assert_eq!(
        (&nowhere["code"], &nowhere["id"]),
        (&json!("no_room"), &json!(1))
    );
    say(&mut ann, json!({"type": "join_room", "room_id": "r"})).await;
    let waved = say(&mut ann, wave.clone()).await;
    assert_eq!(
        (&waved["type"], &waved["room_id"]),
        (&json!("wave"), &json!("r"))
    );
    // A room and a chat are two places.
    say(&mut ann, json!({"type": "subscribe", "chat_id": "r"})).await;
    assert_eq!(say(&mut ann, wave.clone()).await["code"], "no_room");
    for field in ["room_id", "chat_id"] {
        let frame = json!({"type": "wave", field: "r", "data": [1], "payload": {"x": null}});
        let waved = say(&mut ann, frame).await;
        assert_eq!(waved[field], "r");
        assert_eq!(
            (&waved["data"], &waved["payload"]),
            (&json!([1]), &json!({"x": null}))
        );
        assert_eq!(waved["from"], "ann");
        assert!(waved["id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
        assert!(
            waved["time"]
                .as_str()
                .unwrap()
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
    }
    let both = json!({"type": "wave", "room_id": "r", "chat_id": "r"});
    assert_eq!(say(&mut ann, both).await["code"], "bad_field");
    let elsewhere = json!({"type": "wave", "room_id": "other"});
    assert_eq!(say(&mut ann, elsewhere).await["code"], "not_subscribed");
    say(&mut ann, json!({"type": "leave_room", "room_id": "r"})).await;
    assert_eq!(say(&mut ann, wave).await["chat_id"], "r");
    notifier.stop().await;
}

/// Whoever could send these would speak in the name of the notifier or a backend.
#[tokio::test]
async fn what_only_the_notifier_and_backends_say_is_not_passed_on() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    let notifier = stack.notifier(config).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let mut bob = member(&notifier, "bob", &[]).await;
    for client in [&mut bob, &mut ann] {
        say(client, json!({"type": "join_room", "room_id": "r"})).await;
    }
    assert_eq!(bob.next().await["type"], "user_joined");
    for kind in [
        "connected",
        "subscribed",
        "unsubscribed",
        "user_joined",
        "user_left",
        "pong",
        "error",
        "reconnect",
        "resumed",
        "closed",
        "token_expiring",
        "message.sent",
        "message.new",
        "chat.updated",
        "chat.member_added",
        "chat.member_removed",
        "room.member_added",
        "room.member_removed",
        "task.updated",
        "task.status_changed",
        "task.log",
        "notification.new",
        "notification.created",
        "inbox.changed",
    ] {
        let frame = json!({"type": kind, "room_id": "r", "data": {"user_id": "bob"}, "id": kind});
        let answer = say(&mut ann, frame).await;
        assert_eq!(
            (&answer["code"], &answer["id"]),
            (&json!("reserved_type"), &json!(kind))
        );
    }
    say(&mut ann, json!({"type": "last"})).await;
    assert_eq!(bob.next().await["type"], "last", "the first that came");
    notifier.stop().await;
}

#[tokio::test]
async fn where_relaying_is_off_only_backends_speak() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.rooms.relay = false;
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &[]).await;
    say(&mut ann, json!({"type": "join_room", "room_id": "r"})).await;
    let answer = say(&mut ann, json!({"type": "wave", "id": "x"})).await;
    assert_eq!(
        (&answer["code"], &answer["id"]),
        (&json!("relay_off"), &json!("x"))
    );
    let body = event("wave", &json!(1));
    rabbit.publish("events", "live.room.r.wave", body).await;
    assert_eq!(ann.next().await["data"], 1);
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_away_while_a_client_speaks() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.amqp.publish_timeout = HumanDuration::from_secs(2);
    let notifier = stack.notifier(config).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    say(&mut ann, json!({"type": "join_room", "room_id": "r"})).await;
    broker.stop().await;
    notifier.wait_ready(false).await;
    for id in [json!("m1"), json!({"n": 2}), Value::Null] {
        let answer = say(&mut ann, json!({"type": "wave", "id": id})).await;
        assert_eq!((&answer["code"], &answer["id"]), (&json!("not_sent"), &id));
    }
    // She is still connected and in the room, and is heard again when the broker is back.
    broker.start().await;
    notifier.wait_ready(true).await;
    let wave = say(&mut ann, json!({"type": "wave", "data": 3})).await;
    assert_eq!((&wave["type"], &wave["data"]), (&json!("wave"), &json!(3)));
    notifier.stop().await;
}

#[tokio::test]
async fn a_member_who_does_not_read_is_sent_away_and_the_others_wait_for_nothing() {
    const FRAMES: usize = 300;
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.websocket.queue_size.0 = 512 * 1024;
    // So that only the full queue can be why, and whoever had to wait for a write waited long.
    config.websocket.write_wait = HumanDuration::from_secs(60);
    config.websocket.frames_per_second = 10_000;
    let notifier = stack.notifier(config).await;
    let join = json!({"type": "join_room", "room_id": "r"});
    let mut slow = Raw::connect(notifier.address, &room_token("slow", &[])).await;
    slow.send(&masked(0x81, join.to_string().as_bytes())).await;
    assert_eq!(slow.frame().await.unwrap().0, 1);
    let mut ann = member(&notifier, "ann", &[]).await;
    let mut bob = member(&notifier, "bob", &[]).await;
    say(&mut ann, join.clone()).await;
    say(&mut bob, join).await;
    ann.next_of("user_joined").await;
    let filler = "x".repeat(40 * 1024);
    let mut longest = Duration::ZERO;
    for n in 0..FRAMES {
        let began = Instant::now();
        let frame = json!({"type": "wave", "payload": {"n": n, "filler": filler}});
        ann.send(&frame.to_string()).await;
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.next_of("wave").await["payload"]["n"], n);
        }
        longest = longest.max(began.elapsed());
    }
    println!("{FRAMES} frames, the slowest took {longest:?}");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    let closed = r#"bellhop_notifier_closes_total{reason="slow_consumer"}"#;
    // It reads at last, up to the news that it is out.
    let mut read = 0;
    let reason = loop {
        match slow.frame().await.expect("a close frame before the end") {
            (8, content) => break content,
            _ => read += 1,
        }
    };
    assert_eq!(reason[..2], 4000_u16.to_be_bytes());
    assert!(read < FRAMES, "it was not slow");
    metric_becomes(&notifier, closed, 1).await;
    assert_eq!(
        ann.next().await,
        json!({"type": "user_left", "room_id": "r", "user_id": "slow"})
    );
    drop(slow);
    notifier.stop().await;
}
