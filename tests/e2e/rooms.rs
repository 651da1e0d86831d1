//! Rooms and chats: the seeds' protocols, who may enter, and what those inside see.

mod limits;
mod membership;
mod order;
mod relay;

use std::time::Duration;

use bellhop_notifier::Access;
use bellhop_tests::client::{Client, request};
use bellhop_tests::stack::{Running, Stack, room_token};
use serde_json::{Value, json};
use uuid::Uuid;

/// An event's body.
fn event(kind: &str, data: &Value) -> String {
    let (id, time) = (Uuid::now_v7(), jiff::Timestamp::now());
    json!({"type": kind, "id": id, "time": time, "data": data}).to_string()
}

/// A client that is in, past its first frame.
async fn member(notifier: &Running, user: &str, patterns: &[&str]) -> Client {
    let mut client = Client::connect(notifier.address, &room_token(user, patterns)).await;
    assert_eq!(client.next().await["type"], "connected");
    client
}

/// Sends a frame; the next one that comes should be its answer.
async fn say(client: &mut Client, frame: Value) -> Value {
    client.send(&frame.to_string()).await;
    client.next().await
}

#[tokio::test]
async fn a_chat_gets_its_messages_and_nobody_else_does() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &["chat:c1"]).await;
    let mut eve = member(&notifier, "eve", &["chat:other-*"]).await;
    let subscribe = json!({"type": "subscribe", "chat_id": "c1", "id": 7});
    let answer = say(&mut ann, subscribe.clone()).await;
    let subscribed = json!({"type": "subscribed", "chat_id": "c1", "id": 7});
    assert_eq!(answer, subscribed);
    let answer = say(&mut eve, subscribe).await;
    let refused = (&json!("forbidden"), &json!(7));
    assert_eq!((&answer["code"], &answer["id"]), refused);

    let message = json!({"id": "m1", "content": "Hello!", "sender_id": "bob", "created_at": "2026-01-15T10:30:00Z"});
    for (kind, name, data) in [
        ("message.sent", "message.new", &message),
        (
            "chat.updated",
            "chat.updated",
            &json!({"name": "New Chat Name"}),
        ),
    ] {
        let body = event(kind, data);
        rabbit
            .publish("events", &format!("live.chat.c1.{kind}"), body)
            .await;
        let frame = ann.next().await;
        assert_eq!(frame["type"], name);
        assert_eq!((&frame["chat_id"], &frame["data"]), (&json!("c1"), data));
    }
    // A room of the same name is another place.
    let elsewhere = event("message.sent", &message);
    rabbit
        .publish("events", "live.room.c1.message.sent", elsewhere)
        .await;
    let answer = say(&mut ann, json!({"type": "unsubscribe", "chat_id": "c1"})).await;
    assert_eq!(answer, json!({"type": "unsubscribed", "chat_id": "c1"}));
    let late = event("message.sent", &message);
    rabbit
        .publish("events", "live.chat.c1.message.sent", late)
        .await;
    for user in ["ann", "eve"] {
        let note = event("notification.created", &json!({"title": "last"}));
        let key = format!("live.user.{user}.notification.created");
        rabbit.publish("events", &key, note).await;
    }
    for client in [&mut ann, &mut eve] {
        let frame = client.next().await;
        assert_eq!(frame["type"], "notification.new");
        assert_eq!(frame["data"]["title"], "last");
    }
    notifier.stop().await;
}

/// Connects by an address that names everything.
async fn by_address(notifier: &Running, user: &str) -> Client {
    let path = format!("/ws?room_id=room-123&user_id={user}");
    let request = request(notifier.address, &path, &[]);
    let mut client = Client::open(request).await.unwrap().0;
    let connected = client.next().await;
    assert_eq!(connected["user_id"], user);
    assert_eq!(connected["rooms"], json!(["room-123"]));
    let subscribed = json!({"type": "subscribed", "room_id": "room-123"});
    assert_eq!(client.next().await, subscribed);
    client
}

#[tokio::test]
async fn clients_of_a_room_by_address_talk_to_each_other() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.mode = bellhop_notifier::AuthMode::None;
    let notifier = stack.notifier(config).await;
    let mut ann = by_address(&notifier, "ann").await;
    let mut bob = by_address(&notifier, "bob").await;
    let joined = json!({"type": "user_joined", "room_id": "room-123", "user_id": "bob"});
    assert_eq!(ann.next().await, joined);
    // A second connection of the same user is no news.
    let phone = by_address(&notifier, "bob").await;
    drop(phone);

    bob.send(r#"{"type":"custom_event","payload":{"data":"some data", "n":1.50},"from":"eve"}"#)
        .await;
    for client in [&mut ann, &mut bob] {
        let text = client.next_text().await;
        assert!(
            text.contains(r#""payload":{"data":"some data", "n":1.50}"#),
            "{text}"
        );
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(frame["type"], "custom_event");
        assert_eq!(
            (&frame["from"], &frame["room_id"]),
            (&json!("bob"), &json!("room-123"))
        );
    }
    let rabbit = stack.rabbit().await;
    let to_all = event(
        "global_event",
        &json!({"message": "Server maintenance in 5 minutes"}),
    );
    rabbit
        .publish("events", "live.all.all.global_event", to_all)
        .await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.next().await["type"], "global_event");
    }
    let answer = say(&mut bob, json!({"type": "presence", "room_id": "room-123"})).await;
    assert_eq!(
        (&answer["count"], &answer["users"]),
        (&json!(2), &json!(["ann", "bob"]))
    );
    let answer = say(
        &mut bob,
        json!({"type": "leave_room", "room_id": "room-123"}),
    )
    .await;
    assert_eq!(answer["type"], "unsubscribed");
    let left = json!({"type": "user_left", "room_id": "room-123", "user_id": "bob"});
    assert_eq!(ann.next().await, left);
    let answer = say(
        &mut bob,
        json!({"type": "custom_event", "room_id": "room-123"}),
    )
    .await;
    assert_eq!(answer["code"], "not_subscribed");
    notifier.stop().await;
}

#[tokio::test]
async fn who_is_there_is_known_over_all_instances() {
    let stack = Stack::shared();
    let config = |name: &str| {
        let mut config = stack.shared_config();
        config.instance = Some(name.into());
        config.rooms.access = Access::Open;
        config
    };
    let one = stack.notifier(config("one")).await;
    let mut ann = member(&one, "ann", &[]).await;
    say(&mut ann, json!({"type": "join_room", "room_id": "r"})).await;
    // Comes later, and learns who was there before.
    let two = stack.notifier(config("two")).await;
    let mut bob = member(&two, "bob", &[]).await;
    say(&mut bob, json!({"type": "join_room", "room_id": "r"})).await;
    let joined = ann.next().await;
    assert_eq!(
        (&joined["type"], &joined["user_id"]),
        (&json!("user_joined"), &json!("bob"))
    );
    loop {
        let presence = say(&mut bob, json!({"type": "presence", "room_id": "r"})).await;
        if presence["count"] == 2 {
            assert_eq!(presence["users"], json!(["ann", "bob"]));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // On both instances: neither comes twice nor goes before the last.
    let mut ann_too = member(&two, "ann", &[]).await;
    say(&mut ann_too, json!({"type": "join_room", "room_id": "r"})).await;
    say(&mut ann, json!({"type": "leave_room", "room_id": "r"})).await;
    say(&mut ann_too, json!({"type": "leave_room", "room_id": "r"})).await;
    let left = bob.next().await;
    assert_eq!(
        (&left["type"], &left["user_id"]),
        (&json!("user_left"), &json!("ann"))
    );

    let answer = say(&mut ann, json!({"type": "join_room", "room_id": "r"})).await;
    assert_eq!(answer["type"], "subscribed");
    assert_eq!(bob.next().await["type"], "user_joined");
    // An instance that stops takes its users along.
    one.stop().await;
    let left = bob.next().await;
    assert_eq!(
        (&left["type"], &left["user_id"]),
        (&json!("user_left"), &json!("ann"))
    );
    two.stop().await;
}

#[tokio::test]
async fn who_is_no_member_any_more_is_out_at_once() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &["room:*"]).await;
    let mut bob = member(&notifier, "bob", &["room:*"]).await;
    for client in [&mut ann, &mut bob] {
        let answer = say(client, json!({"type": "join_room", "room_id": "r"})).await;
        assert_eq!(answer["type"], "subscribed");
    }
    assert_eq!(ann.next().await["type"], "user_joined");
    let removed = event("room.member_removed", &json!({"user_id": "bob"}));
    rabbit
        .publish("events", "live.room.r.room.member_removed", removed)
        .await;
    let out = bob.next().await;
    let wants = json!({"type": "unsubscribed", "room_id": "r", "reason": "member_removed"});
    assert_eq!(out, wants);
    assert_eq!(ann.next().await["type"], "user_left");
    assert_eq!(ann.next().await["type"], "room.member_removed");
    // The token still says that he may, but is older than the removal.
    let answer = say(&mut bob, json!({"type": "join_room", "room_id": "r"})).await;
    assert_eq!(answer["code"], "forbidden");
    let added = event("room.member_added", &json!({"user_id": "bob"}));
    rabbit
        .publish("events", "live.room.r.room.member_added", added)
        .await;
    assert_eq!(ann.next().await["type"], "room.member_added");
    let answer = say(&mut bob, json!({"type": "join_room", "room_id": "r"})).await;
    assert_eq!(answer["type"], "subscribed");
    notifier.stop().await;
}
