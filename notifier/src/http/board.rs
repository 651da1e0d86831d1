//! `GET /api/tasks` and `GET /api/tasks/{id}`: where a user's tasks stand.

use std::sync::Arc;

use bellhop_common::wire::decode_word;
use serde::Serialize;
use serde_json::value::RawValue;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
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
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let all = warp::path!("api" / "tasks")
        .and(warp::get())
        .and(asked.clone())
        .and(warp::query())
        .then(list);
    let one = warp::path!("api" / "tasks" / String)
        .and(warp::get())
        .and(asked)
        .then(one);
    all.or(one).unify()
}

async fn list(asked: Asked, query: Vec<(String, String)>) -> Answer {
    let user = asked.caller()?.user_id;
    let query = wanted(query)?;
    let store = &kept::streams(&asked.gateway)?.store;
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

async fn one(id: String, asked: Asked) -> Answer {
    let user = asked.caller()?.user_id;
    let id = decode_word(&id).unwrap_or(id);
    let store = &kept::streams(&asked.gateway)?.store;
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
