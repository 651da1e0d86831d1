//! Who may enter is asked of the backend: what each answer means, and how long it holds.

use std::time::{Duration, Instant};

use bellhop_common::config::{HumanDuration, Secret};
use bellhop_notifier::{Access, NotifierConfig};
use bellhop_tests::backend::{Answer, Backend, NO, YES};
use bellhop_tests::client::metric;
use bellhop_tests::stack::{Stack, room_token};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{event, member, say};

fn asking(stack: &Stack, backend: &Backend) -> NotifierConfig {
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Callback;
    config.rooms.callback_url = Some(backend.url());
    config
}

fn join(id: u64) -> Value {
    json!({"type": "join_room", "room_id": "r", "id": id})
}

#[tokio::test]
async fn each_answer_of_the_backend_means_what_it_says_and_any_other_means_no() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let mut config = asking(&stack, &backend);
    config.rooms.callback_secret = Some(Secret::new("s3cret"));
    let notifier = stack.notifier(config).await;
    let long = Box::leak(format!(r#"{{"allowed":true,"more":"{}"}}"#, "x".repeat(5000)).into());
    let mut ann = member(&notifier, "ann", &[]).await;
    let cases = [
        (YES, "subscribed"),
        (
            Answer::Says(200, r#"{"allowed":true,"more":1}"#),
            "subscribed",
        ),
        (NO, "forbidden"),
        (Answer::Says(403, ""), "forbidden"),
        (Answer::Says(404, r#"{"allowed":true}"#), "forbidden"),
        (Answer::Says(500, r#"{"allowed":true}"#), "unavailable"),
        (Answer::Says(401, r#"{"allowed":true}"#), "unavailable"),
        (Answer::Says(204, ""), "unavailable"),
        (Answer::Says(302, r#"{"allowed":true}"#), "unavailable"),
        (Answer::Says(200, ""), "unavailable"),
        (Answer::Says(200, "yes"), "unavailable"),
        (Answer::Says(200, r#"{"allowed":"true"}"#), "unavailable"),
        (Answer::Says(200, r#"{"allow":true}"#), "unavailable"),
        (Answer::Says(200, long), "unavailable"),
    ];
    for (n, (answer, wants)) in cases.into_iter().enumerate() {
        backend.answers(answer);
        let (room, id) = (format!("room {n}"), json!(n));
        let frame = json!({"type": "subscribe", "chat_id": room, "id": id});
        let got = say(&mut ann, frame).await;
        let word = if got["type"] == "error" {
            &got["code"]
        } else {
            &got["type"]
        };
        assert_eq!(
            (word, &got["id"]),
            (&json!(wants), &id),
            "{answer:?}: {got}"
        );
        // What was not allowed is not half allowed.
        let said = say(&mut ann, json!({"type": "hello", "chat_id": room})).await;
        let is_in = said["type"] == "hello";
        assert_eq!(is_in, wants == "subscribed", "{answer:?}: {said}");
        let question = backend.questions().pop().unwrap();
        assert_eq!(question.body, json!({"user_id": "ann", "chat_id": room}));
        assert_eq!(question.authorization.as_deref(), Some("Bearer s3cret"));
    }
    assert_eq!(backend.count(), cases.len(), "each was asked once");
    for (outcome, count) in [("allowed", 2), ("refused", 3), ("failed", 9)] {
        let series =
            format!("bellhop_notifier_membership_callbacks_total{{outcome=\"{outcome}\"}}");
        assert_eq!(metric(&notifier, &series).await, count, "{outcome}");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_backend_that_hangs_or_is_gone_keeps_out_and_holds_nothing_else_up() {
    let stack = Stack::shared();
    let backend = Backend::start(Answer::Hangs).await;
    let mut config = asking(&stack, &backend);
    let limit = Duration::from_secs(2);
    config.rooms.callback_timeout = HumanDuration(limit);
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let mut bob = member(&notifier, "bob", &["room:*"]).await;

    let began = Instant::now();
    ann.send(&join(1).to_string()).await;
    // Read only after the answer, so that what a client sends takes effect in its order.
    ann.send(r#"{"type":"ping","id":2}"#).await;
    backend.asked(1).await;
    let note = event("note", &json!(1));
    rabbit.publish("events", "live.user.ann.note", note).await;
    assert_eq!(
        ann.next().await["type"],
        "note",
        "is told what happens meanwhile"
    );
    // Whose token says that he may is not asked about.
    assert_eq!(say(&mut bob, join(3)).await["type"], "subscribed");
    let answer = ann.next().await;
    let took = began.elapsed();
    assert_eq!(
        (&answer["code"], &answer["id"]),
        (&json!("unavailable"), &json!(1))
    );
    assert!(took >= limit && took < 3 * limit, "{took:?}");
    assert_eq!(ann.next().await["id"], 2);

    // Not in: neither what happens there nor who is there is told.
    let secret = event("note", &json!("for members"));
    rabbit.publish("events", "live.room.r.note", secret).await;
    assert_eq!(bob.next().await["data"], "for members");
    let presence = say(&mut ann, json!({"type": "presence", "room_id": "r"})).await;
    assert_eq!(presence["code"], "not_subscribed");

    // Nobody listens there any more.
    drop(backend);
    let answer = say(&mut ann, join(4)).await;
    assert_eq!(answer["code"], "unavailable");
    notifier.stop().await;
}

#[tokio::test]
async fn an_answer_holds_for_its_time_and_a_failure_not_at_all() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let notifier = stack.notifier(asking(&stack, &backend)).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let mut bob = member(&notifier, "bob", &[]).await;
    for _ in 0..3 {
        assert_eq!(say(&mut ann, join(1)).await["type"], "subscribed");
        let leave = json!({"type": "leave_room", "room_id": "r"});
        assert_eq!(say(&mut ann, leave).await["type"], "unsubscribed");
    }
    assert_eq!(backend.count(), 1);
    // Another user, another place.
    backend.answers(NO);
    assert_eq!(say(&mut bob, join(1)).await["code"], "forbidden");
    let chat = json!({"type": "subscribe", "chat_id": "r"});
    assert_eq!(say(&mut ann, chat).await["code"], "forbidden");
    assert_eq!(backend.count(), 3);
    // A refusal holds as well.
    backend.answers(YES);
    assert_eq!(say(&mut bob, join(1)).await["code"], "forbidden");
    assert_eq!(backend.count(), 3);
    // A failure is no answer.
    backend.answers(Answer::Says(500, ""));
    let other = json!({"type": "join_room", "room_id": "other"});
    assert_eq!(say(&mut bob, other.clone()).await["code"], "unavailable");
    backend.answers(YES);
    assert_eq!(say(&mut bob, other).await["type"], "subscribed");
    notifier.stop().await;
}

#[tokio::test]
async fn an_answer_is_asked_for_again_when_its_time_is_over() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let mut config = asking(&stack, &backend);
    config.rooms.callback_cache = HumanDuration(Duration::from_millis(500));
    config.rooms.entries_per_second = 1000;
    let notifier = stack.notifier(config).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let again = async {
        while backend.count() < 3 {
            assert_eq!(say(&mut ann, join(1)).await["type"], "subscribed");
            say(&mut ann, json!({"type": "leave_room", "room_id": "r"})).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), again).await.unwrap();
    notifier.stop().await;
}

#[tokio::test]
async fn a_change_of_membership_makes_the_last_answer_forgotten() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let notifier = stack.notifier(asking(&stack, &backend)).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &[]).await;
    assert_eq!(say(&mut ann, join(1)).await["type"], "subscribed");
    backend.answers(NO);
    let removed = event("room.member_removed", &json!({"user_id": "ann"}));
    let key = "live.room.r.room.member_removed";
    rabbit.publish("events", key, removed).await;
    let out = json!({"type": "unsubscribed", "room_id": "r", "reason": "member_removed"});
    assert_eq!(ann.next().await, out);
    assert_eq!(say(&mut ann, join(2)).await["code"], "forbidden");
    assert_eq!(backend.count(), 2, "the cached yes is forgotten");

    backend.answers(YES);
    assert_eq!(say(&mut ann, join(3)).await["code"], "forbidden", "cached");
    let added = event("room.member_added", &json!({"user_id": "ann"}));
    rabbit
        .publish("events", "live.room.r.room.member_added", added)
        .await;
    // An event for her behind it: then the one before has been taken in.
    let note = event("note", &json!(1));
    rabbit.publish("events", "live.user.ann.note", note).await;
    assert_eq!(ann.next().await["type"], "note");
    assert_eq!(say(&mut ann, join(4)).await["type"], "subscribed");
    assert_eq!(backend.count(), 3, "the cached no is forgotten");
    notifier.stop().await;
}

/// She loses the membership while the backend is asked: its yes may be older than that.
#[tokio::test]
async fn an_answer_that_may_be_older_than_a_removal_does_not_count() {
    let stack = Stack::shared();
    let backend = Backend::start(Answer::SaysLater(200, r#"{"allowed":true}"#)).await;
    let mut config = asking(&stack, &backend);
    config.rooms.callback_timeout = HumanDuration::from_secs(15);
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let mut bob = member(&notifier, "bob", &["room:*"]).await;
    assert_eq!(say(&mut bob, join(1)).await["type"], "subscribed");
    ann.send(&join(2).to_string()).await;
    backend.asked(1).await;
    let removed = event("room.member_removed", &json!({"user_id": "ann"}));
    let key = "live.room.r.room.member_removed";
    rabbit.publish("events", key, removed).await;
    assert_eq!(bob.next().await["type"], "room.member_removed");
    backend.answers(NO);
    let answer = ann.next().await;
    assert_eq!(
        (&answer["code"], &answer["id"]),
        (&json!("forbidden"), &json!(2))
    );
    assert_eq!(backend.count(), 2, "asked once more");
    notifier.stop().await;
}

/// The new token says nothing of the room: then the backend does.
#[tokio::test]
async fn a_renewal_that_takes_a_pattern_away_leaves_the_room_to_the_backend() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let notifier = stack.notifier(asking(&stack, &backend)).await;
    let renewal =
        |user, patterns| json!({"type": "auth", "token": room_token(user, patterns)}).to_string();
    let present = json!({"type": "presence", "room_id": "r"});
    for (user, answer, stays) in [
        ("ann", YES, true),
        ("bob", NO, false),
        ("eve", Answer::Says(500, ""), false),
    ] {
        backend.answers(answer);
        let before = backend.count();
        let mut client = member(&notifier, user, &["room:*"]).await;
        assert_eq!(say(&mut client, join(1)).await["type"], "subscribed");
        client.send(&renewal(user, &["room:r"])).await;
        let there = say(&mut client, present.clone()).await;
        assert_eq!(there["type"], "presence", "{user}: it may still");
        assert_eq!(backend.count(), before, "{user}: the token says so");
        client.send(&renewal(user, &[])).await;
        if stays {
            assert_eq!(say(&mut client, present.clone()).await["type"], "presence");
        } else {
            let out = json!({"type": "unsubscribed", "room_id": "r", "reason": "not_granted"});
            assert_eq!(client.next().await, out, "{user}");
        }
        assert_eq!(backend.count(), before + 1, "{user}");
        // What the backend allowed, or nobody, a renewal does not change.
        client.send(&renewal(user, &[])).await;
        client.send(r#"{"type":"ping","id":2}"#).await;
        assert_eq!(client.next_of("pong").await["id"], 2);
        assert_eq!(backend.count(), before + 1, "{user}");
    }
    notifier.stop().await;
}
