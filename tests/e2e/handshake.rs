//! How a client comes in: where its token may stand, who is refused, and what each is told.

use std::time::Duration;

use bellhop_common::config::{HumanDuration, Secret};
use bellhop_notifier::auth::{Draft, mint};
use bellhop_notifier::{AuthConfig, AuthMode};
use bellhop_tests::client::{Client, Raw, masked, request};
use bellhop_tests::stack::{Running, SECRET, Stack, http, token};
use jiff::Timestamp;
use serde_json::{Value, json};

const TEN_MINUTES: Duration = Duration::from_mins(10);

/// `{"alg":"none"}` and `{"sub":"ann","exp":4000000000}`, without a signature.
const UNSIGNED: &str = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjQwMDAwMDAwMDB9.";

fn auth_frame(token: &str) -> String {
    json!({"type": "auth", "token": token, "id": 1}).to_string()
}

/// Opens a socket; the handshake must be accepted.
async fn open(notifier: &Running, path: &str, headers: &[(&'static str, &str)]) -> Client {
    let opened = Client::open(request(notifier.address, path, headers)).await;
    opened.expect("the handshake is accepted").0
}

/// Sends a handshake that must be refused; answers with status, body and headers.
pub(crate) async fn refused(
    notifier: &Running,
    path: &str,
    headers: &[(&'static str, &str)],
) -> (u16, Value, String) {
    let mut all = warp::http::HeaderMap::new();
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value) in handshake.iter().chain(headers) {
        all.insert(*name, value.parse().unwrap());
    }
    let asked = http().get(notifier.url(path)).headers(all).send().await;
    let answer = asked.unwrap();
    let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
    let body: Value = answer.json().await.expect("the refusal is JSON");
    assert!(body["error"]["message"].as_str().unwrap().len() > 10);
    (status, body, headers)
}

#[tokio::test]
async fn a_token_is_taken_from_header_subprotocol_query_and_first_frame() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let ann = token("ann");
    let offer = format!("bellhop.v1, bearer.{ann}");
    let path = format!("/ws?token={ann}");
    for (path, headers) in [
        ("/ws", vec![("authorization", format!("Bearer {ann}"))]),
        ("/ws", vec![("sec-websocket-protocol", offer)]),
        (&path, vec![]),
        ("/ws", vec![]),
    ] {
        let headers: Vec<_> = headers.iter().map(|(n, value)| (*n, &**value)).collect();
        let request = request(notifier.address, path, &headers);
        let (mut client, answer) = Client::open(request).await.unwrap();
        let chosen = answer.headers().get("sec-websocket-protocol");
        let offered = headers.iter().any(|(name, _)| name.contains("protocol"));
        assert_eq!(chosen.is_some(), offered);
        assert!(chosen.is_none_or(|chosen| chosen == "bellhop.v1"));
        assert!(!format!("{answer:?}").contains(&ann), "the token came back");
        if headers.is_empty() && path == "/ws" {
            client.send(&auth_frame(&ann)).await;
        }
        let connected = client.next().await;
        assert_eq!(connected["type"], "connected");
        assert_eq!(connected["user_id"], "ann");
        assert_eq!(connected["instance"], "test");
        assert_eq!(connected["ping_interval_ms"], 30_000);
        let time: Timestamp = connected["server_time"].as_str().unwrap().parse().unwrap();
        let off = Timestamp::now().duration_since(time).abs();
        assert!(off.as_secs() < 60, "{time}");
    }
    // A list may stand in several lines (RFC 9110, 5.3).
    let lines =
        format!("Sec-WebSocket-Protocol: bellhop.v1\r\nSec-WebSocket-Protocol: bearer.{ann}\r\n");
    let (mut raw, head) = Raw::open(notifier.address, &lines, &[]).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let connected = String::from_utf8(raw.frame().await.unwrap().1).unwrap();
    assert!(connected.contains("connected"), "{connected}");
    notifier.stop().await;
}

/// Tokens that must be refused, with the code for programs and the one for browsers.
fn bad_tokens(auth: &AuthConfig) -> Vec<(String, &'static str, u16)> {
    let now = Timestamp::now();
    let mint = |auth: &AuthConfig, now| mint(auth, &Draft::new("ann", now, TEN_MINUTES)).unwrap();
    let stranger = AuthConfig {
        secret: Some(Secret::new("z".repeat(64))),
        ..auth.clone()
    };
    // The same secret, another algorithm.
    let hs512 = AuthConfig {
        algorithm: serde_json::from_value(json!("HS512")).unwrap(),
        ..auth.clone()
    };
    let mut cut = mint(auth, now);
    cut.truncate(cut.len() - 5);
    let invalid = "invalid_token";
    vec![
        (mint(&stranger, now), invalid, 4501),
        (mint(&hs512, now), invalid, 4501),
        (UNSIGNED.into(), invalid, 4501),
        (cut, invalid, 4501),
        ("no-token".into(), invalid, 4501),
        (
            mint(auth, now - Duration::from_hours(1)),
            "token_expired",
            4502,
        ),
    ]
}

#[tokio::test]
async fn a_bad_token_is_refused_in_the_way_its_sender_can_see() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.secret = Some(Secret::new(SECRET.repeat(2)));
    let auth = config.auth.clone();
    let notifier = stack.notifier(config).await;
    for (bad, code, close) in bad_tokens(&auth) {
        let told = Some((close, code.to_owned()));
        let header = [("authorization", &*format!("Bearer {bad}"))];
        let (status, body, headers) = refused(&notifier, "/ws", &header).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!(code)));
        assert!(headers.contains("www-authenticate"), "{headers}");
        assert!(!format!("{body}{headers}").contains(&bad), "{body}");

        let offer = format!("bellhop.v1, bearer.{bad}");
        let offer = [("sec-websocket-protocol", &*offer)];
        assert_eq!(open(&notifier, "/ws", &offer).await.closed().await, told);
        let path = format!("/ws?token={bad}");
        assert_eq!(open(&notifier, &path, &[]).await.closed().await, told);

        let mut client = open(&notifier, "/ws", &[]).await;
        client.send(&auth_frame(&bad)).await;
        let error = client.next().await;
        assert_eq!((&error["type"], &error["id"]), (&json!("error"), &json!(1)));
        assert_eq!(error["code"], code);
        assert_eq!(client.closed().await, told);
    }
    notifier.stop().await;
}

#[tokio::test]
async fn who_brings_no_token_in_time_is_closed_and_who_does_stays() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.auth_timeout = HumanDuration::from_secs(1);
    let notifier = stack.notifier(config).await;
    let mut ann = open(&notifier, "/ws", &[]).await;
    ann.send(&auth_frame(&token("ann"))).await;
    ann.next_of("connected").await;
    let mut nobody = open(&notifier, "/ws", &[]).await;
    // What it says instead gains it no time.
    nobody.send(r#"{"type":"ping"}"#).await;
    let closed = Some((4503, "auth_timeout".to_owned()));
    assert_eq!(nobody.closed().await, closed);
    // It came first, so its time would have been over first.
    ann.send(r#"{"type":"ping"}"#).await;
    ann.next_of("pong").await;
    notifier.stop().await;
}

#[tokio::test]
async fn the_token_in_the_address_can_be_turned_off() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.query_token = false;
    let notifier = stack.notifier(config).await;
    let ann = token("ann");
    let (status, body, _) = refused(&notifier, &format!("/ws?token={ann}"), &[]).await;
    assert_eq!(status, 401);
    assert_eq!(body["error"]["code"], "query_token_off");
    assert!(!body.to_string().contains(&ann));
    let twice = format!("/ws?token={ann}&token={ann}");
    let (status, body, _) = refused(&notifier, &twice, &[]).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
    stack.client(&notifier, "ann").await;
    notifier.stop().await;
}

#[tokio::test]
async fn only_pages_that_may_connect_do() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.http.allowed_origins = vec!["https://app.example.org".into()];
    let notifier = stack.notifier(config).await;
    let bearer = format!("Bearer {}", token("ann"));
    let bearer = ("authorization", &*bearer);
    for evil in ["https://evil.example", "http://app.example.org", "null"] {
        let headers = [bearer, ("origin", evil)];
        let (status, body, _) = refused(&notifier, "/ws", &headers).await;
        assert_eq!(status, 403);
        assert_eq!(body["error"]["code"], "wrong_origin");
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(evil), "{message}");
    }
    let own = format!("http://{}", notifier.address);
    for good in [Some(&*own), Some("https://app.example.org"), None] {
        let mut headers = vec![bearer];
        headers.extend(good.map(|origin| ("origin", origin)));
        open(&notifier, "/ws", &headers)
            .await
            .next_of("connected")
            .await;
    }
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_no_websocket_handshake_is_told_so() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    for wrong in [
        ("upgrade", "h2c"),
        ("connection", "keep-alive"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-key", "short"),
    ] {
        let (status, body, headers) = refused(&notifier, "/ws", &[wrong]).await;
        assert_eq!(status, 426, "{wrong:?}");
        assert_eq!(body["error"]["code"], "not_a_websocket");
        // RFC 6455, 4.4, and RFC 9110, 15.5.22: say what would be taken.
        assert!(
            headers.contains(r#""sec-websocket-version": "13""#),
            "{headers}"
        );
        assert!(headers.contains(r#""upgrade": "websocket""#), "{headers}");
    }
    let plain = http().get(notifier.url("/ws")).send().await.unwrap();
    assert_eq!(plain.status(), 426);
    let body: Value = plain.json().await.unwrap();
    assert_eq!(body["error"]["code"], "not_a_websocket");
    let posted = http().post(notifier.url("/ws")).send().await.unwrap();
    assert_eq!(posted.status(), 405);
    notifier.stop().await;
}

#[tokio::test]
async fn in_the_mode_without_tokens_a_client_names_itself() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.mode = AuthMode::None;
    let notifier = stack.notifier(config).await;
    let mut ann = open(&notifier, "/ws?user_id=ann", &[]).await;
    assert_eq!(ann.next_of("connected").await["user_id"], "ann");
    for path in ["/ws", "/ws?user_id="] {
        let (status, body, _) = refused(&notifier, path, &[]).await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("no_user")));
    }
    // A page of another site whose name was made to mean this machine.
    let asks = |path| http().get(notifier.url(path)).bearer_auth("ann");
    for path in ["/api/tasks", "/api/inbox"] {
        assert_eq!(asks(path).send().await.unwrap().status(), 200, "{path}");
        let elsewhere = asks(path).header("host", "evil.example:8080");
        let answer = elsewhere.send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "wrong_host", "{path}");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn a_login_ends_with_its_token_unless_it_is_renewed() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.auth.leeway = HumanDuration(Duration::ZERO);
    let auth = config.auth.clone();
    let notifier = stack.notifier(config).await;
    let short = Draft::new("ann", Timestamp::now(), Duration::from_secs(3));
    let short = mint(&auth, &short).unwrap();
    let mut renewed = Client::connect(notifier.address, &short).await;
    renewed.next_of("connected").await;
    let mut left_alone = Client::connect(notifier.address, &short).await;
    left_alone.next_of("connected").await;

    // It ends sooner than notice is given, so that notice comes at once.
    let notice = renewed.next().await;
    assert_eq!(notice["type"], "token_expiring");
    let expires_at: Timestamp = notice["expires_at"].as_str().unwrap().parse().unwrap();
    let left = expires_at.duration_since(Timestamp::now());
    assert!(left.as_secs() <= 3, "{left}");

    renewed.send(&auth_frame(&token("bob"))).await;
    let error = renewed.next().await;
    assert_eq!(error["code"], "wrong_user");
    assert_eq!(error["id"], 1);
    renewed.send(&auth_frame("no-token")).await;
    assert_eq!(renewed.next().await["code"], "invalid_token");
    renewed.send(&auth_frame(&token("ann"))).await;

    let expired = Some((4502, "token_expired".to_owned()));
    assert_eq!(left_alone.closed().await, expired);
    // It began with the same token.
    renewed.send(r#"{"type":"ping","id":2}"#).await;
    assert_eq!(renewed.next_of("pong").await["id"], 2);
    notifier.stop().await;
}

#[tokio::test]
async fn what_a_client_sends_right_behind_its_handshake_is_read() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut behind = masked(0x81, auth_frame(&token("ann")).as_bytes());
    for id in 0..50 {
        let ping = json!({"type": "ping", "id": id}).to_string();
        behind.extend(masked(0x81, ping.as_bytes()));
    }
    let (mut raw, head) = Raw::open(notifier.address, "", &behind).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let connected = String::from_utf8(raw.frame().await.unwrap().1).unwrap();
    assert!(connected.contains(r#""user_id":"ann""#), "{connected}");
    for id in 0..50 {
        let (_, pong) = raw.frame().await.unwrap();
        let pong: Value = serde_json::from_slice(&pong).unwrap();
        assert_eq!(pong, json!({"type": "pong", "id": id}));
    }
    notifier.stop().await;
}
