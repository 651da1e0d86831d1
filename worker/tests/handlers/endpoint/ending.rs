//! However a job ends, nobody holds its connection.

use bellhop_worker::tasks::{Endpoint, EndpointConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use serde_json::json;

use super::{Server, start};

const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n\
                    {\"progress\":{\"message\":\"half\"}}\n";

#[tokio::test]
async fn cancelling_closes_the_connection() {
    for half in [false, true] {
        let server = Server::start().await;
        let mut running = start(EndpointConfig::new(server.url("/")));
        let mut call = server.call().await;
        if half {
            call.send(HALF).await;
            running.says("half").await;
        }
        running.cancel.cancel();
        assert_eq!(running.outcome().await, Outcome::Cancelled);
        call.closed().await;
    }
}

#[tokio::test]
async fn cancelling_does_not_wait_for_the_reason_of_a_refusal() {
    let server = Server::start().await;
    let running = start(EndpointConfig::new(server.url("/")));
    let mut call = server.call().await;
    call.send("HTTP/1.1 500 X\r\ncontent-length: 99\r\n\r\nbecause")
        .await;
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    call.closed().await;
}

#[tokio::test]
async fn a_dropped_job_closes_the_connection() {
    let server = Server::start().await;
    let mut running = start(EndpointConfig::new(server.url("/")));
    let mut call = server.call().await;
    call.send(HALF).await;
    running.says("half").await;
    running.task.abort();
    call.closed().await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_starts_calls_nobody() {
    let (ctx, _seen) = TaskContext::detached();
    ctx.cancelled().cancel();
    // To call this one would be a failure.
    let endpoint = Endpoint::new("k", EndpointConfig::new("http://127.0.0.1:1/")).unwrap();
    assert_eq!(endpoint.run(ctx, json!({})).await, Outcome::Cancelled);
}
