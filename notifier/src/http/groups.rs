//! `POST /api/groups`: a user starts many jobs that belong together.

use std::collections::BTreeMap;
use std::sync::Arc;

use bellhop_common::enqueue_group::{GroupError, NewGroup, enqueue_group};
use bellhop_common::wire::{FollowUp, Group, Job, group_job_id};
use bytes::Buf;
use futures_util::Stream;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::tasks::{not_open, refused};
use crate::config::OpenKind;
use crate::gateway::Gateway;

/// How many jobs a user's group may have.
const MAX_JOBS: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    title: Option<String>,
    jobs: Vec<NewJob>,
    #[serde(default)]
    then: Vec<Next>,
    #[serde(default)]
    on_failure: Vec<Next>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewJob {
    kind: String,
    #[serde(default = "no_args")]
    args: Value,
    title: Option<String>,
}

/// A job that follows. Less than the wire allows: it is the caller's, and of an open kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Next {
    kind: String,
    #[serde(default)]
    args: Map<String, Value>,
    #[serde(rename = "as")]
    name: Option<String>,
    title: Option<String>,
}

fn no_args() -> Value {
    json!({})
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path!("api" / "groups")
        .and(warp::post())
        .and(asked(gateway))
        .and(warp::body::stream())
        .then(start)
}

async fn start(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (user_id, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let body = whole_body(body).await?;
    let request: Request = serde_json::from_slice(&body)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "bad_json", error.to_string()))?;
    let new = group(request, &user_id, &gateway.config.tasks.open)?;
    let jobs = new.jobs.iter();
    let task_ids: Vec<_> = jobs.map(|(_, job)| job.id.clone()).collect();
    let group_id = new.group.id.clone();
    enqueue_group(&gateway.publisher, &gateway.names, new, Timestamp::now())
        .await
        .map_err(|error| wrong(&error))?;
    let answer = warp::reply::json(&json!({ "group_id": group_id, "task_ids": task_ids }));
    Ok(warp::reply::with_status(answer, StatusCode::ACCEPTED).into_response())
}

/// The group that a request asks for. The owner of everything is the caller.
fn group(
    request: Request,
    user_id: &str,
    open: &BTreeMap<String, OpenKind>,
) -> Result<NewGroup, ApiError> {
    let count = request.jobs.len();
    if !(1..=MAX_JOBS).contains(&count) {
        let message = format!("`jobs` must have 1 to {MAX_JOBS} jobs, it has {count}");
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "bad_job", message));
    }
    let queue = |kind: &str| match open.get(kind) {
        Some(open) => Ok(open.queue.clone()),
        None => Err(not_open(kind)),
    };
    let sequel = |list: Vec<Next>| -> Result<Vec<_>, ApiError> {
        let next = list.into_iter().map(|next| {
            let queue = queue(&next.kind)?;
            Ok(FollowUp {
                queue: Some(queue),
                name: next.name,
                title: next.title,
                ..FollowUp::new(next.kind, Value::Object(next.args))
            })
        });
        next.collect()
    };
    let id = Uuid::now_v7().to_string();
    let jobs = request.jobs.into_iter().enumerate().map(|(index, wanted)| {
        let queue = queue(&wanted.kind)?;
        let id = group_job_id(user_id, &id, index).to_string();
        let mut job = Job::new(id, wanted.kind, wanted.args, user_id);
        job.title = wanted.title;
        Ok((queue, job))
    });
    Ok(NewGroup {
        jobs: jobs.collect::<Result<_, ApiError>>()?,
        group: Group {
            title: request.title,
            then: sequel(request.then)?,
            on_failure: sequel(request.on_failure)?,
            ..Group::new(id)
        },
        again: false,
    })
}

fn wrong(error: &GroupError) -> ApiError {
    match error {
        GroupError::Enqueue { done, size, source } => {
            let mut answer = refused(source);
            answer.message = format!("{} ({done} of {size} jobs are in)", answer.message);
            answer
        }
        wrong => ApiError::new(StatusCode::BAD_REQUEST, "bad_job", wrong.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: Value) -> Result<NewGroup, String> {
        let open = BTreeMap::from([(
            "sum".to_owned(),
            OpenKind {
                queue: "slow".into(),
            },
        )]);
        let request = serde_json::from_value(body).map_err(|error| error.to_string())?;
        group(request, "ann", &open).map_err(|error| error.message)
    }

    #[test]
    fn everything_is_the_callers_and_of_an_open_kind() {
        let new = asked(
            json!({"title": "All", "jobs": [{"kind": "sum"}, {"kind": "sum"}],
            "then": [{"kind": "sum", "as": "parts"}]}),
        )
        .unwrap();
        assert_eq!(new.jobs.len(), 2);
        let (queue, job) = &new.jobs[1];
        assert_eq!((queue.as_str(), job.user_id.as_str()), ("slow", "ann"));
        assert_eq!(new.group.then[0].queue.as_deref(), Some("slow"));
        for (body, wants) in [
            (json!({"jobs": []}), "1 to 1000"),
            (json!({"jobs": vec![json!({"kind": "sum"}); 1001]}), "1001"),
            (json!({"jobs": [{"kind": "rm"}]}), "\"rm\""),
            (
                json!({"jobs": [{"kind": "sum"}], "then": [{"kind": "rm"}]}),
                "\"rm\"",
            ),
            (
                json!({"jobs": [{"kind": "sum"}], "on_failure": [{"kind": "rm"}]}),
                "\"rm\"",
            ),
            (
                json!({"jobs": [{"kind": "sum"}], "then": [{"kind": "sum", "user_id": "bob"}]}),
                "user_id",
            ),
            (
                json!({"jobs": [{"kind": "sum"}], "then": [{"kind": "sum", "then": []}]}),
                "then",
            ),
            (
                json!({"jobs": [{"kind": "sum", "user_id": "bob"}]}),
                "user_id",
            ),
        ] {
            let error = asked(body.clone()).unwrap_err();
            assert!(error.contains(wants), "{body}: {error}");
        }
    }
}
