//! `GET /api/tasks` and `GET /api/tasks/{id}`: where a user's tasks stand.

use std::sync::Arc;

use bellhop_common::wire::decode_word;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::caller::caller;
use super::error::ApiError;
use super::kept::{self, LIMIT};
use crate::gateway::Gateway;
use crate::store::TaskQuery;
use crate::streams::catch_up::within;

#[derive(Serialize)]
struct Page<'a> {
    tasks: Vec<&'a RawValue>,
    next: Option<u64>,
}

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let all = list_route(Arc::clone(&gateway));
    all.or(one_route(gateway)).unify()
}

fn list_route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("api" / "tasks")
        .and(warp::get())
        .and(warp::header::optional::<String>("authorization"))
        .and(warp::query::<Vec<(String, String)>>())
        .then(move |authorization: Option<String>, query| {
            let gateway = Arc::clone(&gateway);
            async move {
                let answer = list(&gateway, authorization.as_deref(), query).await;
                answer.unwrap_or_else(Reply::into_response)
            }
        })
}

fn one_route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("api" / "tasks" / String)
        .and(warp::get())
        .and(warp::header::optional::<String>("authorization"))
        .then(move |id: String, authorization: Option<String>| {
            let gateway = Arc::clone(&gateway);
            async move {
                let answer = one(&gateway, authorization.as_deref(), &id).await;
                answer.unwrap_or_else(Reply::into_response)
            }
        })
}

async fn list(
    gateway: &Gateway,
    authorization: Option<&str>,
    query: Vec<(String, String)>,
) -> Result<Response, ApiError> {
    let user = caller(gateway, authorization, Timestamp::now())?.user_id;
    let query = wanted(query)?;
    let store = &kept::streams(gateway)?.store;
    // One more, to know whether there are more.
    let with_next = TaskQuery {
        limit: query.limit + 1,
        ..query
    };
    let found = within(store.tasks(user, with_next)).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let (found, more) = kept::page(found, query.limit);
    let page = Page {
        tasks: found
            .iter()
            .filter_map(|task| kept::raw(&task.state))
            .collect(),
        next: found.last().filter(|_| more).map(|task| task.rev),
    };
    Ok(warp::reply::json(&page).into_response())
}

fn wanted(query: Vec<(String, String)>) -> Result<TaskQuery, ApiError> {
    let mut wanted = TaskQuery {
        ended: None,
        before: None,
        limit: LIMIT,
    };
    for (name, value) in query {
        match name.as_str() {
            "limit" => wanted.limit = kept::limit(&value)?,
            "before" => wanted.before = Some(kept::number(&name, &value)?),
            "status" => wanted.ended = ended(&value)?,
            _ => return Err(kept::unknown(&name, "status, limit and before")),
        }
    }
    Ok(wanted)
}

fn ended(status: &str) -> Result<Option<bool>, ApiError> {
    match status {
        "all" => Ok(None),
        "running" => Ok(Some(false)),
        "ended" => Ok(Some(true)),
        _ => Err(kept::bad_query(format!(
            "status must be running, ended or all, not {status:?}"
        ))),
    }
}

async fn one(
    gateway: &Gateway,
    authorization: Option<&str>,
    id: &str,
) -> Result<Response, ApiError> {
    let user = caller(gateway, authorization, Timestamp::now())?.user_id;
    let id = decode_word(id).unwrap_or_else(|| id.to_owned());
    let store = &kept::streams(gateway)?.store;
    let found = within(store.task(user, id)).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let state = found.as_ref().and_then(|task| kept::raw(&task.state));
    let Some(state) = state else {
        let message = "you have no task with this id, or none that is still kept";
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no_such_task",
            message,
        ));
    };
    Ok(warp::reply::json(&state).into_response())
}
