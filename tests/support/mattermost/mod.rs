//! A double of Mattermost's incoming webhooks, as strict as a real server is or has announced to be.
//!
//! It checks the path, the method, the media type, the size and every field of a post, answers with the server's own
//! status codes and error ids, and does what the server does to a text before it is shown. It can also fail in the
//! ways a server, or something in front of it, fails. Not covered: multipart bodies, `props`, and the
//! server's attempt to repair JSON with raw line breaks in it, all of which it refuses or ignores.
#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "shared by several test binaries, each of which uses a part"
)]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use warp::Filter;
use warp::http::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use warp::http::{Method, Response, StatusCode};

pub mod reader;
#[cfg(test)]
mod tests;
mod webhook;

use webhook::Refusal;
pub use webhook::{Attachment, Field, Post, mentions};

/// The webhook that exists.
pub const HOOK_ID: &str = "xk7f9qd3cjn8mfz1tw5hy6rb2e";

/// The channel the webhook belongs to.
pub const HOME: &str = "town-square";

/// The error of a post that cannot be stored.
const CREATING: &str = "api.post.create_webhook_post.creating.app_error";

/// How the double answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Mode {
    /// As a working server.
    #[default]
    Healthy,
    /// 429, asking to come back after some seconds if any are given.
    RateLimited(Option<u64>),
    /// This status, with an error as the server writes it.
    Status(u16),
    /// This status, with a page of the proxy in front of the server.
    Proxy(u16),
    /// 500, with the error of a post that cannot be stored, as servers before 10.4 write it.
    NotCreated,
    /// As a working server, after a while.
    Slow(Duration),
    /// Takes the post, and answers only when the double goes.
    Mute,
    /// 200 and a web page, as a proxy answers when the server behind it is gone.
    WebPage,
    /// 302 to a page that answers 200.
    Redirect,
}

/// What the webhook's administrator has set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Channels that exist.
    pub channels: Vec<&'static str>,
    /// Users that exist.
    pub users: Vec<&'static str>,
    /// Whether the webhook may only post to its own channel.
    pub channel_locked: bool,
    /// Whether errors keep their own id, as in servers before 10.4, instead of a general one.
    pub own_error_ids: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channels: vec![HOME, "ops"],
            users: vec!["alice"],
            channel_locked: false,
            own_error_ids: false,
        }
    }
}

/// A running double; stops taking connections when dropped.
#[derive(Debug)]
pub struct Mattermost {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    settings: Settings,
    mode: watch::Sender<Mode>,
    requests: watch::Sender<usize>,
    posts: watch::Sender<Vec<Post>>,
    times: Mutex<Vec<Instant>>,
}

impl Drop for Mattermost {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Mattermost {
    /// Starts a healthy double on a free port of the loopback interface.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts a healthy double with other settings.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_with(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            settings,
            mode: watch::Sender::default(),
            requests: watch::Sender::default(),
            posts: watch::Sender::default(),
            times: Mutex::default(),
        });
        let state = Arc::clone(&shared);
        let routes = warp::method()
            .and(warp::path::full())
            .and(warp::header::headers_cloned())
            .and(warp::body::bytes())
            .then(
                move |method, path: warp::path::FullPath, headers, body: bytes::Bytes| {
                    let state = Arc::clone(&state);
                    async move { state.answer(&method, path.as_str(), &headers, &body).await }
                },
            );
        let server = tokio::spawn(warp::serve(routes).incoming(listener).run());
        Ok(Self {
            address,
            shared,
            server,
        })
    }

    /// Address of the webhook that exists.
    #[must_use]
    pub fn hook_url(&self) -> String {
        self.url(&format!("/hooks/{HOOK_ID}"))
    }

    /// Address of any path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Changes how the next requests are answered.
    pub fn set_mode(&self, mode: Mode) {
        self.shared.mode.send_replace(mode);
    }

    /// Every post accepted so far.
    #[must_use]
    pub fn posts(&self) -> Vec<Post> {
        self.shared.posts.borrow().clone()
    }

    /// When each request with posts was accepted.
    #[must_use]
    pub fn times(&self) -> Vec<Instant> {
        self.shared.times.lock().unwrap().clone()
    }

    /// How many requests came in so far, to whatever path and whatever became of them.
    #[must_use]
    pub fn requests(&self) -> usize {
        *self.shared.requests.borrow()
    }

    /// Waits until at least `count` posts have been accepted since the start, and returns them all.
    ///
    /// # Errors
    /// The posts there are when `within` is over.
    pub async fn wait_for_posts(
        &self,
        count: usize,
        within: Duration,
    ) -> Result<Vec<Post>, Vec<Post>> {
        self.wait_until(|posts| posts.len() >= count, within).await
    }

    /// Waits until the posts are as they should be, and returns them all.
    ///
    /// # Errors
    /// The posts there are when `within` is over.
    pub async fn wait_until(
        &self,
        wants: impl Fn(&[Post]) -> bool,
        within: Duration,
    ) -> Result<Vec<Post>, Vec<Post>> {
        let mut posts = self.shared.posts.subscribe();
        match timeout(within, posts.wait_for(|posts| wants(posts))).await {
            Ok(Ok(posts)) => Ok(posts.clone()),
            _ => Err(self.posts()),
        }
    }

    /// Waits until at least `count` requests have come in since the start.
    ///
    /// # Errors
    /// Their number when `within` is over.
    pub async fn wait_for_requests(&self, count: usize, within: Duration) -> Result<usize, usize> {
        let mut requests = self.shared.requests.subscribe();
        match timeout(within, requests.wait_for(|seen| *seen >= count)).await {
            Ok(Ok(seen)) => Ok(*seen),
            _ => Err(self.requests()),
        }
    }
}

type Reply = Response<Vec<u8>>;

impl Shared {
    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
        self.requests.send_modify(|seen| *seen += 1);
        let mode = self.mode.borrow().clone();
        match mode {
            Mode::Healthy => self.serve(method, path, headers, body),
            Mode::Slow(delay) => {
                tokio::time::sleep(delay).await;
                self.serve(method, path, headers, body)
            }
            Mode::Mute => {
                self.serve(method, path, headers, body);
                std::future::pending().await
            }
            Mode::RateLimited(seconds) => {
                let limited = StatusCode::TOO_MANY_REQUESTS;
                let mut reply = reply(limited, "text/plain; charset=utf-8", "limit exceeded\n");
                if let Some(seconds) = seconds {
                    reply.headers_mut().insert(RETRY_AFTER, seconds.into());
                }
                reply
            }
            Mode::Status(status) => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                self.refuse((status, CREATING), path, "application/json")
            }
            Mode::Proxy(status) => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let page = "<html><head><title>nginx</title></head></html>";
                reply(status, "text/html", page)
            }
            Mode::NotCreated => own_error(StatusCode::INTERNAL_SERVER_ERROR, CREATING, ""),
            Mode::Redirect if path.starts_with("/hooks/") => {
                let mut reply = reply(StatusCode::FOUND, "text/html", "");
                let location = HeaderValue::from_static("/login");
                reply.headers_mut().insert(LOCATION, location);
                reply
            }
            Mode::WebPage | Mode::Redirect => web_page(),
        }
    }

    fn serve(&self, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Reply {
        // The server shows its web application for any page, so that a GET proves nothing about a webhook.
        if method == Method::GET {
            return web_page();
        }
        let hook_id = path
            .strip_prefix("/hooks/")
            .filter(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric()));
        let Some(hook_id) = hook_id.filter(|_| method == Method::POST) else {
            return self.refuse(
                (StatusCode::NOT_FOUND, "api.context.404.app_error"),
                path,
                "",
            );
        };
        let media_type = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        match self
            .settings
            .accept(hook_id, media_type.unwrap_or_default(), body)
        {
            Ok(posts) => {
                self.times.lock().unwrap().push(Instant::now());
                self.posts.send_modify(|all| all.extend(posts));
                reply(StatusCode::OK, "text/plain", "ok")
            }
            Err(refusal) => self.refuse(refusal, path, media_type.unwrap_or_default()),
        }
    }

    /// An error as the server writes it: newer ones hide which it was, and show the webhook's secret id instead.
    fn refuse(&self, (status, id): Refusal, path: &str, media_type: &str) -> Reply {
        let decoding = id == "web.incoming_webhook.decode.app_error";
        let (id, message) = match path.strip_prefix("/hooks/") {
            Some(hook_id) if !self.settings.own_error_ids => {
                let general = "web.incoming_webhook.general.app_error";
                let message = format!(
                    "Failed to handle the payload of media type {media_type} for incoming webhook {hook_id}."
                );
                (if decoding { id } else { general }, message)
            }
            _ => (id, format!("Refused: {id}.")),
        };
        own_error(status, id, &message)
    }
}

fn own_error(status: StatusCode, id: &str, message: &str) -> Reply {
    let body = json!({
        "id": id,
        "message": message,
        "detailed_error": "",
        "request_id": "q1w2e3r4t5y6u7i8o9p0a1s2d3",
        "status_code": status.as_u16(),
    });
    reply(status, "application/json", &body.to_string())
}

fn web_page() -> Reply {
    reply(
        StatusCode::OK,
        "text/html; charset=utf-8",
        "<!doctype html><title>Mattermost</title>",
    )
}

fn reply(status: StatusCode, content_type: &'static str, body: &str) -> Reply {
    let mut reply = Response::new(body.as_bytes().to_vec());
    *reply.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}
