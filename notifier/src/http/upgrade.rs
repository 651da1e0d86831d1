//! `GET /ws`: the handshake of RFC 6455, done here rather than by `warp::ws()`, which gives every
//! connection a read buffer of 128 KiB and never echoes a subprotocol.

use std::sync::Arc;

use hyper::upgrade::OnUpgrade;
use jiff::Timestamp;
use reqwest::Url;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;
use warp::http::header::{
    AUTHORIZATION, CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::error::ApiError;
use crate::auth::{
    Carrier, Credentials, Identity, SUBPROTOCOL, TokenError, is_loopback_host, origin_allowed,
};
use crate::config::AuthMode;
use crate::gateway::Gateway;
use crate::session;

/// Frames are written together up to this size before they go to the socket.
const WRITE_BATCH: usize = 16 * 1024;

/// Only its query is of interest.
const NO_URL: &str = "ws://notifier/ws";

/// How long the HTTP connection may take to hand its socket over after our 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Query {
    token: Option<String>,
    user_id: Option<String>,
}

impl Query {
    /// By hand: warp's own filter logs a query that it cannot read, and a token may be in it.
    fn read(raw: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        let mut url = NO_URL.parse::<Url>().map_err(|_| bad_query())?;
        url.set_query(Some(raw));
        for (name, value) in url.query_pairs() {
            let field = match &*name {
                "token" => &mut query.token,
                "user_id" => &mut query.user_id,
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(bad_query());
            }
        }
        Ok(query)
    }
}

fn bad_query() -> ApiError {
    let message = "the query has token or user_id more than once";
    ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message)
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("ws")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<OnUpgrade>())
        .map(
            move |headers: HeaderMap, query: String, upgrade: Option<OnUpgrade>| match accept(
                &gateway, &headers, &query, upgrade,
            ) {
                Ok(response) => response,
                Err(error) => error.into_response(),
            },
        )
}

/// Checks the handshake, starts the session's task, and answers 101.
fn accept(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    query: &str,
    upgrade: Option<OnUpgrade>,
) -> Result<Response, ApiError> {
    let key = websocket_key(headers)?;
    let Some(upgrade) = upgrade else {
        return Err(not_a_websocket("the connection cannot be upgraded"));
    };
    let origin = text(headers, ORIGIN);
    let allowed = &gateway.config.http.allowed_origins;
    if !origin_allowed(origin, text(headers, HOST), allowed) {
        let message = format!(
            "pages from {:?} may not connect; http.allowed_origins lists who may",
            origin.unwrap_or_default()
        );
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "wrong_origin",
            message,
        ));
    }
    let query = Query::read(query)?;
    let credentials = Credentials::read(
        text(headers, AUTHORIZATION),
        Some(&list(headers, SEC_WEBSOCKET_PROTOCOL)),
        query.token.as_deref(),
    );
    let host = text(headers, HOST);
    let identity = identify(gateway, &credentials, host, query.user_id)?;
    let task = open(Arc::clone(gateway), upgrade, identity);
    gateway.sessions.spawn(task);

    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if credentials.subprotocol {
        let echo = HeaderValue::from_static(SUBPROTOCOL);
        answer.insert(SEC_WEBSOCKET_PROTOCOL, echo);
    }
    Ok(response)
}

/// Who connects. A program that sent the header is refused with a status; for a browser the answer
/// is a close code, since its scripts cannot see the status of a refused handshake.
fn identify(
    gateway: &Gateway,
    credentials: &Credentials,
    host: Option<&str>,
    user_id: Option<String>,
) -> Result<Result<Option<Identity>, TokenError>, ApiError> {
    if gateway.verifier.mode() == AuthMode::None {
        if !is_loopback_host(host) {
            let message = "in auth.mode = \"none\" connect to localhost or a loopback address";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "wrong_host", message));
        }
        let Some(user_id) = user_id.filter(|id| !id.is_empty()) else {
            let message = "in auth.mode = \"none\" name yourself: /ws?user_id=…";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "no_user", message));
        };
        return Ok(Ok(Some(Identity::unchecked(user_id))));
    }
    let Some((carrier, token)) = &credentials.token else {
        return Ok(Ok(None));
    };
    if *carrier == Carrier::Query && !gateway.config.auth.query_token {
        let message = "?token= is turned off here; use a header or a subprotocol";
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "query_token_off",
            message,
        ));
    }
    match gateway.verifier.verify(token, Timestamp::now()) {
        Err(error) if *carrier == Carrier::Header => Err(unauthorized(&error)),
        Err(error) => Ok(Err(error)),
        Ok(identity) => Ok(Ok(Some(identity))),
    }
}

pub(super) fn unauthorized(error: &TokenError) -> ApiError {
    let status = match error {
        TokenError::Starting => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    ApiError::new(status, error.code(), error.to_string())
}

/// RFC 6455, 4.2.1.
fn websocket_key(headers: &HeaderMap) -> Result<&str, ApiError> {
    let has = |name: HeaderName, word: &str| {
        let list = list(headers, name);
        let mut words = list.split(',');
        words.any(|found| found.trim().eq_ignore_ascii_case(word))
    };
    if !has(CONNECTION, "upgrade") || !has(UPGRADE, "websocket") {
        return Err(not_a_websocket(
            "this is a WebSocket: connect with ws:// or wss://",
        ));
    }
    if text(headers, SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(not_a_websocket(
            "only Sec-WebSocket-Version 13 is spoken here",
        ));
    }
    text(headers, SEC_WEBSOCKET_KEY)
        .filter(|key| key.len() == 24)
        .ok_or_else(|| not_a_websocket("Sec-WebSocket-Key must have 24 characters"))
}

fn not_a_websocket(message: &str) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, "not_a_websocket", message)
}

/// A list, which may stand in several lines (RFC 9110, 5.3).
fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

async fn open(
    gateway: Arc<Gateway>,
    upgrade: OnUpgrade,
    identity: Result<Option<Identity>, TokenError>,
) {
    let upgraded = match timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return debug!(%error, "the client left during the handshake"),
        Err(_) => return debug!("the handshake did not end in time"),
    };
    let Ok((stream, ahead)) = session::socket_of(upgraded) else {
        return debug!("the connection is not a TCP socket");
    };
    let settings = &gateway.config.websocket;
    let limit = settings.max_message_size.bytes();
    let config = WebSocketConfig::default()
        .read_buffer_size(settings.read_buffer_size.bytes())
        .write_buffer_size(WRITE_BATCH)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    let (ahead, role) = (ahead.to_vec(), Role::Server);
    let socket = WebSocketStream::from_partially_read(stream, ahead, role, Some(config)).await;
    // A task of its own, so that what the handshake needed does not live as long as the connection.
    let session = session::serve(Arc::clone(&gateway), socket, identity);
    gateway.sessions.spawn(session);
}
