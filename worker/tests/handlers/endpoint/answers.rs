//! What an answer means.

use bellhop_common::config::HumanSize;
use bellhop_common::wire::Progress;
use bellhop_worker::Outcome;
use bellhop_worker::tasks::EndpointConfig;
use serde_json::json;

use super::{Server, answered, answered_with, failed, ok, retried, start};

const NDJSON: &str = "application/x-ndjson";

#[tokio::test]
async fn an_answer_that_is_not_streamed_is_the_result() {
    for (media_type, body, wants) in [
        ("application/json", r#"{"n": 2}"#, json!({"n": 2})),
        ("application/json; charset=utf-8", "", json!(null)),
        ("text/plain", "[1, 2]\n", json!([1, 2])),
        ("text/plain", "two\nlines\n", json!("two\nlines\n")),
        ("text/plain", " \r\n", json!(null)),
        (
            "application/json",
            r#"{"progress": {"percent": 1}}"#,
            json!({"progress": {"percent": 1}}),
        ),
    ] {
        let outcome = answered(ok(media_type, body)).await;
        assert_eq!(outcome, Outcome::Done(wants), "{body:?}");
    }
    for nothing in ["204 No Content", "202 Accepted"] {
        let outcome = answered(format!("HTTP/1.1 {nothing}\r\ncontent-length: 0\r\n\r\n")).await;
        assert_eq!(outcome, Outcome::Done(json!(null)));
    }
    let binary = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\na\xffb";
    assert_eq!(answered(binary).await, Outcome::Done(json!("a\u{fffd}b")));
}

#[tokio::test]
async fn progress_is_told_as_it_comes() {
    let server = Server::start().await;
    let mut running = start(EndpointConfig::new(server.url("/")));
    let mut call = server.call().await;
    call.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
    ))
    .await;
    call.chunk("{\"progress\":{\"done\":1,\"total\":4,\"message\":\"one\"}}\n{\"prog")
        .await;
    let one = Progress {
        unit: None,
        ..Progress::of(1, 4, "").with_message("one")
    };
    assert_eq!(running.says("one").await, one);
    call.chunk("ress\":{\"percent\":50,\"message\":\"two\"}}\n")
        .await;
    assert_eq!(running.says("two").await.percent, Some(50.0));
    call.chunk("{\"pages\":4}\n{\"progress\":{\"percent\":100}}\n")
        .await;
    call.answer("0\r\n\r\n").await;
    assert_eq!(running.outcome().await, Outcome::Done(json!({"pages": 4})));
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_not_read_to_its_end() {
    let small = |config: &mut EndpointConfig| {
        config.max_output = HumanSize(1000);
        config.max_total_output = HumanSize(5000);
    };
    let line = "x".repeat(900) + "\n";
    for (media_type, body, wants) in [
        ("text/plain", "x".repeat(1001), "more than 1000B:"),
        (NDJSON, "x".repeat(1001), "a line of more than 1000B:"),
        (NDJSON, line.repeat(6), "more than 5000B in all:"),
    ] {
        let error = failed(answered_with(small, ok(media_type, &body)).await);
        assert_eq!(error.code, "output_too_large");
        assert!(error.message.contains(wants), "{error:?}");
    }
    let exact = answered_with(small, ok("text/plain", &"x".repeat(1000))).await;
    assert_eq!(exact, Outcome::Done(json!("x".repeat(1000))));
    let exact = answered_with(small, ok(NDJSON, &line.repeat(5))).await;
    assert_eq!(exact, Outcome::Done(json!("x".repeat(900))));

    // One that never ends.
    let server = Server::start().await;
    let mut config = EndpointConfig::new(server.url("/"));
    small(&mut config);
    let running = start(config);
    let mut call = server.call().await;
    call.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}\r\n\r\n{}",
        line.repeat(6)
    ))
    .await;
    assert_eq!(failed(running.outcome().await).code, "output_too_large");
    call.closed().await;
}

#[tokio::test]
async fn half_an_answer_is_no_result() {
    for half in [
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}\r\ncontent-length: 100\r\n\r\n{{\"n\":1}}\n"
        ),
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}\r\ntransfer-encoding: chunked\r\n\r\n\
             8\r\n{{\"n\":1}}\n\r\n"
        ),
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-le".to_owned(),
        String::new(),
        "this is not HTTP at all\r\n\r\n".to_owned(),
    ] {
        let (error, after) = retried(answered(&half).await);
        assert_eq!(error.code, "connection_broken", "{half:?}");
        assert!(after.is_none());
    }
    // Without a length only the type tells that something is missing.
    let (error, _) =
        retried(answered("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"n\":").await);
    assert_eq!(error.code, "bad_answer");
}

#[tokio::test]
async fn a_server_that_crashes_is_asked_again() {
    let server = Server::start().await;
    let mut running = start(EndpointConfig::new(server.url("/")));
    let mut call = server.call().await;
    call.send(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {NDJSON}\r\n\r\n{{\"progress\":{{\"message\":\"half\"}}}}\n"
    ))
    .await;
    running.says("half").await;
    call.reset();
    let (error, _) = retried(running.outcome().await);
    assert_eq!(error.code, "connection_broken");
}
