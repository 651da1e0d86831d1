//! Sends a message to a browser: one request, no retries.
//!
//! The caller keeps the message until it is sent, and asks the error what it means for the device. An
//! endpoint is a secret; nothing here shows more of it than its host.

use std::error::Error;
use std::time::Duration;

use bellhop_common::http::retry_after;
use jiff::Timestamp;
use metrics::counter;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect};
use thiserror::Error as ThisError;

use super::answer::{ANSWER_MAX, presentable};
use super::devices::Verdict;
use super::endpoint::{Endpoint, Policy};
use super::note::{MAX_BODY, PushNote};
use super::resolver::{ForbiddenAddress, Guarded};
use super::subscription::{Subscription, SubscriptionError};
use super::vapid::{Vapid, VapidError, VapidKey};
use crate::config::PushConfig;
use crate::metric;
use crate::stranger::beginning;

/// How long a connection may take, its name's address included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the whole may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait that a push service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Why pushes cannot be sent at all.
#[derive(Debug, ThisError)]
pub enum PusherError {
    /// The configuration has no key.
    #[error("push.key_file is not set; `notifier vapid` makes a key")]
    NoKey,
    /// The configuration has no contact.
    #[error("push.subject is not set")]
    NoSubject,
    /// The key.
    #[error(transparent)]
    Key(#[from] VapidError),
    /// The HTTP client.
    #[error("cannot set up an HTTPS client for pushes")]
    Client(#[source] reqwest::Error),
    /// The process has not chosen who does its TLS.
    #[error("no TLS provider is installed")]
    NoTlsProvider,
}

/// Why a message was not taken.
#[derive(Debug, ThisError)]
pub enum PushError {
    /// The push service knows no such browser (404, 410).
    #[error("the browser has given its subscription up")]
    Gone,
    /// Too much for this push service (413), or for any: a shorter one may be taken.
    #[error("the message is too large")]
    TooLarge,
    /// The push service does not want it, and will not later either.
    #[error("{host} refused the message with status {status}: {reason}")]
    Refused {
        /// The push service.
        host: String,
        /// The HTTP status, 300 to 499.
        status: u16,
        /// What it said, in one line of at most 256 bytes, without the endpoint.
        reason: String,
    },
    /// The subscription was made for another key of ours.
    #[error("the subscription was made for another key than push.key_file has")]
    OtherKey,
    /// The subscription cannot be sent to.
    #[error(transparent)]
    Unusable(#[from] SubscriptionError),
    /// The endpoint's name means no machine on the public internet.
    #[error("{host} is not on the public internet")]
    ForbiddenAddress {
        /// The endpoint's host.
        host: String,
    },
    /// The push service takes no more for now.
    #[error("{host} takes no more messages for now")]
    RateLimited {
        /// The push service.
        host: String,
        /// How long it asks to wait, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The push service, or something on the way to it, does not work. It may later.
    #[error("{host} is not available")]
    Unavailable {
        /// The push service.
        host: String,
        /// What happened instead.
        #[source]
        outage: Outage,
        /// How long it asks to wait, at most an hour.
        retry_after: Option<Duration>,
    },
    /// The request could not be made.
    #[error("the message cannot be encrypted")]
    Encrypt,
    /// The request could not be signed.
    #[error(transparent)]
    Sign(#[from] VapidError),
}

/// What came instead of an answer.
#[derive(Debug, ThisError)]
pub enum Outage {
    /// An answer that says so.
    #[error("status {status}: {reason}")]
    Answer {
        /// The HTTP status.
        status: u16,
        /// What it said, in one line of at most 256 bytes, without the endpoint.
        reason: String,
    },
    /// No answer in time.
    #[error("no answer within {TIMEOUT:?}")]
    Timeout(#[source] reqwest::Error),
    /// No connection, or one that broke.
    #[error("the request failed")]
    Network(#[source] reqwest::Error),
}

impl PushError {
    /// What it says about the device.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Gone => Verdict::Gone,
            Self::Refused { .. }
            | Self::OtherKey
            | Self::Unusable(_)
            | Self::ForbiddenAddress { .. } => Verdict::Refused,
            Self::TooLarge
            | Self::RateLimited { .. }
            | Self::Unavailable { .. }
            | Self::Encrypt
            | Self::Sign(_) => Verdict::Unknown,
        }
    }

    /// Whether the same message may be taken later.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. })
    }

    /// How long the push service asks to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Unavailable { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    fn label(&self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::TooLarge => "too_large",
            Self::Refused { .. } | Self::OtherKey | Self::Unusable(_) => "refused",
            Self::ForbiddenAddress { .. } => "forbidden_address",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable { .. } => "unavailable",
            Self::Encrypt | Self::Sign(_) => "failed",
        }
    }
}

/// Sends messages to browsers.
#[derive(Debug)]
pub struct Pusher {
    client: Client,
    policy: Policy,
    vapid: Vapid,
}

impl Pusher {
    /// As the configuration says. Needs a TLS provider installed for the process.
    ///
    /// # Errors
    /// [`PusherError`] if there is no key, or it cannot be read.
    pub fn new(config: &PushConfig) -> Result<Self, PusherError> {
        let path = config.key_file.as_deref().ok_or(PusherError::NoKey)?;
        let subject = config.subject.as_deref().ok_or(PusherError::NoSubject)?;
        let key = VapidKey::read(path)?;
        // The client would panic.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            return Err(PusherError::NoTlsProvider);
        }
        let policy = Policy::new(config);
        let client = Client::builder()
            .user_agent(concat!("bellhop-notifier/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(Guarded::new(policy.clone()))
            // Either would lead past the resolver.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            // Over HTTP/2 a request that is given up leaves its connection to the next, also one that
            // something on the way has forgotten.
            .http2_keep_alive_interval(TIMEOUT)
            .http2_keep_alive_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(PusherError::Client)?;
        let vapid = Vapid::new(key, subject);
        Ok(Self {
            client,
            policy,
            vapid,
        })
    }

    /// What browsers are told as `applicationServerKey`.
    #[must_use]
    pub fn public_key(&self) -> &str {
        self.vapid.key().public()
    }

    /// Which endpoints are taken.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Sends a message, and waits until the push service has taken it. That is no promise that
    /// somebody sees it.
    ///
    /// # Errors
    /// [`PushError`].
    pub async fn send(
        &self,
        subscription: &Subscription,
        note: &PushNote,
    ) -> Result<(), PushError> {
        let sent = self.try_to_send(subscription, note).await;
        let outcome = sent.as_ref().err().map_or("taken", PushError::label);
        counter!(metric::PUSHES, "outcome" => outcome).increment(1);
        sent
    }

    async fn try_to_send(
        &self,
        subscription: &Subscription,
        note: &PushNote,
    ) -> Result<(), PushError> {
        let endpoint = self.endpoint(subscription)?;
        let request = self.request(&endpoint, subscription, note)?;
        let answered = async {
            let mut response = request.send().await?;
            // Taken is taken, whatever is said about it.
            let body = if response.status().is_success() {
                Vec::new()
            } else {
                beginning(&mut response, ANSWER_MAX).await?
            };
            Ok((response, body))
        };
        match answered.await {
            Ok((response, body)) => verdict(&endpoint, &response, &body),
            Err(error) => Err(no_answer(&endpoint, error)),
        }
    }

    /// Whether a subscription can be tried: it was made for our key, and its endpoint may be taken.
    pub(crate) fn suits(&self, subscription: &Subscription) -> bool {
        self.endpoint(subscription).is_ok()
    }

    fn endpoint(&self, subscription: &Subscription) -> Result<Endpoint, PushError> {
        if subscription.key != self.public_key() {
            return Err(PushError::OtherKey);
        }
        // Again, because the configuration may say otherwise than when the browser gave it.
        let endpoint = self.policy.check(&subscription.endpoint);
        Ok(endpoint.map_err(SubscriptionError::from)?)
    }

    fn request(
        &self,
        endpoint: &Endpoint,
        subscription: &Subscription,
        note: &PushNote,
    ) -> Result<RequestBuilder, PushError> {
        if note.body.len() > MAX_BODY {
            return Err(PushError::TooLarge);
        }
        let (key, auth) = subscription.keys()?;
        let body = web_push_native::encrypt(note.body.to_vec(), &key, &auth);
        let body = body.map_err(|_| PushError::Encrypt)?;
        let signed = self
            .vapid
            .authorization(&endpoint.origin(), Timestamp::now())?;
        let mut request = self
            .client
            .post(endpoint.url().clone())
            .header("ttl", note.ttl.as_secs())
            .header("urgency", note.urgency.as_str())
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(AUTHORIZATION, signed)
            .body(body);
        if let Some(topic) = &note.topic {
            request = request.header("topic", topic.as_str());
        }
        Ok(request)
    }
}

fn no_answer(endpoint: &Endpoint, error: reqwest::Error) -> PushError {
    let host = endpoint.host().to_owned();
    let error = error.without_url();
    if has_cause::<ForbiddenAddress>(&error) {
        return PushError::ForbiddenAddress { host };
    }
    let outage = if error.is_timeout() {
        Outage::Timeout(error)
    } else {
        Outage::Network(error)
    };
    PushError::Unavailable {
        host,
        outage,
        retry_after: None,
    }
}

fn has_cause<E: Error + 'static>(error: &dyn Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn verdict(endpoint: &Endpoint, response: &Response, body: &[u8]) -> Result<(), PushError> {
    let status = response.status();
    let host = endpoint.host().to_owned();
    let header = response.headers().get(RETRY_AFTER);
    let asked = header.and_then(|header| header.to_str().ok());
    let retry_after = asked.and_then(|asked| retry_after(asked, Timestamp::now(), RETRY_AFTER_MAX));
    let reason = || presentable(body, endpoint);
    match status {
        _ if status.is_success() => Ok(()),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(PushError::Gone),
        StatusCode::PAYLOAD_TOO_LARGE => Err(PushError::TooLarge),
        StatusCode::TOO_MANY_REQUESTS => Err(PushError::RateLimited { host, retry_after }),
        _ if status.is_redirection() => Err(PushError::Refused {
            host,
            status: status.as_u16(),
            reason: "redirects are not followed".into(),
        }),
        _ if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT => {
            Err(PushError::Refused {
                host,
                status: status.as_u16(),
                reason: reason(),
            })
        }
        _ => Err(PushError::Unavailable {
            host,
            outage: Outage::Answer {
                status: status.as_u16(),
                reason: reason(),
            },
            retry_after,
        }),
    }
}
