//! How many rooms, how often, how many frames; and rooms by address.

use bellhop_notifier::Access;
use bellhop_tests::client::{Client, Raw, masked, request, unnumbered};
use bellhop_tests::stack::{Stack, room_token};
use serde_json::{Value, json};

use super::{event, member, say};

fn join(room: &str) -> Value {
    json!({"type": "join_room", "room_id": room, "id": room})
}

#[tokio::test]
async fn rooms_by_address_are_entered_in_order_and_refused_ones_named() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let token = room_token("ann", &["room:a*", "chat:c"]);
    let path = "/ws?room_id=a1&room_id=secret&chat_id=c&room_id=a%202&chat_id=a1";
    let bearer = format!("Bearer {token}");
    let request = request(notifier.address, path, &[("authorization", &bearer)]);
    let mut ann = Client::open(request).await.unwrap().0;
    let connected = ann.next().await;
    assert_eq!(connected["rooms"], json!(["a1", "a 2"]));
    assert_eq!(connected["chats"], json!(["c"]));
    for (field, id, wants) in [
        ("room_id", "a1", "subscribed"),
        ("room_id", "secret", "forbidden"),
        ("chat_id", "c", "subscribed"),
        ("room_id", "a 2", "subscribed"),
        ("chat_id", "a1", "forbidden"),
    ] {
        let frame = ann.next().await;
        if wants == "subscribed" {
            assert_eq!(unnumbered(frame), json!({"type": "subscribed", field: id}));
        } else {
            assert_eq!(frame["code"], wants);
            let message = frame["message"].as_str().unwrap();
            assert!(message.contains(id), "{message}");
        }
    }
    notifier.stop().await;
}

#[tokio::test]
async fn an_address_with_rooms_that_cannot_be_is_refused() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let (long, many) = ("x".repeat(129), "&room_id=r".repeat(21));
    for query in [
        "room_id=".to_owned(),
        format!("chat_id={long}"),
        format!("x=y{many}"),
    ] {
        let path = format!("/ws?{query}");
        let (status, body, _) = crate::handshake::refused(&notifier, &path, &[]).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_connection_may_be_in_so_many_rooms_and_no_more() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.rooms.per_connection = 2;
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = member(&notifier, "ann", &[]).await;
    assert_eq!(say(&mut ann, join("1")).await["type"], "subscribed");
    assert_eq!(say(&mut ann, join("2")).await["type"], "subscribed");
    let full = say(&mut ann, join("3")).await;
    assert_eq!(
        (&full["code"], &full["id"]),
        (&json!("too_many_rooms"), &json!("3"))
    );
    assert_eq!(
        say(&mut ann, join("2")).await["type"],
        "subscribed",
        "is in"
    );
    let leave = json!({"type": "leave_room", "room_id": "1"});
    assert_eq!(say(&mut ann, leave).await["type"], "unsubscribed");
    assert_eq!(say(&mut ann, join("3")).await["type"], "subscribed");
    // Where she was taken out counts no more.
    let removed = event("room.member_removed", &json!({"user_id": "ann"}));
    let key = "live.room.2.room.member_removed";
    rabbit.publish("events", key, removed).await;
    assert_eq!(ann.next().await["reason"], "member_removed");
    assert_eq!(say(&mut ann, join("4")).await["type"], "subscribed");
    assert_eq!(say(&mut ann, join("5")).await["code"], "too_many_rooms");

    // By address just so many are said to be entered as are.
    let bearer = format!("Bearer {}", room_token("bob", &[]));
    let path = "/ws?room_id=1&room_id=2&room_id=3";
    let request = request(notifier.address, path, &[("authorization", &bearer)]);
    let mut bob = Client::open(request).await.unwrap().0;
    assert_eq!(bob.next().await["rooms"], json!(["1", "2"]));
    for wants in ["subscribed", "subscribed", "error"] {
        assert_eq!(bob.next().await["type"], wants);
    }
    notifier.stop().await;
}

#[tokio::test]
async fn rooms_are_entered_so_often_and_no_more() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.rooms.entries_per_second = 1;
    let notifier = stack.notifier(config).await;
    let mut ann = member(&notifier, "ann", &[]).await;
    let (mut entered, mut refused) = (0, 0);
    for n in 0..30 {
        ann.send(&join(&n.to_string()).to_string()).await;
    }
    for n in 0..30 {
        let answer = ann.next().await;
        assert_eq!(answer["id"], n.to_string());
        match answer["code"].as_str() {
            None => entered += 1,
            Some(code) => {
                assert_eq!(code, "too_many_entries");
                refused += 1;
            }
        }
    }
    // Ten at once, and what a slow run adds.
    assert!(
        (10..20).contains(&entered) && refused >= 10,
        "{entered}, {refused}"
    );
    // It is the entries that are limited, nothing else, and not for ever.
    assert_eq!(say(&mut ann, json!({"type": "ping"})).await["type"], "pong");
    let leave = json!({"type": "leave_room", "room_id": "0"});
    assert_eq!(say(&mut ann, leave).await["type"], "unsubscribed");
    while say(&mut ann, join("0")).await["type"] != "subscribed" {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    notifier.stop().await;
}

#[tokio::test]
async fn frames_over_the_rate_are_left_out_and_who_goes_on_is_closed() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.frames_per_second = 1;
    let notifier = stack.notifier(config).await;
    let token = room_token("ann", &[]);
    // One that sees it and stops has its budget back soon.
    let mut patient = Client::connect(notifier.address, &token).await;
    patient.next_of("connected").await;
    let ping = |id: u32| format!(r#"{{"type":"ping","id":{id}}}"#);
    let mut pongs = 0;
    let refused = loop {
        patient.send(&ping(pongs)).await;
        let answer = patient.next().await;
        if answer["type"] == "error" {
            break answer;
        }
        assert_eq!(answer["id"], pongs);
        pongs += 1;
    };
    assert!((10..100).contains(&pongs), "{pongs}");
    assert_eq!(
        (&refused["code"], &refused["id"]),
        (&json!("rate_limited"), &Value::Null)
    );
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        patient.send(&ping(1)).await;
        if patient.next().await["type"] == "pong" {
            break;
        }
    }
    // One that does not care, with what is no frame at all.
    for text in [&*ping(7), "nonsense"] {
        let mut flood = Raw::connect(notifier.address, &token).await;
        flood.send(&masked(0x81, text.as_bytes()).repeat(400)).await;
        let closed = flood.closed().await;
        assert_eq!(closed, Some((4002, "rate_limited".into())));
    }
    notifier.stop().await;
}
