//! How a job fails, and whether it is worth another attempt.

use std::time::Duration;

use bellhop_common::config::{HumanDuration, Secret};
use bellhop_worker::Outcome;
use bellhop_worker::tasks::EndpointConfig;
use jiff::{SignedDuration, Timestamp};

use super::{Server, answered, failed, retried, start};

fn status(code: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {code} Whatever\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

#[tokio::test]
async fn the_status_decides() {
    for code in [408, 425, 429, 500, 502, 503, 504, 599] {
        let (error, after) = retried(answered(status(code, "", "")).await);
        assert_eq!(error.code, format!("http_{code}"));
        assert!(after.is_none());
    }
    for code in [400, 401, 403, 404, 405, 409, 410, 413, 422, 451, 499, 600] {
        let error = failed(answered(status(code, "", "")).await);
        assert_eq!(error.code, format!("http_{code}"));
    }
}

#[tokio::test]
async fn the_beginning_of_the_body_is_the_message() {
    let error = failed(answered(status(422, "", " no such image \n")).await);
    assert!(
        error.message.starts_with("http://127.0.0.1:")
            && error.message.ends_with(": no such image"),
        "{error:?}"
    );
    let (error, _) = retried(answered(status(500, "", &"é".repeat(5000))).await);
    let (_, said) = error.message.rsplit_once(": ").unwrap();
    assert_eq!(said, "é".repeat(512));
    // One that promises more than it sends has said something all the same.
    let error = failed(answered("HTTP/1.1 400 X\r\ncontent-length: 99\r\n\r\nno such").await);
    assert_eq!(error.code, "http_400");
    assert!(error.message.ends_with(": no such"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_repeats_our_credentials_does_not_give_them_away() {
    let server = Server::start().await;
    let url = format!(
        "http://ann:hunter2url@{}/hooks/hunter2path?token=hunter2query",
        server.host()
    );
    let config = EndpointConfig {
        headers: [("x-key".to_owned(), Secret::new("Bearer hunter2header"))].into(),
        ..EndpointConfig::new(url)
    };
    let running = start(config);
    let body = "bad key hunter2header or hunter2url at /hooks/hunter2path?token=hunter2query!";
    server.call().await.answer(status(403, "", body)).await;
    let error = failed(running.outcome().await);
    assert!(
        error.message.ends_with("bad key *** or *** at ***?***!"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_says_when_to_come_back() {
    let asked = async |header: &str| {
        let headers = format!("retry-after: {header}\r\n");
        retried(answered(status(503, &headers, "busy")).await).1
    };
    assert_eq!(asked("120").await, Some(Duration::from_mins(2)));
    // A year is a mistake.
    assert_eq!(asked("31536000").await, Some(Duration::from_hours(24)));
    assert_eq!(asked("soon").await, None);
    let date = Timestamp::now() + SignedDuration::from_secs(90);
    let date = jiff::fmt::rfc2822::DateTimePrinter::new()
        .timestamp_to_rfc9110_string(&date)
        .unwrap();
    let after = asked(&date).await.unwrap();
    let near = Duration::from_mins(1)..Duration::from_secs(91);
    assert!(near.contains(&after), "{after:?}");
    // What is final stays so.
    failed(answered(status(404, "retry-after: 1\r\n", "")).await);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = Server::start().await;
    for code in [301, 302, 303, 307, 308] {
        let headers = format!("location: {}\r\n", target.url("/hunter2"));
        let error = failed(answered(status(code, &headers, "")).await);
        assert_eq!(error.code, "http_redirect");
        assert!(error.message.contains(&code.to_string()), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_asked_again() {
    let server = Server::start().await;
    let url = server.url("/hunter2");
    drop(server);
    for url in [url.as_str(), "http://bellhop.invalid/hunter2"] {
        let (error, after) = retried(start(EndpointConfig::new(url)).outcome().await);
        assert_eq!(error.code, "unreachable");
        assert!(error.message.contains("cannot be reached: "), "{error:?}");
        assert!(!error.message.contains("hunter2"), "{error:?}");
        assert!(after.is_none());
    }
}

#[tokio::test]
async fn a_server_that_does_not_take_the_connection_is_not_waited_for() {
    // TLS that nobody answers: the connection stands, and the handshake does not end.
    let server = Server::start().await;
    let config = EndpointConfig {
        connect_timeout: HumanDuration(Duration::from_millis(200)),
        ..EndpointConfig::new(format!("https://{}/", server.host()))
    };
    let (error, _) = retried(start(config).outcome().await);
    assert_eq!(error.code, "unreachable");
}

#[tokio::test]
async fn a_long_answer_is_not_cut_off_by_the_connect_timeout() {
    let server = Server::start().await;
    let running = start(EndpointConfig {
        connect_timeout: HumanDuration(Duration::from_millis(100)),
        ..EndpointConfig::new(server.url("/"))
    });
    let call = server.call().await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    call.answer(super::ok("text/plain", "1")).await;
    assert_eq!(running.outcome().await, Outcome::Done(1.into()));
}
