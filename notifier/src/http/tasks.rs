//! `/api/tasks`: a user starts a job of a kind that the configuration opens, and ends one of his own.

use std::sync::Arc;

use bellhop_common::amqp::PublishError;
use bellhop_common::enqueue::{EnqueueError, Enqueued, cancel, enqueue};
use bellhop_common::wire::{Job, MAX_ID_BYTES, decode_word};
use bytes::Buf;
use futures_util::Stream;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use crate::gateway::Gateway;

/// How far ahead a user may plan, in seconds: 90 days.
const MAX_DELAY: u64 = 90 * 24 * 3600;

/// How long a user may keep a unique key, in seconds: a day. Each costs the broker two queues.
const MAX_UNIQUE_FOR: u64 = 24 * 3600;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    kind: String,
    #[serde(default = "no_args")]
    args: Value,
    title: Option<String>,
    run_at: Option<Timestamp>,
    delay_s: Option<u64>,
    unique_key: Option<String>,
    unique_for_s: Option<u64>,
}

fn no_args() -> Value {
    json!({})
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path!("api" / "tasks")
        .and(warp::post())
        .and(asked(gateway))
        .and(warp::body::stream())
        .then(start)
}

/// `DELETE /api/tasks/{id}`.
pub(super) fn cancel_route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path!("api" / "tasks" / String)
        .and(warp::delete())
        .and(asked(gateway))
        .then(end)
}

/// The order names the caller, and a worker that has the task in hand compares him with its owner:
/// here nobody knows whose it is.
async fn end(id: String, asked: Asked) -> Answer {
    let (user_id, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let now = Timestamp::now();
    let id = decode_word(&id).unwrap_or(id);
    if id.is_empty() || id.len() > MAX_ID_BYTES {
        let message = format!("a task's id has 1 to {MAX_ID_BYTES} bytes");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_id", message));
    }
    cancel(&gateway.publisher, &gateway.names, &id, Some(&user_id), now)
        .await
        .map_err(|error| {
            let text = error.to_string();
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", text)
        })?;
    let answer = warp::reply::json(&json!({ "task_id": id, "status": "cancelling" }));
    Ok(warp::reply::with_status(answer, StatusCode::ACCEPTED).into_response())
}

async fn start(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (user_id, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let now = Timestamp::now();
    let body = whole_body(body).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()))?;
    let open = gateway.config.tasks.open.get(&request.kind);
    let open = open.ok_or_else(|| not_open(&request.kind))?;
    // The owner is always the caller, whatever the body might say.
    let mut job = Job::new(
        Uuid::now_v7().to_string(),
        request.kind,
        request.args,
        user_id,
    );
    job.title = request.title;
    job.run_at = request.run_at;
    job.delay_s = request.delay_s;
    job.unique_key = request.unique_key;
    job.unique_for_s = request.unique_for_s;
    within_limits(&job, now)?;
    let enqueued = enqueue(&gateway.publisher, &gateway.names, &open.queue, &job, now)
        .await
        .map_err(|error| refused(&error))?;
    Ok(accepted(&job, &enqueued, now))
}

/// Users may not start jobs of this kind.
pub(super) fn not_open(kind: &str) -> ApiError {
    let message = format!(
        "users may not start jobs of kind {kind:?}; the configuration opens a kind with \
         [tasks.open.{kind:?}]"
    );
    ApiError::new(StatusCode::FORBIDDEN, "kind_not_open", message)
}

/// What a user may ask for is less than what the wire allows.
fn within_limits(job: &Job, now: Timestamp) -> Result<(), ApiError> {
    let too_much =
        |message: String| Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_job", message));
    let latest = now.saturating_add(SignedDuration::from_hours(90 * 24));
    match (job.delay_s, job.run_at, job.unique_for_s) {
        (Some(delay), ..) if delay > MAX_DELAY => too_much(format!(
            "`delay_s` may be {MAX_DELAY} (90 days) here, it is {delay}"
        )),
        (_, Some(run_at), _) if latest.is_ok_and(|latest| run_at > latest) => too_much(format!(
            "`run_at` may be 90 days ahead here, it is {run_at}"
        )),
        (.., Some(window)) if window > MAX_UNIQUE_FOR => too_much(format!(
            "`unique_for_s` may be {MAX_UNIQUE_FOR} (a day) here, it is {window}"
        )),
        _ => Ok(()),
    }
}

fn accepted(job: &Job, enqueued: &Enqueued, now: Timestamp) -> Response {
    let (code, status) = match job.due(now) {
        _ if enqueued.duplicate => (StatusCode::OK, "duplicate"),
        Some(due) if due > now => (StatusCode::ACCEPTED, "scheduled"),
        _ => (StatusCode::ACCEPTED, "queued"),
    };
    let answer = warp::reply::json(&json!({ "task_id": enqueued.task_id, "status": status }));
    warp::reply::with_status(answer, code).into_response()
}

pub(super) fn refused(error: &EnqueueError) -> ApiError {
    let (status, code) = match error {
        EnqueueError::Job(_) | EnqueueError::Json(_) => (StatusCode::BAD_REQUEST, "bad_job"),
        EnqueueError::NoSuchQueue { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "no_such_queue"),
        EnqueueError::Publish(PublishError::TooLarge { .. }) => {
            (StatusCode::PAYLOAD_TOO_LARGE, "too_large")
        }
        EnqueueError::Claim(_) | EnqueueError::Publish(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable")
        }
    };
    ApiError::new(status, code, error.to_string())
}
