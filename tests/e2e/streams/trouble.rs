//! What cannot be kept waits, and what need not be kept goes on.

use bellhop_common::config::Secret;
use bellhop_notifier::NotifierConfig;
use bellhop_tests::client::metric;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::Stack;
use serde_json::json;

use super::{event, notes, publish};

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
        // Who comes now is served with what is live, and learns that the rest is not known.
        let mut bob = stack.client(&notifier, "bob").await;
        rabbit.publish("events", "live.user.bob.hello", &live).await;
        bob.next_of("hello").await;
        if is_frozen {
            redis.thaw();
        } else {
            redis.start().await;
        }
        assert_eq!(notes(&mut ann, 2).await, [next, next + 1]);
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
