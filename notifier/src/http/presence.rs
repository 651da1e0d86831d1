//! `GET /api/rooms/{id}/presence` and the same for chats: who is there, over all instances.

use std::sync::Arc;

use bellhop_common::wire::{MAX_ID_BYTES, decode_word};
use serde_json::json;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::caller::{Asked, asked, is_publisher};
use super::error::{Answer, ApiError};
use crate::access::{Grant, Verdict};
use crate::auth::Identity;
use crate::gateway::Gateway;
use crate::protocol::Place;

/// How many users are named, unless the query says.
const LIMIT: usize = 100;

/// How many may be.
const MAX_LIMIT: usize = 1000;

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let rooms = route(Arc::clone(&gateway), "rooms", Place::room);
    let chats = route(gateway, "chats", Place::chat);
    rooms.or(chats).unify()
}

fn route(
    gateway: Arc<Gateway>,
    segment: &'static str,
    place: fn(String) -> Place,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path("api")
        .and(warp::path(segment))
        .and(warp::path::param::<String>())
        .and(warp::path("presence"))
        .and(warp::path::end())
        .and(warp::get())
        .and(asked(gateway))
        .and(warp::query())
        .then(move |id, asked, query| show(place, id, asked, query))
}

async fn show(
    place: fn(String) -> Place,
    id: String,
    asked: Asked,
    query: Vec<(String, String)>,
) -> Answer {
    let (identity, gateway) = (asked.caller()?, &asked.gateway);
    let id = decode_word(&id).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
    let Some(id) = id else {
        let message = format!("the id must have 1 to {MAX_ID_BYTES} bytes, percent-encoded");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_id", message));
    };
    let place = place(id);
    let limit = limit(query)?;
    if !is_publisher(gateway, &identity) {
        admit(gateway, &identity, &place).await?;
    }
    let (count, users) = gateway.present(&place, limit);
    let more = users.len() < count;
    let answer = json!({ "count": count, "users": users, "more": more });
    Ok(warp::reply::json(&answer).into_response())
}

/// Whoever may enter may see who is there.
async fn admit(gateway: &Gateway, identity: &Identity, place: &Place) -> Result<(), ApiError> {
    let user = &identity.user_id;
    let access = &gateway.access;
    let may = match access.may_enter(user, &Grant::of(identity), place) {
        Verdict::Yes => true,
        Verdict::No => false,
        Verdict::Ask => access.ask(user, place).await.map_err(|error| {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            ApiError::new(status, "unavailable", error.to_string())
        })?,
    };
    if may {
        return Ok(());
    }
    let message = format!("you may not see who is in {place}");
    Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message))
}

fn limit(query: Vec<(String, String)>) -> Result<usize, ApiError> {
    let mut limit = LIMIT;
    for (name, value) in query {
        let problem = match (name.as_str(), value.parse()) {
            ("limit", Ok(found @ 1..=MAX_LIMIT)) => {
                limit = found;
                continue;
            }
            ("limit", _) => format!("limit must be 1 to {MAX_LIMIT}, not {value:?}"),
            _ => format!("there is no parameter {name:?}, only limit"),
        };
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_query", problem));
    }
    Ok(limit)
}
