//! A double of Slack's incoming webhooks, at least as strict as Slack.
//!
//! It checks the path, the method, the media type and every field of a message, and answers with Slack's own statuses
//! and words. Stricter than Slack: a key that Slack does not know is refused, where Slack passes over it, so that nothing
//! meant for Mattermost goes there. One message a second is taken, after a burst.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use warp::Filter;
use warp::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use warp::http::{Method, Response, StatusCode};

mod message;
#[cfg(test)]
mod tests;

pub use message::{Attachment, Field, Message, mentions};

/// The webhook that exists.
pub const HOOK: &str = "/services/T0BELLHOP/B0ALERTS/hunter2x8Yd1kQ";

/// What stands in for a message a second.
const PERIOD: Duration = Duration::from_secs(1);

/// The webhook's own channel, and one more.
const CHANNELS: [&str; 2] = ["alerts", "ops"];

/// Slack's words for what is wrong, with the status.
type Refusal = (StatusCode, &'static str);

type Reply = Response<Vec<u8>>;

/// A running double; stops taking connections when dropped.
#[derive(Debug)]
pub struct Slack {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// How many messages it takes at once.
    burst: u32,
    /// What every message is answered with, instead of being looked at.
    trouble: watch::Sender<Option<Refusal>>,
    /// When the bucket of messages is full again.
    full_at: watch::Sender<Option<Instant>>,
    requests: watch::Sender<usize>,
    messages: watch::Sender<Vec<Message>>,
}

impl Drop for Slack {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Slack {
    pub async fn start() -> Self {
        Self::with_burst(10).await
    }

    /// One that takes so many messages at once, and then one a second.
    pub async fn with_burst(burst: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            burst,
            trouble: watch::Sender::default(),
            full_at: watch::Sender::default(),
            requests: watch::Sender::default(),
            messages: watch::Sender::default(),
        });
        let state = Arc::clone(&shared);
        let routes = warp::method()
            .and(warp::path::full())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .map(
                move |method, path: warp::path::FullPath, headers, body: bytes::Bytes| {
                    state.answer(&method, path.as_str(), &headers, &body)
                },
            );
        let server = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self {
            address,
            shared,
            server,
        }
    }

    /// Address of the webhook that exists.
    pub fn hook_url(&self) -> String {
        self.url(HOOK)
    }

    /// Address of any path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Has every message answered with a status and a word, such as 410 `channel_is_archived`; `None` ends it.
    pub fn set_trouble(&self, trouble: Option<(u16, &'static str)>) {
        let trouble = trouble.map(|(status, word)| (StatusCode::from_u16(status).unwrap(), word));
        self.shared.trouble.send_replace(trouble);
    }

    /// Every message taken so far.
    pub fn messages(&self) -> Vec<Message> {
        self.shared.messages.borrow().clone()
    }

    /// Waits until at least so many messages have been taken, and returns them all; or those there are.
    pub async fn wait_for_messages(
        &self,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Message>, Vec<Message>> {
        let mut messages = self.shared.messages.subscribe();
        match timeout(within, messages.wait_for(|all| all.len() >= count)).await {
            Ok(Ok(messages)) => Ok(messages.clone()),
            _ => Err(self.messages()),
        }
    }

    /// Waits until at least so many requests have come, whatever became of them.
    pub async fn wait_for_requests(&self, count: usize, within: Duration) -> Result<usize, usize> {
        let mut requests = self.shared.requests.subscribe();
        match timeout(within, requests.wait_for(|seen| *seen >= count)).await {
            Ok(Ok(seen)) => Ok(*seen),
            _ => Err(*self.shared.requests.borrow()),
        }
    }
}

impl Shared {
    fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
        self.requests.send_modify(|seen| *seen += 1);
        let looked_at = may_post(method, path)
            .and_then(|()| self.trouble.borrow().map_or(Ok(()), Err))
            .and_then(|()| read(headers, body))
            .and_then(|message| self.in_time().map(|()| message));
        match looked_at {
            Ok(message) => {
                self.messages.send_modify(|all| all.push(message));
                reply((StatusCode::OK, "ok"))
            }
            Err(refusal) => reply(refusal),
        }
    }

    /// Takes a place from the bucket, if there is one.
    fn in_time(&self) -> Result<(), Refusal> {
        let now = Instant::now();
        let mut result = Ok(());
        self.full_at.send_modify(|full_at| {
            let full = full_at.unwrap_or(now).max(now) + PERIOD;
            if full > now + PERIOD * self.burst {
                result = Err((StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
            } else {
                *full_at = Some(full);
            }
        });
        result
    }
}

fn may_post(method: &Method, path: &str) -> Result<(), Refusal> {
    if !path.starts_with("/services/") {
        return Err((StatusCode::NOT_FOUND, "<!doctype html><title>Slack</title>"));
    }
    if method != Method::POST {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"));
    }
    if path != HOOK {
        return Err((StatusCode::NOT_FOUND, "no_service"));
    }
    Ok(())
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<Message, Refusal> {
    let media_type = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let is_json = media_type.is_some_and(|media_type| media_type.starts_with("application/json"));
    let body: Option<Value> = serde_json::from_slice(body).ok();
    // A list would be read as the fields in their order.
    let body = body.filter(|body| is_json && body.is_object());
    let message = body.and_then(|body| serde_json::from_value(body).ok());
    let message: Message = message.ok_or((StatusCode::BAD_REQUEST, "invalid_payload"))?;
    message.check()?;
    let channel = message
        .channel
        .as_deref()
        .map(|name| name.trim_start_matches('#'));
    match channel {
        Some(user) if user.starts_with('@') => Err((StatusCode::BAD_REQUEST, "user_not_found")),
        Some(name) if !CHANNELS.contains(&name) => {
            Err((StatusCode::NOT_FOUND, "channel_not_found"))
        }
        _ => Ok(message),
    }
}

fn reply((status, word): Refusal) -> Reply {
    let mut reply = Response::new(word.as_bytes().to_vec());
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(RETRY_AFTER, HeaderValue::from(PERIOD.as_secs()));
    }
    reply
}
