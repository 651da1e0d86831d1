//! What every connection that stays has to show: where its page is from, who it is, and that there
//! is room for it.

use bellhop_common::http::Peer;
use bellhop_common::wire::MAX_ID_BYTES;
use jiff::Timestamp;
use metrics::counter;
use warp::Reply;
use warp::http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use warp::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use warp::reply::Response;

use super::client_address::{client_address, counted};
use super::error::ApiError;
use crate::admission::{Full, Slot};
use crate::auth::{Carrier, Credentials, Identity, TokenError, is_loopback_host, origin_allowed};
use crate::config::AuthMode;
use crate::gateway::Gateway;
use crate::metric;
use crate::protocol::Place;
use crate::session::Arrival;

/// How many rooms and chats an address may name.
const MAX_PLACES: usize = 20;

/// In seconds: when to try again where there was no room.
const TRY_AGAIN: HeaderValue = HeaderValue::from_static("5");

#[derive(Default)]
struct Query {
    token: Option<String>,
    user_id: Option<String>,
    since: Option<String>,
    places: Vec<Place>,
}

/// What a request to connect says.
pub(super) struct Request {
    pub(super) arrival: Arrival,
    /// Whether our subprotocol must be echoed.
    pub(super) subprotocol: bool,
}

impl Query {
    /// By hand: warp's own filter logs a query that it cannot read, and a token may be in it.
    fn read(raw: &str) -> Result<Self, ApiError> {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
            let field = match &*name {
                "token" => &mut query.token,
                "user_id" => &mut query.user_id,
                // The name that other event streams give it.
                "since" | "last_event_id" => &mut query.since,
                "room_id" => {
                    query.places.push(Place::room(&*value));
                    continue;
                }
                "chat_id" => {
                    query.places.push(Place::chat(&*value));
                    continue;
                }
                _ => continue,
            };
            if field.replace(value.into_owned()).is_some() {
                return Err(bad_query());
            }
        }
        let fits = |place: &Place| (1..=MAX_ID_BYTES).contains(&place.id.len());
        if !query.places.iter().all(fits) || query.places.len() > MAX_PLACES {
            let message = format!(
                "room_id and chat_id must have 1 to {MAX_ID_BYTES} bytes, and there may be \
                 {MAX_PLACES} of them"
            );
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message));
        }
        Ok(query)
    }
}

/// The rooms and chats that an address names, if it can be read. Public for the fuzz tests.
#[doc(hidden)]
#[must_use]
pub fn places_of_query(raw: &str) -> Option<Vec<Place>> {
    Query::read(raw).ok().map(|query| query.places)
}

fn bad_query() -> ApiError {
    let message = "the query has token, user_id, or since (last_event_id) more than once";
    ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message)
}

/// Reads a request to connect.
pub(super) fn arrive(
    gateway: &Gateway,
    headers: &HeaderMap,
    query: &str,
    peer: Option<Peer>,
) -> Result<Request, ApiError> {
    let origin = text(headers, ORIGIN);
    let allowed = &gateway.config.http.allowed_origins;
    if !origin_allowed(origin, text(headers, HOST), allowed) {
        let message = format!(
            "pages from {:?} may not connect; http.allowed_origins lists who may",
            origin.unwrap_or_default()
        );
        let status = StatusCode::FORBIDDEN;
        return Err(ApiError::new(status, "wrong_origin", message));
    }
    let slot = admit(gateway, headers, peer)?;
    let mut query = Query::read(query)?;
    // They are taken from the end.
    query.places.reverse();
    let credentials = Credentials::read(
        text(headers, AUTHORIZATION),
        Some(&list(headers, SEC_WEBSOCKET_PROTOCOL)),
        query.token.as_deref(),
    );
    let host = text(headers, HOST);
    let arrival = Arrival {
        identity: identify(gateway, &credentials, host, query.user_id)?,
        places: query.places,
        since: query.since.filter(|since| !since.is_empty()),
        slot,
    };
    Ok(Request {
        arrival,
        subprotocol: credentials.subprotocol,
    })
}

/// Before anything that costs more, such as the check of a signature.
fn admit(gateway: &Gateway, headers: &HeaderMap, peer: Option<Peer>) -> Result<Slot, ApiError> {
    if gateway.stop.is_cancelled() {
        let message = "this instance stops; another one takes over";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Err(ApiError::new(status, "stopping", message));
    }
    let forwarded = list(headers, HeaderName::from_static("x-forwarded-for"));
    let proxies = &gateway.config.http.trusted_proxies;
    let address = peer.map(|Peer(peer)| counted(client_address(peer.ip(), &forwarded, proxies)));
    gateway.admission.admit(address).map_err(|full| {
        let (status, code) = match full {
            Full::Instance => (StatusCode::SERVICE_UNAVAILABLE, "too_many_connections"),
            Full::Address => (StatusCode::TOO_MANY_REQUESTS, "too_many_from_address"),
        };
        ApiError::new(status, code, full.to_string())
    })
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
        require_loopback(host)?;
        let fits = |id: &String| (1..=MAX_ID_BYTES).contains(&id.len());
        let Some(user_id) = user_id.filter(fits) else {
            let message = "in auth.mode = \"none\" name yourself: ?user_id=…";
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

/// In the mode without tokens.
pub(super) fn require_loopback(host: Option<&str>) -> Result<(), ApiError> {
    if is_loopback_host(host) {
        return Ok(());
    }
    let message = "in auth.mode = \"none\" connect to localhost or a loopback address";
    Err(ApiError::new(StatusCode::FORBIDDEN, "wrong_host", message))
}

pub(super) fn unauthorized(error: &TokenError) -> ApiError {
    let status = match error {
        TokenError::Starting => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    ApiError::new(status, error.code(), error.to_string())
}

/// The answer to a handshake that failed.
pub(super) fn refuse(error: ApiError) -> Response {
    counter!(metric::REFUSED_HANDSHAKES, "reason" => error.code).increment(1);
    let is_full = matches!(
        error.status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let mut response = error.into_response();
    if is_full {
        response.headers_mut().insert(RETRY_AFTER, TRY_AGAIN);
    }
    response
}

/// A list, which may stand in several lines (RFC 9110, 5.3).
pub(super) fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
