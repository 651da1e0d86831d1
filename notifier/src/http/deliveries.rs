//! `GET /api/deliveries?event=…`: every attempt to send an event to somebody, for administrators.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::{Filter, Rejection, Reply};

use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept;
use crate::gateway::Gateway;
use crate::streams::catch_up::within;

#[derive(Serialize)]
struct Log<'a> {
    event: Uuid,
    attempts: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Time {
    at: Timestamp,
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path!("api" / "deliveries")
        .and(warp::get())
        .and(asked(gateway))
        .and(warp::query())
        .then(show)
}

async fn show(asked: Asked, query: Vec<(String, String)>) -> Answer {
    asked.administrator()?;
    let event = event(query)?;
    let store = &kept::streams(&asked.gateway)?.store;
    let found = within(store.attempts(event)).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let mut attempts: Vec<_> = found.iter().filter_map(kept::raw).collect();
    // What was ordered is noted after it is in its queue, and may be sent by then.
    attempts.sort_by_key(|attempt| {
        let time = serde_json::from_str::<Time>(attempt.get());
        time.map_or(Timestamp::MIN, |time| time.at)
    });
    Ok(warp::reply::json(&Log { event, attempts }).into_response())
}

fn event(query: Vec<(String, String)>) -> Result<Uuid, ApiError> {
    let mut event = None;
    for (name, value) in query {
        match (name.as_str(), value.parse()) {
            ("event", Ok(id)) => event = Some(id),
            ("event", Err(_)) => {
                let message = format!("event must be the id of an event, not {value:?}");
                return Err(kept::bad_query(message));
            }
            _ => return Err(kept::unknown(&name, "event")),
        }
    }
    event.ok_or_else(|| kept::bad_query("say which: ?event=<id of an event>".into()))
}
