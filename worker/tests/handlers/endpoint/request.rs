//! What the server is asked.

use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_worker::tasks::{Endpoint, EndpointConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use serde_json::{Value, json};

use super::{LONG, Server, failed, ok, start, start_with};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn the_job_is_posted_as_json() {
    let server = Server::start().await;
    let (mut ctx, seen) = TaskContext::detached();
    ctx.task_id = "t-1".into();
    ctx.user_id = "ann é".into();
    ctx.attempt = 3;
    ctx.traceparent = Some(TRACE.into());
    let args = json!({"text": "a\nb", "list": [1, null]});
    let config = EndpointConfig::new(server.url("/jobs/resize?v=2"));
    let running = start_with(config, (ctx, seen), args.clone());
    let call = server.call().await;
    assert!(call.head.starts_with("POST /jobs/resize?v=2 HTTP/1.1\r\n"));
    assert_eq!(
        serde_json::from_slice::<Value>(&call.body).unwrap(),
        json!({"task_id": "t-1", "kind": "test.kind", "user_id": "ann é", "attempt": 3, "args": args})
    );
    for (name, wants) in [
        ("content-type", "application/json"),
        ("x-bellhop-task-id", "t-1"),
        ("x-bellhop-attempt", "3"),
        ("idempotency-key", "t-1/3"),
        ("traceparent", TRACE),
    ] {
        assert_eq!(call.header(name), Some(wants), "{name}");
    }
    call.answer(ok("application/json", "7")).await;
    assert_eq!(running.outcome().await, Outcome::Done(json!(7)));
}

#[tokio::test]
async fn a_job_without_a_trace_sends_none() {
    for trace in [None, Some("no\nheader".to_owned())] {
        let server = Server::start().await;
        let (mut ctx, seen) = TaskContext::detached();
        ctx.traceparent = trace;
        let config = EndpointConfig::new(server.url("/"));
        let running = start_with(config, (ctx, seen), json!({}));
        let call = server.call().await;
        assert_eq!(call.header("traceparent"), None);
        call.answer(ok("text/plain", "")).await;
        assert_eq!(running.outcome().await, Outcome::Done(json!(null)));
    }
}

#[tokio::test]
async fn the_configured_headers_are_sent() {
    let server = Server::start().await;
    let config = EndpointConfig {
        headers: [
            ("Authorization".to_owned(), Secret::new("Bearer hunter2")),
            ("accept".to_owned(), Secret::new("text/csv")),
        ]
        .into(),
        ..EndpointConfig::new(server.url("/"))
    };
    let running = start(config);
    let call = server.call().await;
    assert_eq!(call.header("authorization"), Some("Bearer hunter2"));
    assert_eq!(call.header("accept"), Some("text/csv"));
    assert_eq!(call.head.matches("accept:").count(), 1, "{}", call.head);
    call.answer(ok("text/plain", "")).await;
    running.outcome().await;
}

#[tokio::test]
async fn a_password_in_the_url_is_sent_as_basic_authentication() {
    let server = Server::start().await;
    let url = format!("http://ann:hunter2@{}/", server.host());
    let running = start(EndpointConfig::new(url));
    let call = server.call().await;
    assert_eq!(call.header("authorization"), Some("Basic YW5uOmh1bnRlcjI="));
    assert_eq!(call.header("host"), Some(server.host().as_str()));
    call.answer(ok("text/plain", "")).await;
    running.outcome().await;
}

#[tokio::test]
async fn an_id_that_no_header_can_hold_is_no_crash() {
    let (mut ctx, seen) = TaskContext::detached();
    ctx.task_id = "a\nb".into();
    let running = start_with(
        EndpointConfig::new("http://127.0.0.1:1/"),
        (ctx, seen),
        json!({}),
    );
    assert_eq!(failed(running.outcome().await).code, "bad_task_id");
}

/// It may be about to be closed by the server.
#[tokio::test]
async fn a_connection_that_was_idle_is_not_used_again() {
    let server = Server::start().await;
    let endpoint = Endpoint::new("k", EndpointConfig::new(server.url("/"))).unwrap();
    let run = || endpoint.run(TaskContext::detached().0, json!({}));
    let mut connections = Vec::new();
    for n in 0..2 {
        let answer = async {
            let mut call = server.call().await;
            call.send(ok("application/json", &n.to_string())).await;
            call
        };
        let (outcome, call) = tokio::join!(run(), answer);
        assert_eq!(outcome, Outcome::Done(json!(n)));
        connections.push(call);
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
}

/// In a process of its own, because the variable is the process's: this test runs itself again.
#[tokio::test]
async fn a_proxy_of_the_environment_is_not_used() {
    if let Ok(url) = std::env::var("TEST_ENDPOINT") {
        let endpoint = Endpoint::new("k", EndpointConfig::new(url)).unwrap();
        let outcome = endpoint.run(TaskContext::detached().0, json!({})).await;
        assert_eq!(outcome, Outcome::Done(json!("direct")));
        return;
    }
    let server = Server::start().await;
    let proxy = "http://127.0.0.1:1";
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "endpoint::request::a_proxy_of_the_environment_is_not_used",
        ])
        .env("TEST_ENDPOINT", server.url("/"))
        .env("http_proxy", proxy)
        .env("HTTP_PROXY", proxy)
        .env("ALL_PROXY", proxy)
        .env_remove("NO_PROXY")
        .env_remove("no_proxy")
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    server.call().await.answer(ok("text/plain", "direct")).await;
    let status = tokio::time::timeout(LONG, child.wait()).await.unwrap();
    assert!(status.unwrap().success());
}

#[test]
fn a_handler_needs_a_url_and_a_ca_that_can_be_read() {
    let error = Endpoint::new("images.resize", EndpointConfig::default()).unwrap_err();
    assert!(
        error.to_string().contains("endpoint.\"images.resize\".url"),
        "{error}"
    );
    let dir = crate::scratch::Scratch::new();
    dir.write("empty.pem", "nothing");
    for path in ["/nowhere/ca.pem".into(), dir.path().join("empty.pem")] {
        let config = EndpointConfig {
            ca_file: Some(path.clone()),
            ..EndpointConfig::new("https://h.example/hunter2")
        };
        let error = Endpoint::new("k", config).unwrap_err().to_string();
        assert!(
            error.contains("endpoint.\"k\".ca_file") && error.contains(path.to_str().unwrap()),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}
