//! `endpoint`, with real HTTP servers.

mod answers;
mod ending;
mod python;
mod refusals;
mod request;
mod server;

use std::time::Duration;

use bellhop_common::wire::{Progress, TaskError};
use bellhop_worker::tasks::{Endpoint, EndpointConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use server::Server;

/// No test waits longer; it is far above what any of them takes.
const LONG: Duration = Duration::from_secs(30);

/// A job that runs.
struct Running {
    task: JoinHandle<Outcome>,
    seen: Receiver<Option<Progress>>,
    cancel: CancellationToken,
}

fn start(config: EndpointConfig) -> Running {
    start_with(config, TaskContext::detached(), json!({}))
}

fn start_with(
    config: EndpointConfig,
    (ctx, seen): (TaskContext, Receiver<Option<Progress>>),
    args: Value,
) -> Running {
    let cancel = ctx.cancelled().clone();
    let endpoint = Endpoint::new("test.kind", config).unwrap();
    Running {
        task: tokio::spawn(async move { endpoint.run(ctx, args).await }),
        seen,
        cancel,
    }
}

impl Running {
    async fn outcome(self) -> Outcome {
        timeout(LONG, self.task).await.unwrap().unwrap()
    }

    /// Waits for progress with that message.
    async fn says(&mut self, message: &str) -> Progress {
        let said = |progress: &Option<Progress>| {
            progress
                .as_ref()
                .is_some_and(|progress| progress.message.as_deref() == Some(message))
        };
        let progress = timeout(LONG, self.seen.wait_for(said)).await;
        progress.unwrap().unwrap().clone().unwrap()
    }
}

/// How a job ends when the server answers with these bytes and closes the connection.
async fn answered(answer: impl AsRef<[u8]>) -> Outcome {
    answered_with(|_| {}, answer).await
}

async fn answered_with(set: impl FnOnce(&mut EndpointConfig), answer: impl AsRef<[u8]>) -> Outcome {
    let server = Server::start().await;
    let mut config = EndpointConfig::new(server.url("/jobs"));
    set(&mut config);
    let running = start(config);
    server.call().await.answer(answer).await;
    running.outcome().await
}

/// An answer with a body of that type.
fn ok(media_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

fn failed(outcome: Outcome) -> TaskError {
    match outcome {
        Outcome::Fail(error) => error,
        other => panic!("{other:?}"),
    }
}

fn retried(outcome: Outcome) -> (TaskError, Option<Duration>) {
    match outcome {
        Outcome::Retry { error, after } => (error, after),
        other => panic!("{other:?}"),
    }
}
