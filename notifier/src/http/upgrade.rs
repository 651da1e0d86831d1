//! `GET /ws`: the handshake of RFC 6455, done here rather than by `warp::ws()`, which gives every
//! connection a read buffer of 128 KiB and never echoes a subprotocol.

use std::sync::Arc;

use bellhop_common::http::Peer;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::debug;
use warp::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;
use warp::{Filter, Rejection};

use super::arrival::{arrive, list, refuse, text};
use super::error::{ApiError, starting};
use crate::auth::SUBPROTOCOL;
use crate::gateway::Gateway;
use crate::session::{self, Arrival};

/// The largest pong, in bytes: a control frame with its head (RFC 6455, 5.5).
const MAX_PONG: usize = 127;

/// How long the HTTP connection may take to hand its socket over after our 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("ws")
        .and(warp::get())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::ext::optional::<Peer>())
        .and(warp::ext::optional::<OnUpgrade>())
        .then(
            move |headers: HeaderMap, query: String, peer, upgrade: Option<OnUpgrade>| {
                let gateway = Arc::clone(&gateway);
                async move {
                    // A rejection would go on to the other routes, which are held up once more.
                    if !gateway.gate.opens().await {
                        return refuse(starting());
                    }
                    let accepted = accept(&gateway, &headers, &query, peer, upgrade);
                    accepted.unwrap_or_else(refuse)
                }
            },
        )
}

/// Checks the handshake, starts the session's task, and answers 101.
fn accept(
    gateway: &Arc<Gateway>,
    headers: &HeaderMap,
    query: &str,
    peer: Option<Peer>,
    upgrade: Option<OnUpgrade>,
) -> Result<Response, ApiError> {
    let key = websocket_key(headers)?;
    let Some(upgrade) = upgrade else {
        return Err(not_a_websocket("the connection cannot be upgraded"));
    };
    let request = arrive(gateway, headers, query, peer)?;
    let task = open(Arc::clone(gateway), upgrade, request.arrival);
    gateway.sessions.spawn(task);

    let mut response = Response::default();
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if request.subprotocol {
        let echo = HeaderValue::from_static(SUBPROTOCOL);
        answer.insert(SEC_WEBSOCKET_PROTOCOL, echo);
    }
    Ok(response)
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
        .filter(|key| is_key(key))
        .ok_or_else(|| not_a_websocket("Sec-WebSocket-Key must be 16 bytes in base64"))
}

/// 16 bytes are 22 characters and two that fill up.
fn is_key(key: &str) -> bool {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let digits = key.strip_suffix("==").unwrap_or_default();
    digits.len() == 22 && digits.bytes().all(is_base64)
}

fn not_a_websocket(message: &str) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, "not_a_websocket", message)
}

async fn open(gateway: Arc<Gateway>, upgrade: OnUpgrade, arrival: Arrival) {
    let upgraded = match timeout(UPGRADE_TIMEOUT, upgrade).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(error)) => return debug!(%error, "the client left during the handshake"),
        Err(_) => return debug!("the handshake did not end in time"),
    };
    let Ok((stream, ahead)) = session::socket_of(upgraded) else {
        return debug!("the connection is not a TCP socket");
    };
    let config = socket_config(&gateway.config.websocket);
    let (ahead, role) = (ahead.to_vec(), Role::Server);
    let socket = WebSocketStream::from_partially_read(stream, ahead, role, Some(config)).await;
    // A task of its own, so that what the handshake needed does not live as long as the connection.
    let session = session::serve(Arc::clone(&gateway), socket, arrival);
    gateway.sessions.spawn(session);
}

/// The limits of a connection, in the library's words. Public for the fuzz tests.
#[doc(hidden)]
#[must_use]
pub fn socket_config(settings: &crate::config::WebSocketConfig) -> WebSocketConfig {
    let limit = settings.max_message_size.bytes();
    let write_buffer = settings.write_buffer_size.bytes();
    WebSocketConfig::default()
        .read_buffer_size(settings.read_buffer_size.bytes())
        .write_buffer_size(write_buffer)
        // Who pings and does not read gets one pong for several pings (RFC 6455, 5.5.3), or what
        // is owed would grow for as long as the pings come.
        .max_write_buffer_size(write_buffer + MAX_PONG)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit))
}
