//! `GET /api/users/{id}/presence`: whether a user is connected. `GET /api/connections`: who is. Both
//! over all instances that share a store.

use std::sync::Arc;

use bellhop_common::wire::{MAX_ID_BYTES, decode_word};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::caller::{Asked, asked, is_publisher};
use super::error::{Answer, ApiError};
use super::kept::{bad_query, unavailable, unknown};
use crate::gateway::Gateway;
use crate::store::Connected;

/// How many connections are listed, unless the query says.
const LIMIT: usize = 100;

/// How many may be.
const MAX_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Row {
    connection_id: Uuid,
    #[serde(flatten)]
    connected: Connected,
}

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let user = warp::path!("api" / "users" / String / "presence")
        .and(warp::get())
        .and(asked.clone())
        .then(user);
    let list = warp::path!("api" / "connections")
        .and(warp::get())
        .and(asked)
        .and(warp::query())
        .then(list);
    user.or(list).unify()
}

async fn user(id: String, asked: Asked) -> Answer {
    let (identity, gateway) = (asked.caller()?, &asked.gateway);
    let id = decode_word(&id).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
    let Some(id) = id else {
        let message = format!("the id must have 1 to {MAX_ID_BYTES} bytes, percent-encoded");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_id", message));
    };
    if identity.user_id != id && !is_publisher(gateway, &identity) {
        let message = "only backends may see whether others are connected";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let connections = gateway.online(&id).await;
    let connections = connections.map_err(|error| unavailable(&error))?;
    let answer = json!({ "online": connections > 0, "connections": connections });
    Ok(warp::reply::json(&answer).into_response())
}

async fn list(asked: Asked, query: Vec<(String, String)>) -> Answer {
    asked.administrator()?;
    let (mut user, mut limit) = (None, LIMIT);
    for (name, value) in query {
        match (name.as_str(), value.parse()) {
            ("limit", Ok(found @ 1..=MAX_LIMIT)) => limit = found,
            ("limit", _) => {
                let message = format!("limit must be 1 to {MAX_LIMIT}, not {value:?}");
                return Err(bad_query(message));
            }
            ("user", _) => user = Some(value),
            _ => return Err(unknown(&name, "user and limit")),
        }
    }
    // One more, to know whether there are more.
    let found = asked.gateway.connected(user.as_deref(), limit + 1).await;
    let mut found = found.map_err(|error| unavailable(&error))?;
    let more = found.len() > limit;
    found.truncate(limit);
    let rows = found.into_iter().map(|(connection_id, connected)| Row {
        connection_id,
        connected,
    });
    let rows: Vec<_> = rows.collect();
    let answer = json!({ "connections": rows, "more": more });
    Ok(warp::reply::json(&answer).into_response())
}
