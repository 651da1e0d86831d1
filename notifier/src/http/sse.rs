//! `GET /sse`: Server-Sent Events, for networks that let no WebSocket through.

use std::convert::Infallible;
use std::sync::Arc;

use bellhop_common::http::{Connection, Peer};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::mpsc;
use warp::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, VARY,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::arrival::{arrive, refuse, text, unauthorized};
use super::error::ApiError;
use crate::auth::origin_allowed;
use crate::gateway::Gateway;
use crate::session::{Line, serve_events};

/// Where a client that comes back says what it saw last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// nginx must not gather what is to arrive at once.
const NO_BUFFER: (HeaderName, &str) = (HeaderName::from_static("x-accel-buffering"), "no");

/// A browser may connect without asking again for so many seconds.
const PREFLIGHT_GOOD_FOR: &str = "600";

/// `GET`, and `OPTIONS` for pages from elsewhere that send the token in a header.
pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let asked = Arc::clone(&gateway);
    let preflight = warp::path!("sse")
        .and(warp::options())
        .and(warp::header::headers_cloned())
        .map(move |headers: HeaderMap| for_page(&asked, &headers, may_connect()));
    warp::path!("sse")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<Connection>())
        .map(
            move |headers: HeaderMap, query: String, peer, connection: Option<Connection>| {
                let answer = accept(&gateway, &headers, &query, peer, connection);
                for_page(&gateway, &headers, answer.unwrap_or_else(refuse))
            },
        )
        .or(preflight)
        .unify()
}

/// Checks who comes, starts the task that serves it, and answers with what that task writes. A
/// refusal is a status, which ends an `EventSource` for good; it would come back after a stream that
/// says no and ends.
fn accept(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    query: &str,
    peer: Option<Peer>,
    connection: Option<Connection>,
) -> Result<Response, ApiError> {
    let Some(connection) = connection else {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(ApiError::new(
            status,
            "internal",
            "this listener has no streams",
        ));
    };
    let mut request = arrive(gateway, headers, query, peer)?;
    match &request.arrival.identity {
        Ok(Some(_)) => {}
        Ok(None) => {
            let message = "send the header Authorization: Bearer <token>, or ?token=";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, "no_token", message));
        }
        Err(error) => return Err(unauthorized(error)),
    }
    // A browser that comes back by itself says the newest.
    let last_event_id = text(headers, LAST_EVENT_ID).map(str::to_owned);
    let since = last_event_id.or(request.arrival.since);
    request.arrival.since = since.filter(|id| !id.is_empty());
    let (line, chunks) = Line::new(connection.endless());
    let session = serve_events(Arc::clone(gateway), line, request.arrival);
    gateway.sessions.spawn(session);

    let mut response = warp::reply::stream(body(chunks)).into_response();
    for (name, value) in [
        (CONTENT_TYPE, "text/event-stream"),
        (CACHE_CONTROL, "no-store"),
        (CONNECTION, "close"),
        NO_BUFFER,
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn body(mut chunks: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Bytes, Infallible>> {
    stream::poll_fn(move |context| chunks.poll_recv(context).map(|chunk| chunk.map(Ok)))
}

fn may_connect() -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "GET"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, cache-control, last-event-id",
        ),
        (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_GOOD_FOR),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Lets the scripts of an allowed page read the answer, also one that refuses.
fn for_page(gateway: &Gateway, headers: &HeaderMap, mut response: Response) -> Response {
    let Some(origin) = headers.get(ORIGIN) else {
        return response;
    };
    let vary = HeaderValue::from_static("origin");
    response.headers_mut().insert(VARY, vary);
    let allowed = &gateway.config.http.allowed_origins;
    if origin_allowed(text(headers, ORIGIN), text(headers, HOST), allowed) {
        let answer = response.headers_mut();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    response
}
