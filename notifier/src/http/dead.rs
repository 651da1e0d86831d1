//! `/api/dead`: the dead letters, for administrators.

mod request;

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::BrowseError;
use bellhop_common::dead_letters::{Bounds, Office, Report};
use bellhop_common::telemetry::with_causes;
use bytes::Buf;
use futures_util::Stream;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use self::request::{Order, Query, decoded};
use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use crate::gateway::Gateway;

/// How long to wait for somebody else who looks through the dead letters.
const TURN: Duration = Duration::from_secs(5);

/// How long one request may look through them.
const WORK: Duration = Duration::from_secs(30);

/// More letters of one id than anybody wants to read.
const MAX_SHOWN: usize = 20;

/// The dead letters, for one request at a time: each holds what it looks at.
struct Desk {
    gateway: Arc<Gateway>,
    office: Office,
    turn: Arc<Semaphore>,
}

/// `GET /api/dead`, `GET /api/dead/{id}`, `POST /api/dead/replay`, `POST /api/dead/drop`.
pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let office = Office::new(&gateway.config.amqp, "notifier dead letters");
    let desk = Arc::new(Desk {
        gateway: Arc::clone(&gateway),
        office,
        turn: Arc::new(Semaphore::new(1)),
    });
    let desk = warp::any().map(move || Arc::clone(&desk));
    let asked = desk.and(asked(gateway));
    let list = warp::path!("api" / "dead")
        .and(warp::get())
        .and(asked.clone())
        .and(warp::query())
        .then(list);
    let show = warp::path!("api" / "dead" / String)
        .and(warp::get())
        .and(asked.clone())
        .then(show);
    let replay = warp::path!("api" / "dead" / "replay")
        .and(warp::post())
        .and(asked.clone())
        .and(warp::body::stream())
        .then(replay);
    let drop = warp::path!("api" / "dead" / "drop")
        .and(warp::post())
        .and(asked)
        .and(warp::body::stream())
        .then(discard);
    list.or(show).unify().or(replay).unify().or(drop).unify()
}

async fn list(desk: Arc<Desk>, asked: Asked, query: Vec<(String, String)>) -> Answer {
    asked.administrator()?;
    let Query { filter, limit } = Query::read(query)?;
    let at = Arc::clone(&desk);
    desk.work(async move {
        let mut letters = Vec::new();
        let each = |letter| letters.push(letter);
        let listing = at.office.list(&filter, limit, &at.bounds(), each).await?;
        let (more, complete) = (listing.more, listing.complete);
        let answer = json!({ "letters": letters, "more": more, "complete": complete });
        Ok(warp::reply::json(&answer).into_response())
    })
    .await
}

async fn show(id: String, desk: Arc<Desk>, asked: Asked) -> Answer {
    asked.administrator()?;
    let id = decoded(&id)?;
    let at = Arc::clone(&desk);
    desk.work(async move {
        let letters = at.office.open(&id, MAX_SHOWN, &at.bounds()).await?;
        if letters.is_empty() {
            return Ok(not_there(&[id]).into_response());
        }
        Ok(warp::reply::json(&json!({ "letters": letters })).into_response())
    })
    .await
}

async fn replay(
    desk: Arc<Desk>,
    asked: Asked,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    asked.administrator()?;
    let Order { filter, queue } = Order::read(&whole_body(body).await?)?;
    let at = Arc::clone(&desk);
    desk.work(async move {
        let (publisher, bounds, queue) = (&at.gateway.publisher, at.bounds(), queue.as_deref());
        let report = at.office.replay(publisher, &filter, queue, &bounds).await?;
        Ok(told("replayed", &report))
    })
    .await
}

async fn discard(
    desk: Arc<Desk>,
    asked: Asked,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    asked.administrator()?;
    let order = Order::read(&whole_body(body).await?)?;
    if order.queue.is_some() {
        let message = "a letter that is dropped goes into no queue: leave `queue` out";
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            message,
        ));
    }
    let at = Arc::clone(&desk);
    desk.work(async move {
        let report = at.office.discard(&order.filter, &at.bounds()).await?;
        Ok(told("dropped", &report))
    })
    .await
}

impl Desk {
    fn bounds(&self) -> Bounds {
        Bounds {
            turn: TURN,
            work: WORK,
            stop: self.gateway.stop.clone(),
        }
    }

    /// Does one piece of work when it is its turn, and to its end even if the client leaves: what
    /// is held goes back in order.
    async fn work(
        &self,
        work: impl Future<Output = Result<Response, BrowseError>> + Send + 'static,
    ) -> Answer {
        let turn = Arc::clone(&self.turn).acquire_owned();
        // The semaphore is never closed.
        let Ok(Ok(turn)) = timeout(TURN, turn).await else {
            let message = format!(
                "another request looks through the dead letters, for longer than {TURN:?} now: try \
                 again"
            );
            return Err(ApiError::new(StatusCode::CONFLICT, "busy", message));
        };
        let working = self.gateway.sessions.spawn(async move {
            let done = work.await;
            drop(turn);
            done
        });
        match working.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "something went wrong here",
            )),
        }
    }
}

fn failed(error: &BrowseError) -> ApiError {
    let message = with_causes(error);
    if matches!(error, BrowseError::Busy { .. }) {
        return ApiError::new(StatusCode::CONFLICT, "busy", message);
    }
    warn!(
        error = message,
        "the dead letters could not be looked through"
    );
    // The address of the broker is none of the client's business.
    let told = match error {
        BrowseError::Connect { .. } => "cannot reach RabbitMQ".to_owned(),
        other => other.to_string(),
    };
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", told)
}

fn not_there<'a>(ids: impl IntoIterator<Item = &'a String>) -> ApiError {
    let ids: Vec<_> = ids.into_iter().map(String::as_str).collect();
    let message = format!("there is no dead letter {}", ids.join(", "));
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// What was done, and what was not. Ids that name nothing at all are an error.
fn told(done: &str, report: &Report) -> Response {
    let nothing = report.done + report.unreadable + report.failed == 0;
    if nothing && report.complete && !report.missing.is_empty() {
        return not_there(&report.missing).into_response();
    }
    let answer = json!({
        done: report.done,
        "unreadable": report.unreadable,
        "failed": report.failed,
        "missing": report.missing,
        "problem": report.problem.as_ref().map(|problem| with_causes(problem)),
        "complete": report.complete,
    });
    warp::reply::json(&answer).into_response()
}
