//! The key set of an issuer, from a file or a URL, kept fresh by a task of its own.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bellhop_common::telemetry::{Component, with_causes};
use metrics::counter;
use reqwest::{Client, Response, StatusCode, Url, redirect};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::configured::KeyError;
use super::jwks::{self, JwksError};
use super::keys::Key;
use crate::config::{AuthConfig, jwks_url};
use crate::metric;

/// How long one fetch may take, connection and body included.
const DEADLINE: Duration = Duration::from_secs(5);

/// How large a key set may be, in bytes.
const MAX_BYTES: usize = 256 * 1024;

/// How often strangers, who may send tokens with any `kid`, can make us ask the issuer.
const EARLY_EVERY: Duration = Duration::from_secs(30);

/// The pause after a failure, which doubles up to the longest.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LONGEST: Duration = Duration::from_mins(1);

/// Why there is no client to fetch with.
#[derive(Debug, Error)]
#[error("cannot set up an HTTP client for auth.jwks_url")]
pub struct IssuerError(#[source] reqwest::Error);

/// Why a key set could not be had.
#[derive(Debug, Error)]
enum FetchError {
    #[error("the file cannot be read")]
    File(#[source] std::io::Error),
    #[error("no answer within {DEADLINE:?}")]
    Timeout,
    #[error("the request failed")]
    Network(#[source] reqwest::Error),
    #[error("status {0}; redirects are not followed")]
    Redirect(StatusCode),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("the answer has more than {MAX_BYTES} bytes")]
    TooLarge,
    #[error(transparent)]
    Jwks(#[from] JwksError),
}

impl FetchError {
    /// The label in the metric.
    fn outcome(&self) -> &'static str {
        match self {
            Self::File(_) => "unreadable",
            Self::Timeout => "timeout",
            Self::Network(_) => "unreachable",
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::TooLarge => "too_large",
            Self::Jwks(_) => "invalid",
        }
    }
}

/// Whoever signs tokens, as far as we know his keys.
#[derive(Debug)]
pub(crate) struct Issuer {
    source: Source,
    refresh: Duration,
    /// Replaced whole. `None` until the first success.
    keys: RwLock<Option<Arc<[Key]>>>,
    wanted: Notify,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Url),
}

impl Issuer {
    /// The issuer of the configuration, if it names one. A file is read now.
    pub(super) fn new(config: &AuthConfig) -> Result<Option<Self>, KeyError> {
        let url = config
            .jwks_url
            .as_deref()
            .and_then(|url| jwks_url(url).ok());
        let (source, keys) = match (&config.jwks_file, url) {
            (Some(path), _) => (Source::File(path.clone()), Some(read_now(path)?.into())),
            (None, Some(url)) => (Source::Url(url), None),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self {
            source,
            refresh: config.jwks_refresh.0,
            keys: RwLock::new(keys),
            wanted: Notify::new(),
        }))
    }

    /// The keys as they are now.
    pub(super) fn keys(&self) -> Arc<[Key]> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone().unwrap_or_default()
    }

    /// Whether they were never had.
    pub(super) fn is_unknown(&self) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.is_none()
    }

    /// Asks for a refresh before its time. Many wishes are one.
    pub(super) fn ask(&self) {
        self.wanted.notify_one();
    }

    /// A client for the key set.
    pub(crate) fn client() -> Result<Client, IssuerError> {
        Client::builder()
            .user_agent(concat!("bellhop-notifier/", env!("CARGO_PKG_VERSION")))
            // Keys come from where the configuration says, or not at all.
            .redirect(redirect::Policy::none())
            .connect_timeout(DEADLINE)
            .timeout(DEADLINE)
            .build()
            .map_err(IssuerError)
    }

    /// Keeps the keys fresh until `stop`; `health` is up from the first success on. While the
    /// issuer is away, the keys it had go on.
    pub(crate) async fn keep_fresh(
        self: Arc<Self>,
        client: Client,
        health: Component,
        stop: CancellationToken,
    ) {
        let begun = Instant::now();
        let mut pause = RETRY_FIRST;
        let mut early_from = begun;
        let mut next = begun;
        if !self.is_unknown() {
            health.up();
            next += self.refresh;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => {}
                () = self.wanted_after(early_from) => early_from = Instant::now() + EARLY_EVERY,
            }
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.fetch(&client) => fetched,
            };
            let outcome = fetched.as_ref().err().map_or("ok", FetchError::outcome);
            counter!(metric::JWKS_REFRESHES, "outcome" => outcome).increment(1);
            match fetched {
                Ok(keys) => {
                    health.up();
                    self.replace(keys);
                    pause = RETRY_FIRST;
                    next = Instant::now() + self.refresh;
                }
                Err(error) => {
                    let error = with_causes(&error);
                    warn!(error, ?pause, "the keys of the issuer could not be fetched");
                    next = Instant::now() + pause.min(self.refresh);
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
    }

    async fn wanted_after(&self, time: Instant) {
        self.wanted.notified().await;
        sleep_until(time).await;
    }

    fn replace(&self, keys: Vec<Key>) {
        let ids: Vec<_> = keys.iter().map(|key| key.id.as_deref()).collect();
        let old = self.keys();
        if old
            .iter()
            .map(|key| key.id.as_deref())
            .eq(ids.iter().copied())
        {
            debug!(?ids, "the issuer has the same keys");
        } else {
            info!(?ids, "the issuer has new keys");
        }
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(keys.into());
    }

    async fn fetch(&self, client: &Client) -> Result<Vec<Key>, FetchError> {
        let text = match &self.source {
            Source::File(path) => tokio::fs::read(path).await.map_err(FetchError::File)?,
            Source::Url(url) => {
                let asking = ask(client, url.clone());
                timeout(DEADLINE, asking)
                    .await
                    .map_err(|_| FetchError::Timeout)??
            }
        };
        if text.len() > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        Ok(jwks::parse(&text)?)
    }
}

fn read_now(path: &Path) -> Result<Vec<Key>, KeyError> {
    let text = std::fs::read(path).map_err(|source| KeyError::JwksFile {
        path: path.display().to_string(),
        source,
    })?;
    jwks::parse(&text).map_err(|source| KeyError::Jwks {
        path: path.display().to_string(),
        source,
    })
}

async fn ask(client: &Client, url: Url) -> Result<Vec<u8>, FetchError> {
    let mut response = client.get(url).send().await.map_err(failed)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect(status));
    }
    if status != StatusCode::OK {
        return Err(FetchError::Status(status));
    }
    body(&mut response).await
}

async fn body(response: &mut Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > MAX_BYTES {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Without the address, whose query may be somebody's secret.
fn failed(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        return FetchError::Timeout;
    }
    FetchError::Network(error.without_url())
}
