//! Server-Sent Events: the same protocol for clients that only read.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_common::http::{Connection, Limits, serve};
use bellhop_notifier::{Access, AuthMode, NotifierConfig};
use bellhop_tests::client::{Client, metric, metric_becomes};
use bellhop_tests::event_stream::{EventStream, listen};
use bellhop_tests::stack::{PATIENCE, Running, SECRET, Stack, http, room_token, token};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warp::Filter as _;

const CONNECTIONS: &str = "bellhop_notifier_connections";
const STREAMS: &str = "bellhop_notifier_event_streams";

fn event(kind: &str, data: &Value) -> (Uuid, String) {
    let id = Uuid::now_v7();
    let body = json!({"type": kind, "id": id, "time": Timestamp::now(), "data": data});
    (id, body.to_string())
}

/// A stream in bytes, of a client that need not read. Past the head of the answer.
async fn raw(notifier: &Running, query: &str, token: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(notifier.address).await.unwrap();
    let request =
        format!("GET /sse{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        head.push(byte.expect("an answer in time").unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "));
    stream
}

/// How a stream ends that this side does not end.
async fn last_words(stream: &mut EventStream) -> Value {
    let closed = stream.next_of("closed").await;
    assert_eq!(stream.next_event().await, None, "nothing comes after it");
    closed
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
        assert_eq!((first.id.as_ref(), first.name.as_ref()), (None, None));
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
        stream.next().await,
        json!({"type": "subscribed", "room_id": "r1"})
    );
    let refused = stream.next().await;
    assert_eq!(
        (&refused["type"], &refused["code"]),
        (&json!("error"), &json!("forbidden"))
    );
    assert!(refused["message"].as_str().unwrap().contains("room:secret"));
    assert_eq!(
        stream.next().await,
        json!({"type": "subscribed", "chat_id": "c"})
    );
    assert_eq!(
        stream.next().await,
        json!({"type": "subscribed", "room_id": "r2"})
    );

    let (id, body) = event("message.sent", &json!({"content": "Hello!"}));
    rabbit
        .publish("events", "live.chat.c.message.sent", body)
        .await;
    let message = stream.next_event().await.unwrap();
    assert_eq!(message.id, Some(id.to_string()));
    assert_eq!(message.name, None, "or `onmessage` would not see it");
    let message = message.json();
    assert_eq!(message["type"], "message.new");
    assert_eq!(
        (&message["chat_id"], &message["data"]["content"]),
        (&json!("c"), &json!("Hello!"))
    );

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
        let resumed = json!({"type": "resumed", "recovered": false});
        assert_eq!(stream.next().await, resumed);
        assert_eq!(stream.next().await["type"], "subscribed");
    }
    let fresh = listen(&notifier, "?room_id=r&last_event_id=").bearer_auth(&ann);
    let mut stream = EventStream::open(fresh).await;
    assert_eq!(stream.next().await["type"], "connected");
    assert_eq!(stream.next().await["type"], "subscribed");
    drop(stream);
    notifier.stop().await;
}

#[tokio::test]
async fn a_silent_stream_has_a_heartbeat_and_stays() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.ping_interval = HumanDuration(Duration::from_millis(100));
    config.websocket.pong_wait = HumanDuration(Duration::from_millis(250));
    let notifier = stack.notifier(config).await;
    let mut stream = EventStream::of(&notifier, &token("ann"), "").await;
    // Longer than a client may stay silent that can answer.
    for _ in 0..10 {
        stream.comment().await;
    }
    let rabbit = stack.rabbit().await;
    let (_, body) = event("note", &json!(1));
    rabbit.publish("events", "live.user.ann.note", body).await;
    assert_eq!(stream.next().await["type"], "note");
    drop(stream);
    notifier.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_token_after_a_notice() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.leeway = HumanDuration::from_secs(0);
    config.websocket.token_notice = HumanDuration::from_secs(2);
    let notifier = stack.notifier(config).await;
    let claims = json!({"sub": "ann", "exp": Timestamp::now().as_second() + 4});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    let mut stream = EventStream::of(&notifier, &token, "").await;
    let notice = stream.next().await;
    assert_eq!(notice["type"], "token_expiring");
    let wants = json!({"type": "closed", "code": 4502, "reason": "token_expired"});
    assert_eq!(last_words(&mut stream).await, wants);
    // A client that comes back by itself would come in vain.
    assert_eq!(stream.retries, [3000, 3_600_000]);
    metric_becomes(&notifier, STREAMS, 0).await;
    notifier.stop().await;
}

#[tokio::test]
async fn the_oldest_of_too_many_is_replaced_whatever_it_is() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.connections_per_user = 1;
    let notifier = stack.notifier(config).await;
    let mut first = EventStream::of(&notifier, &token("ann"), "").await;
    let mut second = stack.client(&notifier, "ann").await;
    let wants = json!({"type": "closed", "code": 4500, "reason": "replaced"});
    assert_eq!(last_words(&mut first).await, wants);
    let third = EventStream::of(&notifier, &token("ann"), "").await;
    assert_eq!(second.closed().await, Some((4500, "replaced".into())));
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    assert_eq!(metric(&notifier, STREAMS).await, 1);
    drop(third);
    notifier.stop().await;
}

#[tokio::test]
async fn a_stopping_instance_sends_its_listeners_elsewhere() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.drain_window = HumanDuration(Duration::from_millis(300));
    let notifier = stack.notifier(config).await;
    let mut stream = EventStream::of(&notifier, &token("ann"), "").await;
    notifier.begin_stop();
    let reconnect = stream.next().await;
    assert_eq!(reconnect["type"], "reconnect");
    assert!(reconnect["after_ms"].as_u64().unwrap() <= 300);
    let refused = listen(&notifier, "").bearer_auth(token("bob")).send();
    assert_eq!(refused.await.unwrap().status(), 503);
    let wants = json!({"type": "closed", "code": 1012, "reason": "restart"});
    assert_eq!(last_words(&mut stream).await, wants);
    assert_eq!(stream.retries, [3000]);
    notifier.stop().await;
}

#[tokio::test]
async fn a_listener_that_does_not_read_is_closed_and_holds_nothing_up() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.queue_size.0 = 64 * 1024;
    config.websocket.write_wait = HumanDuration(Duration::from_millis(300));
    let notifier = stack.notifier(config).await;
    let lazy = raw(&notifier, "", &token("ann")).await;
    let mut eager = EventStream::of(&notifier, &token("bob"), "").await;
    let rabbit = stack.rabbit().await;
    let filling = async {
        let big = "x".repeat(100 * 1024);
        // As many as the system's own buffers take, and more.
        for _ in 0..100 {
            let (_, body) = event("note", &json!(big));
            rabbit.publish("events", "live.user.ann.note", body).await;
        }
        let (_, body) = event("note", &json!("last"));
        rabbit.publish("events", "live.user.bob.note", body).await;
    };
    let ((), note) = tokio::join!(filling, eager.next());
    assert_eq!(note["data"], "last");
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    let closes = "bellhop_notifier_closes_total{reason=\"slow_consumer\"}";
    assert_eq!(metric(&notifier, closes).await, 1);
    drop((lazy, eager));
    notifier.stop().await;
}

#[tokio::test]
async fn listeners_that_vanish_leave_nothing_behind() {
    const LISTENERS: usize = 200;
    let stack = Stack::shared();
    let configure = |config: &mut NotifierConfig| {
        config.rooms.access = Access::Open;
        config.websocket.connections = LISTENERS + 1;
        config.websocket.connections_per_user = LISTENERS;
        // What is seen of them is seen at once, not at the next heartbeat.
        config.websocket.ping_interval = HumanDuration::from_secs(600);
        config.websocket.pong_wait = HumanDuration::from_secs(1200);
    };
    let mut config = stack.notifier_config();
    configure(&mut config);
    let notifier = stack.notifier(config).await;
    let mut watcher = stack.client(&notifier, "watcher").await;
    watcher.send(r#"{"type":"join_room","room_id":"r"}"#).await;
    watcher.next_of("subscribed").await;
    // Twice: the places of the first are free again.
    for _ in 0..2 {
        let mut listeners = Vec::new();
        for n in 0..LISTENERS {
            let ann = token(&format!("u{n}"));
            listeners.push(raw(&notifier, "?room_id=r", &ann).await);
        }
        let one_more = listen(&notifier, "").bearer_auth(token("x")).send().await;
        assert_eq!(one_more.unwrap().status(), 503);
        assert_eq!(metric(&notifier, STREAMS).await, LISTENERS as u64);
        drop(listeners);
        metric_becomes(&notifier, STREAMS, 0).await;
        metric_becomes(&notifier, CONNECTIONS, 1).await;
        let question = r#"{"type":"presence","room_id":"r","id":1}"#;
        watcher.send(question).await;
        let presence = watcher.next_of("presence").await;
        assert_eq!(presence["users"], json!(["watcher"]));
    }
    notifier.stop().await;
}

/// Answers that do not end have no place among the requests, and a client that does not take the
/// end of one is not waited for.
#[tokio::test]
async fn endless_answers_do_not_count_as_requests() {
    let (ends, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let endless = warp::path!("endless")
        .and(warp::ext::get::<Connection>())
        .map(move |connection: Connection| {
            ends.send(connection.endless()).unwrap();
            let forever = futures_util::stream::pending::<Result<String, std::io::Error>>();
            warp::reply::stream(forever)
        });
    let routes = endless.or(warp::path!("short").map(|| "done"));
    let routes = routes.recover(bellhop_common::http::not_found);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let limits = Limits {
        max_connections: 2,
        ..Limits::default()
    };
    let serving = tokio::spawn(serve(listener, routes, limits, stop.clone()));
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let byte = timeout(PATIENCE, stream.read_u8()).await;
        assert_eq!(byte.expect("an answer in time").unwrap(), b'H');
        open.push(stream);
    }
    let short = http().get(format!("http://{address}/short")).send().await;
    assert_eq!(short.unwrap().text().await.unwrap(), "done");
    // The answer is over, but its stream is not: the connection ends all the same.
    drop(kept.recv().await);
    let mut rest = Vec::new();
    let first = open.first_mut().unwrap();
    let ended = timeout(PATIENCE, first.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection ends");
    drop(open);
    stop.cancel();
    timeout(PATIENCE, serving).await.unwrap().unwrap();
}
