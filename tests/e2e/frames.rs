//! What happens to each frame a client may send, and to those it may not.

mod malformed;

use std::time::{Duration, Instant};

use bellhop_tests::client::{Client, Raw, masked, metric_becomes};
use bellhop_tests::stack::{Running, Stack, token};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const LIMIT: usize = 64 * 1024;
const CONNECTIONS: &str = "bellhop_notifier_connections";

async fn notifier() -> (Stack, Running) {
    let stack = Stack::shared();
    let notifier = stack.start_notifier(stack.notifier_config()).await;
    (stack, notifier)
}

/// A ping whose id makes it exactly that long.
fn ping_of(length: usize) -> String {
    let frame = |more: &str| format!(r#"{{"type":"ping","more":"{more}"}}"#);
    frame(&"x".repeat(length - frame("").len()))
}

#[tokio::test]
async fn a_ping_is_answered_with_its_id() {
    let (stack, notifier) = notifier().await;
    let mut ann = stack.client(&notifier, "ann").await;
    for id in [json!("a"), json!(7), json!(null), json!({"n": [1, 2]})] {
        let frame = json!({"type": "ping", "id": id, "more": true});
        ann.send(&frame.to_string()).await;
        let answer = ann.next().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("pong"), &id));
    }
    ann.send(r#"{"type":"ping"}"#).await;
    assert_eq!(ann.next().await, json!({"type": "pong"}));
    notifier.stop().await;
}

#[tokio::test]
async fn a_wrong_frame_gets_an_error_and_the_connection_goes_on() {
    let (stack, notifier) = notifier().await;
    let mut ann = stack.client(&notifier, "ann").await;
    let deep = "[".repeat(60_000);
    for (text, code, id) in [
        ("hello", "bad_frame", Value::Null),
        ("", "bad_frame", Value::Null),
        ("[1]", "bad_frame", Value::Null),
        ("{}", "bad_frame", Value::Null),
        (r#"{"type":5}"#, "bad_frame", Value::Null),
        (&deep, "bad_frame", Value::Null),
        (r#"{"type":"dance","id":"x"}"#, "no_room", json!("x")),
        (r#"{"type":"auth","id":2}"#, "missing_field", json!(2)),
    ] {
        ann.send(text).await;
        let error = ann.next().await;
        assert_eq!(error["type"], "error");
        assert_eq!((&error["code"], &error["id"]), (&json!(code), &id));
        assert!(error["message"].as_str().unwrap().len() > 10, "{error}");
        ann.send(r#"{"type":"ping","id":"still"}"#).await;
        assert_eq!(ann.next().await["id"], "still");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_binary_message_is_refused() {
    let (stack, notifier) = notifier().await;
    let mut ann = stack.client(&notifier, "ann").await;
    ann.send_message(Message::binary(b"{}".to_vec())).await;
    assert_eq!(ann.closed().await, Some((1003, "text_only".into())));
    notifier.stop().await;
}

#[tokio::test]
async fn a_message_up_to_the_limit_is_read_and_a_larger_one_refused() {
    let (stack, notifier) = notifier().await;
    let mut ann = stack.client(&notifier, "ann").await;
    ann.send(&ping_of(LIMIT)).await;
    assert_eq!(ann.next().await["type"], "pong");
    let too_big = Some((1009, "message_too_big".to_owned()));
    ann.send(&ping_of(LIMIT + 1)).await;
    assert_eq!(ann.closed().await, too_big);

    // In fragments, each of which would be small enough.
    let mut ann = Raw::connect(notifier.address, &token("ann")).await;
    let half = vec![b'x'; LIMIT / 2 + 1];
    ann.send(&masked(0x01, &half)).await;
    ann.send(&masked(0x80, &half)).await;
    assert_eq!(ann.closed().await, too_big);

    // The whole of it is under way before the client looks for an answer.
    let mut ann = Raw::connect(notifier.address, &token("ann")).await;
    ann.send(&masked(0x81, &vec![b'x'; 1024 * 1024])).await;
    assert_eq!(ann.closed().await, too_big);
    notifier.stop().await;
}

#[tokio::test]
async fn fragments_are_put_together_and_pings_between_them_answered() {
    let (_stack, notifier) = notifier().await;
    let mut ann = Raw::connect(notifier.address, &token("ann")).await;
    ann.send(&masked(0x01, br#"{"type":"pi"#)).await;
    ann.send(&masked(0x89, b"are you there?")).await;
    assert_eq!(
        ann.frame().await,
        Some((10, b"are you there?".to_vec())),
        "answered although nothing else is written"
    );
    ann.send(&masked(0x00, b"ng\",\"id\"")).await;
    ann.send(&masked(0x80, b":1}")).await;
    let (opcode, pong) = ann.frame().await.unwrap();
    let pong: Value = serde_json::from_slice(&pong).unwrap();
    assert_eq!((opcode, pong), (1, json!({"type": "pong", "id": 1})));

    // Byte by byte, as the worst network would.
    for byte in masked(0x81, br#"{"type":"ping","id":2}"#) {
        ann.send(&[byte]).await;
    }
    let (_, pong) = ann.frame().await.unwrap();
    assert!(String::from_utf8(pong).unwrap().contains('2'));
    notifier.stop().await;
}

#[tokio::test]
async fn a_goodbye_is_answered() {
    let (stack, notifier) = notifier().await;
    let mut ann: Client = stack.client(&notifier, "ann").await;
    let goodbye = CloseFrame {
        code: 1000.into(),
        reason: "done".into(),
    };
    ann.send_message(Message::Close(Some(goodbye))).await;
    let answer = ann.closed().await.map(|(code, _)| code);
    assert_eq!(answer, Some(1000));
    metric_becomes(&notifier, CONNECTIONS, 0).await;
    notifier.stop().await;
}

/// A client waits for the server to end the TCP connection (RFC 6455, 7.1.1); a browser tells its
/// page only then.
#[tokio::test]
async fn after_our_goodbye_the_socket_ends_at_once() {
    let (_stack, notifier) = notifier().await;
    let mut ann = Raw::connect(notifier.address, &token("ann")).await;
    ann.send(&masked(0x82, b"x")).await;
    assert_eq!(ann.closed().await, Some((1003, "text_only".into())));
    let closed = Instant::now();
    assert_eq!(ann.frame().await, None);
    assert!(closed.elapsed() < Duration::from_secs(1));
    notifier.stop().await;
}
