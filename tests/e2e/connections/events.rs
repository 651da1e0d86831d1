//! From the exchange to the sockets: addresses, names, and what is malformed.

use bellhop_tests::client::{metric, metric_becomes};
use bellhop_tests::stack::Stack;
use serde_json::{Value, json};

use super::event;

const MALFORMED: &str = "bellhop_notifier_malformed_events_total";

#[tokio::test]
async fn users_with_odd_ids_get_their_events() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    for (user, word) in [
        ("ann.b@example.org", "ann%2Eb@example%2Eorg"),
        ("#", "%23"),
        ("*", "%2a"),
        ("50%", "50%25"),
        ("a b/c", "a b/c"),
        ("Łucja 漢字 🚀", "Łucja 漢字 🚀"),
        ("null", "null"),
    ] {
        let mut client = stack.client(&notifier, user).await;
        let key = format!("live.user.{word}.note");
        let body = event("note", &json!(user));
        rabbit.publish("events", &key, body).await;
        assert_eq!(client.next().await["data"], user);
    }
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_for_all_reaches_all_and_what_is_for_a_room_or_team_nobody_yet() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    let rabbit = stack.rabbit().await;
    for key in [
        "live.room.ann.note",
        "live.chat.ann.note",
        "live.team.ann.note",
        "live.user.eve.note",
        "live.user.all.note",
    ] {
        let body = event("note", &json!(key));
        rabbit.publish("events", key, body).await;
    }
    let body = event("note", &json!("for all"));
    rabbit.publish("events", "live.all.all.note", body).await;
    for client in [&mut ann, &mut bob] {
        // The first frame of each: events come in the order of their publishing.
        assert_eq!(client.next().await["data"], "for all");
    }
    assert_eq!(metric(&notifier, MALFORMED).await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn an_event_gets_the_name_that_clients_know_and_keeps_all_else() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    for (kind, name) in [
        ("message.sent", "message.new"),
        ("notification.created", "notification.new"),
        ("task.status_changed", "task.updated"),
        ("chat.updated", "chat.updated"),
        ("order.shipped", "order.shipped"),
    ] {
        let rest = r#""id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":{"big":12345678901234567890123,"f":1.10,"e":1E+2,"text":"\u00e9","status":"running","list":[null, true]},"later":{"x":1e400},"title":"Hi""#;
        let body = format!(r#"{{"type":"{kind}",{rest}}}"#);
        let key = format!("live.user.ann.{kind}");
        rabbit.publish("events", &key, body).await;
        let wants = format!(r#"{{"type":"{name}",{rest}}}"#);
        assert_eq!(ann.next_text().await, wants);
    }
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_malformed_is_counted_and_holds_nothing_up() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let good = event("note", &json!(1));
    let keys = [
        "live",
        "live.user.ann",
        "live.user..note",
        "live.user.ann.",
        "live.user.ann..note",
        "live.user.%zz.note",
        "live.user.%ff.note",
        "live.planet.mars.note",
        "live.all.ann.note",
        "stored.planet.mars.note",
        "stored.user.ann",
    ];
    for key in keys {
        rabbit.publish("events", key, &good).await;
    }
    let no_time = r#"{"type":"note","id":"0197f0a0-0000-7000-8000-000000000001","data":1}"#;
    let bodies: [&[u8]; 8] = [
        b"",
        b"not json",
        b"[1]",
        b"{}",
        no_time.as_bytes(),
        br#"{"type":5,"id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":1}"#,
        br#"{"type":"note","id":"7","time":"2026-01-15T10:30:00Z","data":1}"#,
        b"\xff\xfe",
    ];
    for body in bodies {
        rabbit.publish("events", "live.user.ann.note", body).await;
    }
    // What is stored comes by another queue: let it be through before.
    let malformed = (keys.len() + bodies.len()) as u64;
    metric_becomes(&notifier, MALFORMED, malformed).await;
    rabbit.publish("events", "live.user.ann.note", &good).await;
    assert_eq!(ann.next().await["data"], 1);
    let stored = event("note", &json!(2));
    rabbit
        .publish("events", "stored.user.ann.note", stored)
        .await;
    assert_eq!(ann.next().await["data"], 2);
    assert_eq!(metric(&notifier, MALFORMED).await, malformed);
    notifier.stop().await;
    assert_eq!(rabbit.ready("inbox").await, 0);
}

#[tokio::test]
async fn a_stored_event_arrives_once_with_its_id() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    for n in 0..20 {
        let body = event("note", &json!(n));
        let key = "stored.user.ann.note";
        rabbit.publish("events", key, &body).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let mut shown = ann.next().await;
        for number in ["audience", "epoch", "seq", "unread"] {
            assert!(shown.as_object_mut().unwrap().remove(number).is_some());
        }
        assert_eq!(shown, body);
    }
    notifier.stop().await;
    assert_eq!(rabbit.ready("inbox").await, 0);
}
