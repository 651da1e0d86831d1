//! The notifier over HTTP: jobs, how it is, the page.

use std::collections::BTreeSet;
use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::OpenKind;
use bellhop_notifier::auth::{Draft, mint};
use bellhop_tests::broker::free_port;
use bellhop_tests::client::metric_becomes;
use bellhop_tests::stack::{Running, Stack, http, open_kind, token};
use jiff::Timestamp;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// Status and body of an answer that must be JSON and must not hold the token.
async fn answer(request: RequestBuilder, token: &str) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let headers = format!("{:?}", answer.headers());
    assert!(headers.contains("application/json"), "{headers}");
    let text = answer.text().await.unwrap();
    assert!(!text.contains(token) && !headers.contains(token), "{text}");
    (status, serde_json::from_str(&text).unwrap())
}

fn post(notifier: &Running, body: impl Into<reqwest::Body>) -> RequestBuilder {
    http().post(notifier.url("/api/tasks")).body(body)
}

#[tokio::test]
async fn who_starts_a_job_must_say_who_they_are() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    open_kind(&mut config, "count");
    let auth = config.auth.clone();
    let notifier = stack.notifier(config).await;
    let body = r#"{"kind":"count"}"#;
    let hour_ago = Timestamp::now() - Duration::from_hours(1);
    let old = Draft::new("ann", hour_ago, Duration::from_mins(1));
    let old = mint(&auth, &old).unwrap();
    let good = token("ann");
    for (header, code) in [
        (None, "no_token"),
        (Some(format!("Basic {good}")), "no_token"),
        (Some("Bearer no-token".into()), "invalid_token"),
        (Some(format!("Bearer {good}x")), "invalid_token"),
        (Some(format!("Bearer {old}")), "token_expired"),
    ] {
        let mut request = post(&notifier, body);
        if let Some(header) = &header {
            request = request.header("authorization", header);
        }
        let secret = header.as_deref().unwrap_or(&good);
        let secret = secret.rsplit(' ').next().unwrap();
        let (status, body) = answer(request, secret).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!(code)));
    }
    // Not the reason for an answer that blames the server.
    let garbled = reqwest::header::HeaderValue::from_bytes(b"Bearer \xff\xfe").unwrap();
    let request = post(&notifier, body).header("authorization", garbled);
    assert_eq!(answer(request, &good).await.0, 400);
    notifier.stop().await;
}

#[tokio::test]
async fn a_wrong_order_is_refused_with_its_reason() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    open_kind(&mut config, "count");
    let queue = "nobody-serves-this".into();
    let lonely = OpenKind { queue };
    config.tasks.open.insert("lonely".into(), lonely);
    let notifier = stack.notifier(config).await;
    let ann = token("ann");
    let large = json!({"kind": "count", "args": "x".repeat(256 * 1024)}).to_string();
    let long = json!({"kind": "lonely", "title": "x".repeat(100)}).to_string();
    for (body, status, code, says) in [
        ("", 400, "bad_json", "EOF"),
        ("{\"kind\":\n  oops}", 400, "bad_json", "line 2 column"),
        ("[1]", 400, "bad_json", "line 1"),
        ("{}", 400, "bad_json", "`kind`"),
        (r#"{"kind":5}"#, 400, "bad_json", "string"),
        (
            r#"{"kind":"count","user_id":"bob"}"#,
            400,
            "bad_json",
            "`user_id`",
        ),
        (r#"{"kind":"reboot"}"#, 403, "kind_not_open", "reboot"),
        (&long, 422, "no_such_queue", "nobody-serves-this"),
        (&large, 413, "too_large", "too large"),
    ] {
        let request = post(&notifier, body.to_owned()).bearer_auth(&ann);
        let (found, body) = answer(request, &ann).await;
        assert_eq!((found, &body["error"]["code"]), (status, &json!(code)));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} in {message}");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_as_json() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let ann = token("ann");
    for (method, path, wants) in [
        (Method::PUT, "/api/tasks", 405),
        (Method::DELETE, "/api/tasks", 405),
        (Method::POST, "/healthz", 405),
        (Method::GET, "/api", 404),
        (Method::POST, "/api/tasks/1", 405),
        (Method::GET, "/api/tasks/1", 404),
        (Method::POST, "/api/inbox", 405),
        (Method::GET, "/api/inbox/read", 405),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/../Cargo.toml", 404),
        (Method::GET, "/%2e%2e/%2e%2e/etc/passwd", 404),
        (Method::GET, "/ws/more", 404),
    ] {
        let request = http().request(method.clone(), notifier.url(path));
        let (status, body) = answer(request.bearer_auth(&ann), &ann).await;
        assert_eq!(status, wants, "{method} {path}: {body}");
        assert!(body["error"]["code"].is_string());
    }
    notifier.stop().await;
}

#[tokio::test]
async fn without_a_broker_it_says_so() {
    let stack = Stack::on(format!("amqp://guest:guest@127.0.0.1:{}/%2f", free_port()));
    let mut config = stack.notifier_config();
    open_kind(&mut config, "count");
    config.amqp.publish_timeout = HumanDuration(Duration::from_millis(300));
    // Otherwise nobody is let in before it is known who was revoked.
    config.auth.revocations_wait = HumanDuration(Duration::ZERO);
    let notifier = stack.start_notifier(config).await;
    let ann = token("ann");
    let request = post(&notifier, r#"{"kind":"count"}"#).bearer_auth(&ann);
    let (status, body) = answer(request, &ann).await;
    assert_eq!(status, 503);
    assert_eq!(body["error"]["code"], "broker_unavailable");
    assert!(!body.to_string().contains("guest:guest"), "{body}");

    let health = http().get(notifier.url("/healthz")).send().await.unwrap();
    assert_eq!(health.status(), 200, "it lives all the same");
    let (status, body) = answer(http().get(notifier.url("/readyz")), &ann).await;
    assert_eq!(status, 503);
    assert_eq!(body["ready"], false);
    for component in ["amqp.publisher", "amqp.consumer"] {
        assert_eq!(body["components"][component], "down", "{body}");
    }
    // People who are connected stay so, and new ones come in.
    stack.client(&notifier, "ann").await;
    notifier.stop().await;
}

#[tokio::test]
async fn with_a_broker_it_is_ready_and_counts() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let ann = token("ann");
    let (status, body) = answer(http().get(notifier.url("/readyz")), &ann).await;
    assert_eq!((status, &body["ready"]), (200, &json!(true)));
    assert_eq!(body["components"]["amqp.consumer"], "up");
    let mut client = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    let body = r#"{"type":"note","id":"0197f0a0-0000-7000-8000-000000000001","time":"2026-01-15T10:30:00Z","data":1}"#;
    let key = "live.user.ann.note";
    rabbit.publish("events", key, body).await;
    rabbit.publish("events", key, "not json").await;
    client.next_of("note").await;
    for (series, value) in [
        ("bellhop_notifier_connections", 1),
        ("bellhop_notifier_deliveries_total", 1),
        ("bellhop_notifier_malformed_events_total", 1),
        // The event and `connected`.
        ("bellhop_notifier_frames_sent_total", 2),
    ] {
        metric_becomes(&notifier, series, value).await;
    }
    let page = http().get(notifier.url("/metrics")).send().await.unwrap();
    let content_type = &page.headers()["content-type"];
    assert!(content_type.to_str().unwrap().starts_with("text/plain"));
    assert!(!page.text().await.unwrap().contains("ann"), "no user ids");
    notifier.stop().await;
}

/// The files of the page that a file names: quoted, relative, with an ending that we serve.
fn references(text: &str) -> BTreeSet<String> {
    let ends = [".js", ".css", ".svg"];
    text.split(['"', '\''])
        .map(|word| word.trim_start_matches(['.', '/']))
        .filter(|word| ends.iter().any(|end| word.ends_with(end)))
        .filter(|word| !word.contains(['<', ' ', '\n']))
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn the_page_and_every_file_it_names_are_served() {
    let stack = Stack::shared();
    let notifier = stack.start_notifier(stack.notifier_config()).await;
    let mut waiting = BTreeSet::from([String::new()]);
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop_first() {
        let url = notifier.url(&format!("/{path}"));
        let answer = http().get(&url).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        let header = |name| answer.headers()[name].to_str().unwrap().to_owned();
        let wants = match path.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/html; charset=utf-8",
        };
        assert_eq!(header("content-type"), wants, "{url}");
        let policy = header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        assert_eq!(header("x-content-type-options"), "nosniff");
        let text = answer.text().await.unwrap();
        for elsewhere in ["src=\"http", "href=\"http", "url(http", "from \"http"] {
            assert!(!text.contains(elsewhere), "{url} loads from elsewhere");
        }
        seen.insert(path);
        waiting.extend(references(&text).difference(&seen).cloned());
    }
    assert!(seen.contains("style.css") && seen.contains("connection.js"));
    assert!(seen.len() >= 8, "{seen:?}");
    notifier.stop().await;
}
