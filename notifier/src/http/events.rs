//! `POST /api/events`: a backend without AMQP says what happened.

mod repeats;
mod request;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bellhop_common::amqp::{Message, PublishError, Route};
use bellhop_common::wire::Audience;
use bytes::Buf;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use metrics::counter;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use self::repeats::{Begun, Key, MAX_KEY_BYTES, Repeats};
use self::request::{Prepared, RequestError, prepare};
use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use crate::gateway::Gateway;
use crate::metric;

/// To how many recipients the events of one request are published at once. To each they go one
/// after the other, so that none overtakes another.
const AT_ONCE: usize = 16;

struct Desk {
    gateway: Arc<Gateway>,
    repeats: Mutex<Repeats>,
    hasher: RandomState,
}

/// A request with a key, while it is worked on: whatever happens, the key is not left in progress.
struct Ticket {
    desk: Arc<Desk>,
    key: Key,
    done: bool,
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let desk = Arc::new(Desk {
        gateway: Arc::clone(&gateway),
        repeats: Mutex::default(),
        hasher: RandomState::new(),
    });
    warp::path!("api" / "events")
        .and(warp::post())
        .and(asked(gateway))
        .and(warp::header::optional("idempotency-key"))
        .and(warp::body::stream())
        .then(move |asked, key, body| publish(Arc::clone(&desk), asked, key, body))
}

async fn publish(
    desk: Arc<Desk>,
    asked: Asked,
    key: Option<String>,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    let user = asked.publisher()?.user_id;
    let key = key.map(|text| key_of(user, text)).transpose()?;
    let body = whole_body(body).await?;
    let id = |index| {
        key.as_ref()
            .map_or_else(Uuid::now_v7, |key| key.event_id(index))
    };
    let events = prepare(&body, Timestamp::now(), id).map_err(|error| refused(&error))?;
    let ids: Vec<Uuid> = events.iter().map(|event| event.id).collect();
    let mut ticket = None;
    if let Some(key) = key {
        ticket = desk.begin(key, &body)?;
        if ticket.is_none() {
            counter!(metric::PUBLISHED, "outcome" => "repeated").increment(ids.len() as u64);
            return Ok(accepted(&ids));
        }
    }
    // To its end even if the client leaves: what a repetition is answered must be true.
    let gateway = Arc::clone(&desk.gateway);
    let working = desk.gateway.sessions.spawn(async move {
        let sent = send(&gateway, events).await;
        if let Some(mut ticket) = ticket {
            ticket.done = sent.is_ok();
        }
        sent
    });
    match working.await {
        Ok(Ok(())) => Ok(accepted(&ids)),
        Ok(Err(error)) => Err(unsent(&error)),
        Err(_) => Err(ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong here",
        )),
    }
}

fn accepted(ids: &[Uuid]) -> Response {
    let answer = warp::reply::json(&json!({ "ids": ids }));
    warp::reply::with_status(answer, StatusCode::ACCEPTED).into_response()
}

fn key_of(user: String, text: String) -> Result<Key, ApiError> {
    if (1..=MAX_KEY_BYTES).contains(&text.len()) {
        return Ok(Key { user, text });
    }
    let message = format!("Idempotency-Key must have 1 to {MAX_KEY_BYTES} bytes");
    Err(ApiError::new(
        StatusCode::BAD_REQUEST,
        "bad_header",
        message,
    ))
}

impl Desk {
    /// Whether a request with a key is to be worked on; otherwise it has been.
    fn begin(self: &Arc<Self>, key: Key, body: &[u8]) -> Result<Option<Ticket>, ApiError> {
        let body = self.hasher.hash_one(body);
        let begun = self.repeats().begin(&key, body, Instant::now());
        match begun {
            Begun::New => Ok(Some(Ticket {
                desk: Arc::clone(self),
                key,
                done: false,
            })),
            Begun::Done => Ok(None),
            Begun::InProgress => {
                let message = "a request with this Idempotency-Key is being worked on: try again";
                Err(ApiError::new(StatusCode::CONFLICT, "in_progress", message))
            }
            Begun::OtherBody => {
                let message = "this Idempotency-Key came with another body before";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Err(ApiError::new(status, "key_reused", message))
            }
        }
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut repeats = self.desk.repeats();
        if self.done {
            repeats.done(&self.key, Instant::now());
        } else {
            repeats.failed(&self.key);
        }
    }
}

/// Publishes all, or as many as there are until one fails.
async fn send(gateway: &Gateway, events: Vec<Prepared>) -> Result<(), PublishError> {
    let mut by_recipient: HashMap<Audience, Vec<Prepared>> = HashMap::new();
    for event in events {
        let events = by_recipient.entry(event.audience.clone()).or_default();
        events.push(event);
    }
    let sent = stream::iter(by_recipient.into_values())
        .map(|events| send_in_order(gateway, events))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await;
    if let Err(error) = &sent {
        counter!(metric::PUBLISHED, "outcome" => "failed").increment(1);
        warn!(%error, "an event of a backend was not published");
    }
    sent
}

async fn send_in_order(gateway: &Gateway, events: Vec<Prepared>) -> Result<(), PublishError> {
    let exchange = gateway.names.events();
    for event in events {
        let route = Route {
            exchange: &exchange,
            key: &event.key,
            // Nobody may be listening to a live one; a stored one must be kept.
            mandatory: event.stored,
        };
        let message = Message {
            body: event.body,
            id: Some(event.id.to_string()),
            kind: Some(event.kind),
            persistent: event.stored,
            ..Message::default()
        };
        gateway.publisher.publish(route, &message).await?;
        counter!(metric::PUBLISHED, "outcome" => "sent").increment(1);
    }
    Ok(())
}

fn refused(error: &RequestError) -> ApiError {
    let code = match error {
        RequestError::Json(_) => "bad_json",
        RequestError::Count(_) | RequestError::Field { .. } | RequestError::Key { .. } => {
            "bad_event"
        }
    };
    ApiError::new(StatusCode::BAD_REQUEST, code, error.to_string())
}

fn unsent(error: &PublishError) -> ApiError {
    let (status, code) = match error {
        PublishError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable"),
    };
    let message = format!("{error}; some of the events may have been published");
    ApiError::new(status, code, message)
}
