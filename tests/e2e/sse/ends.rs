//! How streams go on, and how they end.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_common::http::{Connection, Limits, serve};
use bellhop_notifier::{Access, NotifierConfig};
use bellhop_tests::client::{metric, metric_becomes};
use bellhop_tests::event_stream::{EventStream, listen};
use bellhop_tests::stack::{PATIENCE, Running, SECRET, Stack, http, token};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use warp::Filter as _;

use super::{CONNECTIONS, STREAMS, event};

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
    let (ends, mut kept) = tokio::sync::mpsc::channel(5);
    let endless = warp::path!("endless")
        .and(warp::ext::get::<Connection>())
        .map(move |connection: Connection| {
            ends.try_send(connection.endless()).unwrap();
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
