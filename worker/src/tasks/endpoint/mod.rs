//! `endpoint`: jobs that an HTTP server runs, written in any language.
//!
//! `[endpoint."images.resize"] url = "https://images.internal/resize"` makes the worker post each
//! job of that kind there. Only the configuration says where; a job cannot choose.
//!
//! # The request
//! `POST` with the body `{"task_id", "kind", "user_id", "attempt", "args"}` as JSON, and these
//! headers besides those of the configuration:
//! - `X-Bellhop-Task-Id` and `X-Bellhop-Attempt`, as in the body;
//! - `Idempotency-Key: <task_id>/<attempt>`: the same when an attempt is repeated after a crash, so
//!   that the server can answer with what it did the first time;
//! - `traceparent`, when the job came with one.
//!
//! Redirects are not followed, and the proxies that environment variables name are not used: an
//! endpoint is called where the configuration says, or not at all.
//!
//! # The answer
//! With the type `application/x-ndjson` its lines are read as they come, as those of a program's
//! stdout (see [`Exec`](super::Exec)): `{"progress": {...}}` is progress, the last other line the
//! result. Any other answer is the result as a whole: as JSON if it is JSON, as a text otherwise;
//! `null` when it is empty.
//!
//! An answer should have a length or come in chunks. One that ends when the connection does cannot
//! be told from half of it, unless it is JSON by its type, or TLS says that it is whole. A server
//! that fails after it has begun to stream breaks the connection off.
//!
//! # How it ends
//! | what happens | outcome |
//! |---|---|
//! | 2xx | done |
//! | 408, 425, 429 or 5xx | retry, code `http_<status>`, no sooner than `Retry-After` says |
//! | 3xx | failed, code `http_redirect` |
//! | any other status | failed, code `http_<status>` |
//! | no connection | retry, code `unreachable` |
//! | the connection breaks before the answer's end | retry, code `connection_broken` |
//! | the answer says it is JSON, and is not | retry, code `bad_answer` |
//! | the answer, or a line of it, is too long | failed, code `output_too_large` |
//! | the job is cancelled, or its time is up | cancelled; the connection is closed at once |

mod answer;
mod client;
mod config;

use std::fmt;
use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_common::wire::TaskError;
use futures_util::future::{BoxFuture, FutureExt};
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::{Client, Request, Response, Url};
use serde::Serialize;
use serde_json::Value;

use crate::outcome::Outcome;
use crate::registry::Handler;
use crate::task::TaskContext;
use answer::Reader;
use client::{causes, client};
pub use config::{EndpointConfig, EndpointUrl, InvalidEndpoint};

/// How long the reason in the answer of a server that refused may take to arrive.
const REASON_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of a reason is kept, in bytes.
const REASON_MAX: usize = 1024;

/// The handler of a kind whose jobs an HTTP server runs: a job is posted there, the answer is
/// progress as lines of JSON and a result.
pub struct Endpoint {
    kind: String,
    config: EndpointConfig,
    url: Url,
    client: Client,
}

/// What is posted.
#[derive(Serialize)]
struct Call<'a> {
    task_id: &'a str,
    kind: &'a str,
    user_id: &'a str,
    attempt: u32,
    args: Value,
}

impl Endpoint {
    /// A handler that posts jobs of `kind` to the URL of `config`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] with the [problems](EndpointConfig::problems) of `config`, or a
    /// `ca_file` that cannot be used. Whether the server can be reached shows when it is called.
    pub fn new(kind: impl Into<String>, config: EndpointConfig) -> Result<Self, InvalidEndpoint> {
        let kind = kind.into();
        let problems = config.problems(&kind);
        if !problems.is_empty() {
            return Err(InvalidEndpoint(problems));
        }
        let invalid = |text: String| InvalidEndpoint(vec![format!("endpoint.{kind:?}.{text}")]);
        let url = config
            .url
            .parse()
            .map_err(|text| invalid(format!("url {text}")))?;
        let client = client(&config, &url).map_err(invalid)?;
        Ok(Self {
            kind,
            config,
            url,
            client,
        })
    }

    async fn attempt(&self, ctx: TaskContext, args: Value) -> Outcome {
        if ctx.cancelled().is_cancelled() {
            return Outcome::Cancelled;
        }
        let request = match self.request(&ctx, args) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        tokio::select! {
            biased;
            outcome = self.call(&ctx, request) => outcome,
            // Dropping the call closes the connection, and that is all HTTP has to tell a server
            // that nobody waits any more.
            () = ctx.cancelled().cancelled() => Outcome::Cancelled,
        }
    }

    fn request(&self, ctx: &TaskContext, args: Value) -> Result<Request, Outcome> {
        let id = HeaderValue::try_from(&ctx.task_id);
        let key = HeaderValue::try_from(format!("{}/{}", ctx.task_id, ctx.attempt));
        let (Ok(id), Ok(key)) = (id, key) else {
            let message =
                "the job's id has a control character, so that no HTTP header can hold it";
            return Err(Outcome::fail("bad_task_id", message));
        };
        let call = Call {
            task_id: &ctx.task_id,
            kind: &self.kind,
            user_id: &ctx.user_id,
            attempt: ctx.attempt,
            args,
        };
        let mut request = self
            .client
            .post(self.url.clone())
            .headers(self.config.headers())
            .header(HeaderName::from_static("x-bellhop-task-id"), id)
            .header(
                HeaderName::from_static("x-bellhop-attempt"),
                HeaderValue::from(ctx.attempt),
            )
            .header(HeaderName::from_static("idempotency-key"), key)
            .json(&call);
        if !self
            .config
            .headers
            .keys()
            .any(|name| ACCEPT == name.to_ascii_lowercase().as_str())
        {
            request = request.header(ACCEPT, "application/x-ndjson, application/json, */*");
        }
        // What is no header is no trace context either; the job can do without.
        let trace = ctx.traceparent.as_ref();
        if let Some(trace) = trace.and_then(|trace| HeaderValue::try_from(trace).ok()) {
            request = request.header(HeaderName::from_static("traceparent"), trace);
        }
        request.build().map_err(|error| {
            let message = format!("the request cannot be made: {}", causes(error));
            Outcome::fail("bad_request", message)
        })
    }

    async fn call(&self, ctx: &TaskContext, request: Request) -> Outcome {
        let response = match self.client.execute(request).await {
            Ok(response) => response,
            Err(error) => return self.no_answer(error),
        };
        match response.status().as_u16() {
            200..=299 => self.read(ctx, response).await,
            300..=399 => {
                let message = format!(
                    "{} answered {}: redirects are not followed, set the final address as url",
                    self.config.url,
                    response.status()
                );
                Outcome::fail("http_redirect", message)
            }
            _ => self.refused(response).await,
        }
    }

    async fn read(&self, ctx: &TaskContext, mut response: Response) -> Outcome {
        let mut reader = Reader::new(response.headers(), &self.config);
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    if let Err(excess) = reader.push(&bytes, |said| said.tell(ctx)) {
                        let message = format!("{} {excess}", self.config.url);
                        return Outcome::fail("output_too_large", message);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.broken(error),
            }
        }
        match reader.finish(|said| said.tell(ctx)) {
            Ok(result) => Outcome::Done(result),
            Err(error) => {
                let message = format!(
                    "{} says that it answers with JSON: {error}",
                    self.config.url
                );
                Outcome::retry("bad_answer", message)
            }
        }
    }

    async fn refused(&self, response: Response) -> Outcome {
        let status = response.status();
        let after = answer::retry_after(response.headers());
        let reason = reason(response).await;
        let mut message = format!("{} answered {status}", self.config.url);
        if !reason.is_empty() {
            message.push_str(": ");
            message.push_str(&self.without_secrets(reason));
        }
        let error = TaskError::new(format!("http_{}", status.as_u16()), message);
        match status.as_u16() {
            408 | 425 | 429 | 500..=599 => Outcome::Retry { after, error },
            _ => Outcome::Fail(error),
        }
    }

    /// A server may well repeat what it did not like, and the message goes to the job's owner.
    fn without_secrets(&self, mut text: String) -> String {
        let values = self.config.headers.values().map(Secret::expose);
        for secret in values
            .flat_map(str::split_whitespace)
            .chain(self.url.password())
            .chain(self.url.query())
            .chain([self.url.path()])
            // A shorter one is no secret, and would be found in any text.
            .filter(|secret| secret.len() >= 6)
        {
            text = text.replace(secret, "***");
        }
        text
    }

    fn no_answer(&self, error: reqwest::Error) -> Outcome {
        if error.is_connect() {
            let message = format!("{} cannot be reached: {}", self.config.url, causes(error));
            return Outcome::retry("unreachable", message);
        }
        self.broken(error)
    }

    fn broken(&self, error: reqwest::Error) -> Outcome {
        let message = format!(
            "the connection to {} broke: {}",
            self.config.url,
            causes(error)
        );
        Outcome::retry("connection_broken", message)
    }
}

impl Handler for Endpoint {
    fn run(&self, ctx: TaskContext, args: Value) -> BoxFuture<'_, Outcome> {
        self.attempt(ctx, args).boxed()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The client and the parsed address would show credentials.
        f.debug_struct("Endpoint")
            .field("kind", &self.kind)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The beginning of what a server says about its refusal.
async fn reason(mut response: Response) -> String {
    let mut bytes = Vec::new();
    let reading = async {
        while bytes.len() < REASON_MAX
            && let Ok(Some(chunk)) = response.chunk().await
        {
            bytes.extend_from_slice(&chunk);
        }
    };
    // As much as has come by then is better than nothing.
    drop(tokio::time::timeout(REASON_TIMEOUT, reading).await);
    bytes.truncate(REASON_MAX);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}
