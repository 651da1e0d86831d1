//! Server-Sent Events: the same protocol for clients that only read.

mod coming_back;
mod ends;

use bellhop_notifier::AuthMode;
use bellhop_tests::client::{Client, metric_becomes, unnumbered};
use bellhop_tests::event_stream::{EventStream, listen};
use bellhop_tests::stack::{Stack, http, room_token, token};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

const CONNECTIONS: &str = "bellhop_notifier_connections";

const STREAMS: &str = "bellhop_notifier_event_streams";

fn event(kind: &str, data: &Value) -> (Uuid, String) {
    let id = Uuid::now_v7();
    let body = json!({"type": kind, "id": id, "time": Timestamp::now(), "data": data});
    (id, body.to_string())
}

#[tokio::test]
async fn who_listens_says_who_they_are_and_a_refusal_is_a_status() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.http.allowed_origins = vec!["https://app.example.org".into()];
    let notifier = stack.notifier(config).await;
    let ann = token("ann");
    let by_header = listen(&notifier, "").bearer_auth(&ann);
    let by_query = listen(&notifier, &format!("?token={ann}"));
    for request in [by_header, by_query] {
        let mut stream = EventStream::open(request).await;
        let first = stream.next_event().await.unwrap();
        assert!(first.id.as_ref().unwrap().starts_with("user."));
        assert_eq!(first.name, None);
        let connected = first.json();
        assert_eq!(connected["type"], "connected");
        assert_eq!(connected["user_id"], "ann");
        assert_eq!(stream.retries, [3000]);
    }
    for (query, header, origin, status, code) in [
        ("", None, None, 401, "no_token"),
        ("", Some("nonsense"), None, 401, "invalid_token"),
        ("?token=nonsense", None, None, 401, "invalid_token"),
        ("?room_id=", Some(&*ann), None, 400, "bad_query"),
        (
            "",
            Some(&*ann),
            Some("https://evil.example"),
            403,
            "wrong_origin",
        ),
        ("", None, Some("https://app.example.org"), 401, "no_token"),
    ] {
        let mut request = listen(&notifier, query);
        if let Some(token) = header {
            request = request.bearer_auth(token);
        }
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = request.send().await.unwrap();
        let page = answer.headers().get("access-control-allow-origin").cloned();
        assert_eq!(answer.status(), status, "{query} {header:?} {origin:?}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], code);
        // An allowed page may read why it is refused.
        let allowed = origin.filter(|origin| !origin.contains("evil"));
        assert_eq!(page.as_ref().map(|page| page.to_str().unwrap()), allowed);
    }
    metric_becomes(&notifier, CONNECTIONS, 0).await;
    notifier.stop().await;

    let mut config = stack.notifier_config();
    config.auth.query_token = false;
    let notifier = stack.notifier(config).await;
    let refused = listen(&notifier, &format!("?token={ann}")).send().await;
    let body: Value = refused.unwrap().json().await.unwrap();
    assert_eq!(body["error"]["code"], "query_token_off");
    notifier.stop().await;
}

#[tokio::test]
async fn pages_that_are_allowed_may_listen() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.http.allowed_origins = vec!["https://*.example.org".into()];
    let notifier = stack.notifier(config).await;
    let page = "https://app.example.org";
    let request = listen(&notifier, "").bearer_auth(token("ann"));
    let answer = request.header("origin", page).send().await.unwrap();
    let headers = answer.headers();
    for (name, wants) in [
        ("access-control-allow-origin", page),
        ("vary", "origin"),
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(headers[name], wants, "{name}");
    }
    for (origin, wants) in [(page, true), ("https://evil.example", false)] {
        let asked = http()
            .request(reqwest::Method::OPTIONS, notifier.url("/sse"))
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
            .send()
            .await
            .unwrap();
        assert_eq!(asked.status(), 204);
        let headers = asked.headers();
        assert_eq!(headers.contains_key("access-control-allow-origin"), wants);
        let allowed = headers["access-control-allow-headers"].to_str().unwrap();
        assert!(allowed.contains("authorization") && allowed.contains("last-event-id"));
    }
    drop(answer);
    notifier.stop().await;
}

#[tokio::test]
async fn events_of_the_user_and_the_rooms_come_as_they_were_written() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let token = room_token("ann", &["room:r*", "chat:c"]);
    let query = "?room_id=r1&room_id=secret&chat_id=c&room_id=r2";
    let request = listen(&notifier, query).bearer_auth(token);
    let mut stream = EventStream::open(request).await;
    let connected = stream.next().await;
    assert_eq!(connected["rooms"], json!(["r1", "r2"]));
    assert_eq!(connected["chats"], json!(["c"]));
    // In the order they were asked for.
    assert_eq!(
        unnumbered(stream.next().await),
        json!({"type": "subscribed", "room_id": "r1"})
    );
    let refused = stream.next().await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("forbidden"))
    );
    assert!(refused["message"].as_str().unwrap().contains("room:secret"));
    assert_eq!(
        unnumbered(stream.next().await),
        json!({"type": "subscribed", "chat_id": "c"})
    );
    assert_eq!(
        unnumbered(stream.next().await),
        json!({"type": "subscribed", "room_id": "r2"})
    );

    let (id, body) = event("message.sent", &json!({"content": "Hello!"}));
    rabbit
        .publish("events", "live.chat.c.message.sent", body)
        .await;
    let message = stream.next_event().await.unwrap();
    assert_eq!(message.id, None, "it is not kept");
    assert_eq!(message.name, None, "or `onmessage` would not see it");
    let message = message.json();
    assert_eq!(message["id"], id.to_string());
    assert_eq!(message["type"], "message.new");
    assert_eq!(
        (&message["chat_id"], &message["data"]["content"]),
        (&json!("c"), &json!("Hello!"))
    );

    let others = room_token("bob", &["room:r1"]);
    let mut bob = Client::connect(notifier.address, &others).await;
    bob.send(r#"{"type":"join_room","room_id":"r1"}"#).await;
    let joined = json!({"type": "user_joined", "room_id": "r1", "user_id": "bob"});
    assert_eq!(stream.next().await, joined);
    bob.next_of("subscribed").await;
    bob.send(r#"{"type":"wave","room_id":"r1"}"#).await;
    assert_eq!(stream.next().await["type"], "wave");
    drop(stream);
    let left = json!({"type": "user_left", "room_id": "r1", "user_id": "ann"});
    bob.next_of("wave").await;
    assert_eq!(bob.next().await, left);
    notifier.stop().await;
}

#[tokio::test]
async fn line_breaks_in_an_event_do_not_end_it() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut stream = EventStream::of(&notifier, &token("ann"), "").await;
    // Line breaks between the tokens, and what would be fields of the stream.
    let (id, time) = (Uuid::now_v7(), Timestamp::now());
    let data = "{\r\n  \"id\": 1,\r\"n\":\n1.50,\n\n\"s\": \"id: x\\n\\ndata: y\"}";
    let body = format!(r#"{{"type":"note","id":"{id}","time":"{time}","data":{data}}}"#);
    rabbit.publish("events", "live.user.ann.note", body).await;
    let note = stream.next_event().await.unwrap();
    assert!(note.data.contains("1.50"), "{}", note.data);
    assert_eq!(
        note.json()["data"],
        serde_json::from_str::<Value>(data).unwrap()
    );
    drop(stream);
    notifier.stop().await;
}

#[tokio::test]
async fn the_mode_without_tokens_takes_the_name_from_the_address() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.mode = AuthMode::None;
    let notifier = stack.notifier(config).await;
    let mut stream = EventStream::open(listen(&notifier, "?user_id=ann&room_id=r")).await;
    assert_eq!(stream.next().await["user_id"], "ann");
    assert_eq!(stream.next().await["type"], "subscribed");
    let nobody = listen(&notifier, "").send().await.unwrap();
    assert_eq!(nobody.status(), 400);
    drop(stream);
    notifier.stop().await;
}

#[tokio::test]
async fn who_comes_back_is_told_that_something_may_be_missing() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let ann = room_token("ann", &["room:r"]);
    let last = Uuid::now_v7().to_string();
    let query = format!("?room_id=r&last_event_id={last}");
    let by_header = listen(&notifier, "?room_id=r").header("last-event-id", &last);
    for request in [by_header, listen(&notifier, &query)] {
        let mut stream = EventStream::open(request.bearer_auth(&ann)).await;
        assert_eq!(stream.next().await["type"], "connected");
        let resumed = stream.next().await;
        let wants = (&json!("resumed"), &json!(false));
        assert_eq!((&resumed["type"], &resumed["recovered"]), wants);
        assert_eq!(stream.next().await["type"], "subscribed");
    }
    let fresh = listen(&notifier, "?room_id=r&last_event_id=").bearer_auth(&ann);
    let mut stream = EventStream::open(fresh).await;
    assert_eq!(stream.next().await["type"], "connected");
    assert_eq!(stream.next().await["type"], "subscribed");
    drop(stream);
    notifier.stop().await;
}
