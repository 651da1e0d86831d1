//! Asks the backend whether a user may enter.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::config::Secret;
use metrics::counter;
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::Unavailable;
use super::answers::Answers;
use super::memberships::Moment;
use crate::config::RoomsConfig;
use crate::metric;
use crate::protocol::Place;

/// How many questions may be out at once. After a restart, every client comes with its own; the
/// others wait here rather than at the backend, within the same time.
const MAX_QUESTIONS: usize = 64;

/// The largest answer, in bytes.
const MAX_ANSWER: usize = 4096;

/// The HTTP client cannot be set up.
#[derive(Debug, Error)]
#[error("rooms.callback_url cannot be asked")]
pub struct CallbackError(#[source] reqwest::Error);

/// What goes wrong with a question.
#[derive(Debug, Error)]
enum Problem {
    #[error("no answer within {0:?}")]
    Late(Duration),
    // Without its address, which may have a secret in it.
    #[error("{0}")]
    Http(#[source] reqwest::Error),
    #[error("the answer has the status {0}")]
    Status(StatusCode),
    #[error("the answer is not {{\"allowed\": true}} or {{\"allowed\": false}}")]
    Body,
}

#[derive(Debug)]
pub(super) struct Backend {
    client: Client,
    url: String,
    secret: Option<Secret>,
    limit: Duration,
    answers: Mutex<Answers>,
    places: Semaphore,
}

#[derive(Deserialize)]
struct Answer {
    allowed: bool,
}

impl Backend {
    pub(super) fn new(url: &str, config: &RoomsConfig) -> Result<Self, CallbackError> {
        let client = Client::builder()
            // The answer must come from whom the configuration names.
            .redirect(Policy::none())
            .timeout(config.callback_timeout.0)
            .build()
            .map_err(|error| CallbackError(error.without_url()))?;
        Ok(Self {
            client,
            url: url.to_owned(),
            secret: config.callback_secret.clone(),
            limit: config.callback_timeout.0,
            answers: Mutex::new(Answers::new(config.callback_cache.0)),
            places: Semaphore::new(MAX_QUESTIONS),
        })
    }

    pub(super) fn known(&self, user: &str, place: &Place, now: Instant) -> Option<bool> {
        self.answers().get(user, place, now)
    }

    pub(super) fn forget(&self, user: &str, place: &Place) {
        self.answers().forget(user, place);
    }

    pub(super) async fn ask(
        &self,
        user: &str,
        place: &Place,
        now: impl Fn() -> Moment,
        is_settled: impl Fn(Moment) -> bool,
    ) -> Result<bool, Unavailable> {
        let asking = async {
            loop {
                let asked = now();
                let allowed = self.question(user, place).await?;
                let mut answers = self.answers();
                // Under the lock by which answers are forgotten.
                if is_settled(asked) {
                    answers.put(user, place, allowed, Instant::now());
                    return Ok(allowed);
                }
            }
        };
        let answer = timeout(self.limit, asking).await;
        let outcome = answer.unwrap_or(Err(Problem::Late(self.limit)));
        let outcome = outcome.map_err(|error| {
            warn!(%error, "rooms.callback_url gave no answer, so the user may not enter");
            Unavailable
        });
        let label = match &outcome {
            Ok(true) => "allowed",
            Ok(false) => "refused",
            Err(Unavailable) => "failed",
        };
        counter!(metric::CALLBACKS, "outcome" => label).increment(1);
        outcome
    }

    async fn question(&self, user: &str, place: &Place) -> Result<bool, Problem> {
        // Never closed, so there is always a permit to wait for.
        let _place = self.places.acquire().await.ok();
        let mut question = Map::new();
        question.insert("user_id".into(), user.into());
        question.insert(place.kind.field().into(), Value::from(&*place.id));
        let mut request = self.client.post(&self.url).json(&question);
        if let Some(secret) = &self.secret {
            request = request.bearer_auth(secret.expose());
        }
        let response = request.send().await.map_err(http)?;
        match response.status() {
            StatusCode::OK => read(response).await,
            StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => Ok(false),
            status => Err(Problem::Status(status)),
        }
    }

    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(mut response: Response) -> Result<bool, Problem> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(Problem::Body);
        }
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| Problem::Body)?;
    Ok(answer.allowed)
}

fn http(error: reqwest::Error) -> Problem {
    Problem::Http(error.without_url())
}
