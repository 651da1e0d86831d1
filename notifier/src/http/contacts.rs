//! `GET` and `PUT /api/users/{id}/contact`: where a user is reached, for backends.

use std::sync::Arc;

use bellhop_common::wire::{MAX_ID_BYTES, MAX_TITLE_BYTES, decode_word};
use bytes::Buf;
use futures_util::Stream;
use serde::Deserialize;
use serde_json::json;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept;
use crate::away::contacts;
use crate::gateway::Gateway;
use crate::mail::is_address;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    email: Option<String>,
    name: Option<String>,
}

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let path = || warp::path!("api" / "users" / String / "contact");
    let show = path().and(warp::get()).and(asked.clone()).then(show);
    let put = path()
        .and(warp::put())
        .and(asked)
        .and(warp::body::stream())
        .then(put);
    show.or(put).unify()
}

fn user_id(id: &str) -> Result<String, ApiError> {
    let id = decode_word(id).filter(|id| (1..=MAX_ID_BYTES).contains(&id.len()));
    id.ok_or_else(|| {
        let message = format!("the id must have 1 to {MAX_ID_BYTES} bytes, percent-encoded");
        ApiError::new(StatusCode::BAD_REQUEST, "bad_id", message)
    })
}

async fn show(id: String, asked: Asked) -> Answer {
    asked.publisher()?;
    let (id, store) = (user_id(&id)?, &kept::streams(&asked.gateway)?.store);
    let found = contacts::contact(store, &id).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let answer = json!({ "user_id": id, "contact": found });
    Ok(warp::reply::json(&answer).into_response())
}

async fn put(
    id: String,
    asked: Asked,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    asked.publisher()?;
    let (id, store) = (user_id(&id)?, &kept::streams(&asked.gateway)?.store);
    let body = whole_body(body).await?;
    let bad = |code, message| Err(ApiError::new(StatusCode::BAD_REQUEST, code, message));
    let Request { email, name } = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return bad("bad_json", error.to_string()),
    };
    if email.as_ref().is_some_and(|email| !is_address(email)) {
        let message = "`email` must be one address such as ann@example.org";
        return bad("bad_contact", message.to_owned());
    }
    if name
        .as_ref()
        .is_some_and(|name| name.len() > MAX_TITLE_BYTES)
    {
        let message = format!("`name` may have {MAX_TITLE_BYTES} bytes");
        return bad("bad_contact", message);
    }
    let kept = contacts::put(store, &id, email, name).await;
    kept.map_err(|error| kept::unavailable(&error))?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
