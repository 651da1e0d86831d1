//! Posts to a Mattermost incoming webhook.
//!
//! One request per call and no retries: the caller keeps the message until [`Mattermost::post`] succeeds, and asks
//! [`retry_pause`] how long to wait in between. The webhook's address is a secret, since whoever has it can post;
//! nothing here shows more of it than its host.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use bellhop_common::http::retry_after;
use bellhop_common::wire::cut;
use jiff::Timestamp;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, Url, redirect};
use serde::Deserialize;

use super::post::Post;
use crate::config::ReceiverKind;
use crate::stranger::{beginning, line};

/// Longest wait a server may ask for. A mistaken answer must not silence the alerts for a day.
pub(super) const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Shortest pause before another attempt when the server does not ask for one.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Longest pause before another attempt when the server does not ask for one.
const PAUSE_MAX: Duration = Duration::from_mins(5);

/// Longest wait for the connection, however long the whole request may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer is read, in bytes. Success is two bytes, and a reason is shown in far less.
const ANSWER_MAX: usize = 4096;

/// The error of a post that Mattermost cannot store: there may be something wrong with the post, or
/// with the database. Since 10.4 it is hidden behind another.
const NOT_STORED: &str = "api.post.create_webhook_post.creating.app_error";

/// How often a post is tried that cannot be stored. A database that restarts is back by then.
const NOT_STORED_TRIES: u32 = 10;

/// How much of an answer is shown, in bytes.
const REASON_MAX: usize = 256;

/// Address of an incoming webhook, `https://chat.example.com/hooks/<id>`. Shown as its host only.
#[derive(Clone)]
pub struct WebhookUrl {
    url: Url,
    hook_id: String,
    kind: ReceiverKind,
}

/// Why an address is not one of an incoming webhook. Never holds the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookUrlError {
    /// Of Mattermost's.
    #[error(
        "not the address of a mattermost incoming webhook ({0}); it looks like https://chat.example.com/hooks/<id> and is shown under Integrations > Incoming Webhooks"
    )]
    Mattermost(&'static str),
    /// Of Slack's.
    #[error(
        "not the address of a slack incoming webhook ({0}); it looks like https://hooks.slack.com/services/<three ids>"
    )]
    Slack(&'static str),
}

impl FromStr for WebhookUrl {
    type Err = WebhookUrlError;

    fn from_str(address: &str) -> Result<Self, Self::Err> {
        let problem = WebhookUrlError::Mattermost;
        let url = web_url(address).map_err(problem)?;
        let (_, hook_id) = url.path().rsplit_once("/hooks/").unwrap_or_default();
        if hook_id.is_empty() || !hook_id.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(problem("its path does not end in /hooks/ and an id"));
        }
        let hook_id = hook_id.to_owned();
        Ok(Self {
            url,
            hook_id,
            kind: ReceiverKind::Mattermost,
        })
    }
}

impl WebhookUrl {
    /// Slack's, `https://hooks.slack.com/services/<three ids>`.
    ///
    /// # Errors
    /// [`WebhookUrlError`] if it is not an address with such a path.
    pub fn of_slack(address: &str) -> Result<Self, WebhookUrlError> {
        let url = web_url(address).map_err(WebhookUrlError::Slack)?;
        let hook_id = url.path().rsplit('/').next().unwrap_or_default().to_owned();
        if hook_id.is_empty() {
            return Err(WebhookUrlError::Slack("its path does not end in an id"));
        }
        Ok(Self {
            url,
            hook_id,
            kind: ReceiverKind::Slack,
        })
    }
}

fn web_url(address: &str) -> Result<Url, &'static str> {
    let url = Url::parse(address.trim()).map_err(|_| "it is not an address")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("it does not start with https:// or http://");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("there is a ? or # in it");
    }
    Ok(url)
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.url.host_str().unwrap_or_default())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({self})")
    }
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The process has not chosen who does its TLS.
    #[error("no TLS provider is installed")]
    NoTlsProvider,
    /// For instance because the system has no CA certificates.
    #[error("cannot set up an HTTPS client")]
    Client(#[source] reqwest::Error),
}

/// Why a post did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// The server takes no more posts for now.
    #[error("the webhook takes no more posts for now")]
    RateLimited {
        /// How long the server asks to wait, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The server, or something on the way to it, does not work. It may later.
    #[error("the webhook is not available")]
    Unavailable {
        /// What happened instead.
        #[source]
        outage: Outage,
        /// How long the server asks to wait, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The server does not want this post, and will not later either. Of Mattermost, it is its own
    /// word, and no proxy's.
    #[error("the webhook refused the post with status {status}: {reason}")]
    Refused {
        /// The HTTP status, 300 to 499, or 500 of what cannot be stored.
        status: u16,
        /// What the server said, in one line of at most 256 bytes, without the webhook's id.
        reason: String,
    },
}

impl PostError {
    /// The same after so many failures before it of what it is about: what the server cannot store
    /// is refused in the end.
    #[must_use]
    pub(crate) fn after(self, failures: u32) -> Self {
        match self {
            Self::Unavailable {
                outage: Outage::NotStored { status, reason },
                ..
            } if failures.saturating_add(1) >= NOT_STORED_TRIES => Self::Refused { status, reason },
            error => error,
        }
    }

    /// Whether the post may be in all the same: it was sent, and the answer got lost.
    #[must_use]
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Unavailable { outage, .. } => match outage {
                Outage::Timeout(error) | Outage::Network(error) => !error.is_connect(),
                Outage::Answer { .. } | Outage::NotStored { .. } => false,
            },
            Self::RateLimited { .. } | Self::Refused { .. } => false,
        }
    }
}

/// What came instead of an answer from a working Mattermost.
#[derive(Debug, thiserror::Error)]
pub enum Outage {
    /// An answer that says so, or one that Mattermost would not give, such as a proxy's page.
    #[error("status {status}: {reason}")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What the answer said, in one line of at most 256 bytes, without the webhook's id.
        reason: String,
    },
    /// Mattermost cannot store the post.
    #[error("status {status}: {reason}")]
    NotStored {
        /// The HTTP status.
        status: u16,
        /// As above.
        reason: String,
    },
    /// No answer within the time allowed.
    #[error("no answer in time")]
    Timeout(#[source] reqwest::Error),
    /// No connection, or one that broke.
    #[error("the request failed")]
    Network(#[source] reqwest::Error),
}

/// A client for one webhook. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mattermost {
    client: Client,
    webhook: WebhookUrl,
}

impl Mattermost {
    /// A client that gives up on a request after `timeout`, connection and answer included.
    ///
    /// Needs a TLS provider installed for the process, even for an `http` address.
    ///
    /// # Errors
    /// When there is none, or when the system's certificates cannot be read.
    pub fn new(webhook: WebhookUrl, timeout: Duration) -> Result<Self, SetupError> {
        // The client would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(SetupError::NoTlsProvider);
        }
        let client = Client::builder()
            .user_agent(concat!("bellhop-notifier/", env!("CARGO_PKG_VERSION")))
            // Following one would turn the post into a GET, or give the secret to another host.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT.min(timeout))
            .timeout(timeout)
            .build()
            .map_err(SetupError::Client)?;
        Ok(Self { client, webhook })
    }

    /// Sends one post and waits until the server has taken it.
    ///
    /// # Errors
    /// [`PostError::Refused`] is final for this post; after the others it should be sent again, no sooner than
    /// [`retry_pause`] says. A post whose answer got lost may show up twice then.
    pub async fn post(&self, post: &Post) -> Result<(), PostError> {
        let request = self.client.post(self.webhook.url.clone()).json(post);
        let mut response = request.send().await.map_err(no_answer)?;
        let status = response.status();
        let header = |name| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let retry_after = header(RETRY_AFTER)
            .and_then(|asked| retry_after(&asked, Timestamp::now(), RETRY_AFTER_MAX));
        let location = header(LOCATION);
        let body = beginning(&mut response, ANSWER_MAX)
            .await
            .map_err(no_answer)?;
        let answer = Answer {
            status,
            retry_after,
            location: location.as_deref(),
            body: &body,
        };
        answer.verdict(&self.webhook)
    }
}

fn no_answer(error: reqwest::Error) -> PostError {
    let error = error.without_url();
    let outage = if error.is_timeout() {
        Outage::Timeout(error)
    } else {
        Outage::Network(error)
    };
    PostError::Unavailable {
        outage,
        retry_after: None,
    }
}

/// What the server answered.
struct Answer<'a> {
    status: StatusCode,
    retry_after: Option<Duration>,
    location: Option<&'a str>,
    body: &'a [u8],
}

impl Answer<'_> {
    fn verdict(&self, webhook: &WebhookUrl) -> Result<(), PostError> {
        let (retry_after, status) = (self.retry_after, self.status.as_u16());
        let reason = || self.reason(&webhook.hook_id);
        let error_id = match webhook.kind {
            ReceiverKind::Mattermost => self.error_id(),
            ReceiverKind::Slack => None,
        };
        let is_final = match (webhook.kind, self.status) {
            (_, StatusCode::REQUEST_TIMEOUT) => false,
            // While Mattermost restarts, a proxy before it may well answer 403 or 404.
            (ReceiverKind::Mattermost, status) if status.is_client_error() => error_id.is_some(),
            (_, status) => status.is_client_error() || status.is_redirection(),
        };
        match self.status {
            // A proxy or a web server answers 200 to anything; Mattermost answers `ok`.
            StatusCode::OK if self.body == b"ok" => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(PostError::RateLimited { retry_after }),
            _ if is_final => Err(PostError::Refused {
                status,
                reason: reason(),
            }),
            _ => {
                let reason = reason();
                let outage = if error_id.as_deref() == Some(NOT_STORED) {
                    Outage::NotStored { status, reason }
                } else {
                    Outage::Answer { status, reason }
                };
                Err(PostError::Unavailable {
                    outage,
                    retry_after,
                })
            }
        }
    }

    /// What Mattermost calls the error, if that is who answers.
    fn error_id(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct AppError {
            id: String,
        }
        let error: AppError = serde_json::from_slice(self.body).ok()?;
        error.id.ends_with(".app_error").then_some(error.id)
    }

    fn reason(&self, hook_id: &str) -> String {
        if self.status.is_redirection() {
            let location = self.location.unwrap_or("nowhere");
            let advice = format!(
                "redirects are not followed, set the final address of the webhook; to {location}"
            );
            return presentable(&advice, hook_id);
        }
        match presentable(&String::from_utf8_lossy(self.body), hook_id) {
            reason if reason.is_empty() => "no reason given".to_owned(),
            reason => reason,
        }
    }
}

/// A stranger's text as one line for a log: without the webhook's id, which Mattermost repeats in its errors, and cut.
fn presentable(text: &str, hook_id: &str) -> String {
    // As a line first, or the id could come back together when what split it is dropped.
    let text = line(text).replace(hook_id, "<redacted>");
    cut(&text, REASON_MAX).to_owned()
}

/// How long to wait before the next attempt.
///
/// `consecutive_failures` counts the failed attempts since the last success, this one included. The limit doubles with
/// each, from 2 s to 5 min, and `jitter` (0 to 1, random) picks a point between 1 s and that limit, so that several
/// clients do not come back at the same moment. The server is never asked sooner than it wants.
#[must_use]
pub fn retry_pause(error: &PostError, consecutive_failures: u32, jitter: f64) -> Duration {
    let limit = PAUSE_MIN
        .saturating_mul(2_u32.saturating_pow(consecutive_failures.max(1)))
        .min(PAUSE_MAX);
    let jitter = if jitter.is_finite() {
        jitter.clamp(0.0, 1.0)
    } else {
        1.0
    };
    let pause = PAUSE_MIN + limit.saturating_sub(PAUSE_MIN).mul_f64(jitter);
    let asked = match error {
        PostError::RateLimited { retry_after } | PostError::Unavailable { retry_after, .. } => {
            *retry_after
        }
        PostError::Refused { .. } => None,
    };
    pause.max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests;
