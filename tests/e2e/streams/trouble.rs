//! What cannot be kept waits, and what need not be kept goes on.

use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_common::wire::Audience;
use bellhop_notifier::NotifierConfig;
use bellhop_notifier::store::{NewEvent, Redis, Retention, Store as _, StreamName};
use bellhop_tests::client::metric;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::{Stack, room_token};
use jiff::Timestamp;
use serde_json::json;

use super::{event, notes, open, publish};

fn on(stack: &Stack, redis: &OwnRedis, instance: &str) -> NotifierConfig {
    let mut config = stack.shared_config();
    config.store.url = Some(Secret::new(redis.url()));
    config.instance = Some(instance.into());
    config
}

#[tokio::test]
async fn while_the_store_is_away_live_events_go_on_and_stored_ones_wait() {
    let mut redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let notifier = stack.notifier(on(&stack, &redis, "one")).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=1).await;
    assert_eq!(notes(&mut ann, 1).await, [1]);
    let mut next = 2;
    for is_frozen in [false, true] {
        if is_frozen {
            redis.freeze();
        } else {
            redis.kill();
        }
        publish(&rabbit, "stored.user.ann.note", next..=next + 1).await;
        notifier.wait_ready(false).await;
        let (_, live) = event("hello", &json!(1));
        rabbit.publish("events", "live.user.ann.hello", &live).await;
        assert_eq!(ann.next().await["type"], "hello", "nothing else comes");
        // How far her stream was shown here is known, but not what she has missed of it.
        let mut again = stack.client(&notifier, "ann").await;
        let lost = again.next().await;
        let wants = (&json!("stream_reset"), &json!("user"), &json!(next - 1));
        assert_eq!((&lost["type"], &lost["audience"], &lost["seq"]), wants);
        // Who comes now is served with what is live, and learns that the rest is not known.
        let mut bob = stack.client(&notifier, "bob").await;
        rabbit.publish("events", "live.user.bob.hello", &live).await;
        bob.next_of("hello").await;
        if is_frozen {
            redis.thaw();
        } else {
            redis.start().await;
        }
        for client in [&mut ann, &mut again] {
            assert_eq!(notes(client, 2).await, [next, next + 1]);
        }
        again.close().await;
        notifier.wait_ready(true).await;
        publish(&rabbit, "stored.user.bob.note", next..=next).await;
        // He is shown it, or told that he may have missed it.
        let told = async {
            loop {
                let frame = bob.next().await;
                let (kind, audience) = (&frame["type"], &frame["audience"]);
                let is_lost = kind == "stream_reset" && audience == "user" && frame["seq"] != 0;
                if is_lost || kind == "note" && frame["data"] == next {
                    break;
                }
            }
        };
        told.await;
        next += 2;
    }
    let failed = r#"bellhop_notifier_kept_events_total{outcome="failed"}"#;
    assert!(metric(&notifier, failed).await > 0);
    notifier.stop().await;
    assert_eq!(rabbit.ready("inbox").await, 0);
}

#[tokio::test]
async fn another_life_of_the_store_is_told() {
    let mut redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let notifier = stack.notifier(on(&stack, &redis, "one")).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=2).await;
    assert_eq!(notes(&mut ann, 2).await, [1, 2]);
    // It comes back with nothing.
    redis.kill();
    redis = OwnRedis::started_instead_of(redis).await;
    publish(&rabbit, "stored.user.ann.note", 3..=3).await;
    let (mut is_told, mut is_shown) = (false, false);
    while !(is_told && is_shown) {
        let frame = ann.next().await;
        match frame["type"].as_str() {
            Some("stream_reset") if frame["audience"] == "user" => is_told = true,
            Some("note") => {
                assert_eq!((&frame["data"], &frame["seq"]), (&json!(3), &json!(1)));
                is_shown = true;
            }
            _ => {}
        }
    }
    notifier.stop().await;
    drop(redis);
}

/// It was kept, and those who should have told it are gone: the next event shows that it is missing.
#[tokio::test]
async fn a_removal_from_a_room_takes_effect_when_it_is_read_from_the_store() {
    let redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let config = on(&stack, &redis, "one");
    let retention = Retention {
        events: 100,
        age: Duration::from_hours(24),
    };
    let store = Redis::open(&redis.url(), &config.store.prefix, retention).unwrap();
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let granted = room_token("ann", &["room:*"]);
    let mut ann = open(&notifier, "/ws?room_id=r", &granted).await;
    ann.next_of("subscribed").await;
    publish(&rabbit, "stored.room.r.note", 1..=1).await;
    assert_eq!(notes(&mut ann, 1).await, [1]);
    let (id, body) = event("room.member_removed", &json!({"user_id": "ann"}));
    let removed = NewEvent {
        stream: StreamName::of(&Audience::Room("r".into())).unwrap(),
        id,
        body: body.into(),
        task: None,
        group: None,
    };
    store.append(vec![removed], Timestamp::now()).await.unwrap();
    publish(&rabbit, "stored.room.r.note", 2..=2).await;
    let out = json!({"type": "unsubscribed", "room_id": "r", "reason": "member_removed"});
    assert_eq!(ann.next().await, out);
    publish(&rabbit, "stored.user.ann.note", 3..=3).await;
    assert_eq!(ann.next().await["data"], 3, "nothing of the room");
    notifier.stop().await;
}
