//! `GET /api/tasks` and `GET /api/tasks/{id}`: where a user's tasks stand.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellhop_common::wire::decode_word;
use serde::Serialize;
use serde_json::value::RawValue;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept::{self, LIMIT};
use crate::gateway::Gateway;
use crate::store::{PAGE_BYTES, TaskPlace, TaskQuery};
use crate::streams::catch_up::within;

#[derive(Serialize)]
struct Page<'a> {
    tasks: Vec<&'a RawValue>,
    next: Option<String>,
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
    let found = within(store.tasks(user, query)).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let tasks = found.items.iter();
    let page = Page {
        tasks: tasks.filter_map(|task| kept::raw(&task.state)).collect(),
        next: found.next.as_ref().map(written),
    };
    Ok(warp::reply::json(&page).into_response())
}

fn wanted(query: Vec<(String, String)>) -> Result<TaskQuery, ApiError> {
    let mut wanted = TaskQuery {
        ended: None,
        before: None,
        limit: LIMIT,
        max_bytes: PAGE_BYTES,
    };
    for (name, value) in query {
        match name.as_str() {
            "limit" => wanted.limit = kept::limit(&value)?,
            "before" => wanted.before = Some(place(&value)?),
            "status" => wanted.ended = ended(&value)?,
            _ => return Err(kept::unknown(&name, "status, limit and before")),
        }
    }
    Ok(wanted)
}

/// A place as clients give it back. They shall not look into it, and need not encode it.
fn written(place: &TaskPlace) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}.{}", place.stored_at, place.task_id))
}

fn place(written: &str) -> Result<TaskPlace, ApiError> {
    let read = || {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(written).ok()?).ok()?;
        let (stored_at, task_id) = text.split_once('.')?;
        Some(TaskPlace {
            stored_at: stored_at.parse().ok()?,
            task_id: task_id.to_owned(),
        })
    };
    let message = || kept::bad_query("before must be the `next` of a page".into());
    read().ok_or_else(message)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_nothing_else_is() {
        for (stored_at, task_id) in [(1_795_234_133_873, "a.b/c ü+&="), (0, ""), (-1, "1.2")] {
            let place_of = TaskPlace {
                stored_at,
                task_id: task_id.into(),
            };
            let text = written(&place_of);
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            assert!(text.chars().all(is_plain), "{text}");
            assert_eq!(place(&text).ok(), Some(place_of));
        }
        for other in ["", "x", "1795234133873482", "NQ", "LnQ", "%", "ü"] {
            assert!(place(other).is_err(), "{other}");
        }
    }
}
