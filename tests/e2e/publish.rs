//! Backends without AMQP: `POST /api/events`.

use std::time::Duration;

use bellhop_tests::broker::free_port;
use bellhop_tests::client::{Client, metric};
use bellhop_tests::stack::{Running, Stack, admin_token, http, room_token, scoped_token, token};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

const SENT: &str = "bellhop_notifier_published_events_total{outcome=\"sent\"}";

fn post(notifier: &Running, body: &Value) -> RequestBuilder {
    let request = http().post(notifier.url("/api/events"));
    request.body(body.to_string())
}

/// Status and body of the answer.
async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn note(user: &str, data: &Value) -> Value {
    json!({"to": {"user": user}, "type": "note", "data": data})
}

async fn enter(client: &mut Client, place: Value) {
    let mut frame = place;
    frame["type"] = json!("subscribe");
    client.send(&frame.to_string()).await;
    client.next_of("subscribed").await;
}

#[tokio::test]
async fn only_publishers_and_administrators_publish() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.administrators = vec!["root".into()];
    let notifier = stack.notifier(config).await;
    let body = note("ann", &json!(1));
    let (status, refused) = answer(post(&notifier, &body)).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (401, &json!("no_token"))
    );
    for (token, wants) in [
        (token("ann"), 403),
        (scoped_token("ann", "republish publisher"), 403),
        (scoped_token("shop", "mail publish"), 202),
        (admin_token("boss"), 202),
        (token("root"), 202),
    ] {
        let (status, body) = answer(post(&notifier, &body).bearer_auth(token)).await;
        assert_eq!(status, wants, "{body}");
        if status == 403 {
            assert_eq!(body["error"]["code"], "not_publisher");
        }
    }
    notifier.stop().await;
}

#[tokio::test]
async fn events_reach_users_rooms_chats_and_all() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let shop = scoped_token("shop", "publish");
    let member = room_token("ann", &["*"]);
    let mut ann = Client::connect(notifier.address, &member).await;
    ann.next_of("connected").await;
    for place in [json!({"room_id": "r.1"}), json!({"chat_id": "c"})] {
        enter(&mut ann, place).await;
    }
    let given = "0197f0a0-0000-7000-8000-000000000001";
    let time = "2026-01-15T10:30:00Z";
    for (event, name, place) in [
        (
            json!({"to": {"room": "r.1"}, "type": "lights", "data": {"on": true}}),
            "lights",
            Some(("room_id", "r.1")),
        ),
        (
            json!({"to": {"chat": "c"}, "type": "message.sent", "data": 1, "topic": "urgent"}),
            "message.new",
            Some(("chat_id", "c")),
        ),
        (
            json!({"to": "all", "type": "notice", "data": []}),
            "notice",
            None,
        ),
        (
            json!({"to": {"user": "ann"}, "type": "note", "data": null, "id": given, "time": time}),
            "note",
            None,
        ),
        (
            json!({"to": {"user": "ann"}, "type": "note", "data": 7, "stored": true}),
            "note",
            None,
        ),
    ] {
        let (status, body) = answer(post(&notifier, &event).bearer_auth(&shop)).await;
        assert_eq!(status, 202, "{body}");
        let frame = ann.next().await;
        assert_eq!(
            (&frame["type"], &frame["data"]),
            (&json!(name), &event["data"])
        );
        assert_eq!(body["ids"], json!([frame["id"]]));
        if let Some((field, id)) = place {
            assert_eq!(frame[field], id);
        }
        if event["id"] == given {
            assert_eq!(
                (&frame["id"], &frame["time"]),
                (&json!(given), &json!(time))
            );
        }
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_list_goes_out_in_its_order_for_each_recipient() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let shop = scoped_token("shop", "publish");
    let mut ann = stack.client(&notifier, "ann").await;
    let list: Vec<Value> = (0..100)
        .map(|n| note(["ann", "bob"][n % 2], &json!(n)))
        .collect();
    let (status, body) = answer(post(&notifier, &json!(list)).bearer_auth(&shop)).await;
    assert_eq!((status, body["ids"].as_array().unwrap().len()), (202, 100));
    for n in (0..100).step_by(2) {
        let frame = ann.next().await;
        assert_eq!((&frame["data"], &frame["id"]), (&json!(n), &body["ids"][n]));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_repeated_request_is_published_once() {
    let stack = Stack::shared();
    let config = |name: &str| {
        let mut config = stack.shared_config();
        config.instance = Some(name.into());
        config
    };
    let notifier = stack.notifier(config("one")).await;
    let other = stack.notifier(config("two")).await;
    let shop = scoped_token("shop", "publish");
    let mut ann = stack.client(&notifier, "ann").await;
    let body = json!([note("ann", &json!(1)), note("ann", &json!(2))]);
    let with_key = |notifier: &Running, body: &Value, token: &str, key: &str| {
        let request = post(notifier, body).bearer_auth(token);
        request.header("idempotency-key", key)
    };
    let (status, first) = answer(with_key(&notifier, &body, &shop, "order-7")).await;
    assert_eq!(status, 202);
    assert_eq!(ann.next().await["id"], first["ids"][0]);
    assert_eq!(ann.next().await["id"], first["ids"][1]);
    assert_eq!(
        answer(with_key(&notifier, &body, &shop, "order-7")).await,
        (202, first.clone())
    );
    let different = note("ann", &json!(3));
    let (status, refused) = answer(with_key(&notifier, &different, &shop, "order-7")).await;
    assert_eq!(
        (status, &refused["error"]["code"]),
        (422, &json!("key_reused"))
    );
    // Another publisher, or another key, is another request.
    let mail = scoped_token("mail", "publish");
    for (token, key) in [(&mail, "order-7"), (&shop, "order-8")] {
        let (status, body) = answer(with_key(&notifier, &different, token, key)).await;
        assert_eq!(status, 202);
        let frame = ann.next().await;
        assert_eq!((&frame["data"], &frame["id"]), (&json!(3), &body["ids"][0]));
    }
    // Another instance does not know the request, but makes the same ids of it.
    let (status, again) = answer(with_key(&other, &body, &shop, "order-7")).await;
    assert_eq!((status, again), (202, first.clone()));
    assert_eq!(ann.next().await["id"], first["ids"][0]);
    assert_eq!(ann.next().await["id"], first["ids"][1]);
    for key in [String::new(), "k".repeat(256)] {
        let (status, refused) = answer(with_key(&notifier, &body, &shop, &key)).await;
        assert_eq!(
            (status, &refused["error"]["code"]),
            (400, &json!("bad_header"))
        );
    }
    other.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_published() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let shop = scoped_token("shop", "publish");
    let before = metric(&notifier, SENT).await;
    let good = note("ann", &json!(1));
    let large = note("ann", &json!("x".repeat(256 * 1024)));
    for (body, status, code, says) in [
        (
            json!([good, {"to": "all", "type": "x"}]),
            400,
            "bad_event",
            "event 1: `data`",
        ),
        (
            json!({"to": "all", "type": "#", "data": 1}),
            400,
            "bad_event",
            "`type`",
        ),
        (json!([]), 400, "bad_event", "1 to 100"),
        (json!(vec![good; 101]), 400, "bad_event", "101"),
        (large, 413, "too_large", "too large"),
    ] {
        // A refused request does not use its key up.
        let request = post(&notifier, &body).bearer_auth(&shop);
        let (found, body) = answer(request.header("idempotency-key", "k")).await;
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} in {message}");
    }
    let request = http().post(notifier.url("/api/events")).bearer_auth(&shop);
    let (status, body) = answer(request.body("{oops")).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_json")));
    assert_eq!(metric(&notifier, SENT).await, before);
    let request = http().get(notifier.url("/api/events")).bearer_auth(&shop);
    assert_eq!(answer(request).await.0, 405);
    notifier.stop().await;
}

#[tokio::test]
async fn while_the_broker_is_away_a_key_is_in_progress_and_then_free_again() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.amqp.url = bellhop_common::config::AmqpUrl::new(format!(
        "amqp://guest:guest@127.0.0.1:{}/%2f",
        free_port()
    ));
    config.amqp.publish_timeout.0 = Duration::from_secs(3);
    config.auth.revocations_wait.0 = Duration::ZERO;
    let notifier = stack.start_notifier(config).await;
    let shop = scoped_token("shop", "publish");
    let body = note("ann", &json!(1));
    let request = || {
        let request = post(&notifier, &body).bearer_auth(&shop);
        request.header("idempotency-key", "k")
    };
    let first = tokio::spawn(answer(request()));
    // One of the two is first; the other is told so at once.
    let second = answer(request()).await;
    let mut answers = [first.await.unwrap(), second];
    answers.sort_by_key(|(status, _)| *status);
    let codes = answers.map(|(status, body)| (status, body["error"]["code"].clone()));
    assert_eq!(
        codes,
        [
            (409, json!("in_progress")),
            (503, json!("broker_unavailable"))
        ]
    );
    // It was not done, so that it may be tried again.
    assert_eq!(answer(request()).await.0, 503);
    notifier.stop().await;
}
