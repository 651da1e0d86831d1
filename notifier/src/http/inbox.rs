//! `/api/inbox`: the stored events of a user, page by page, and what he has read of them.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept::{self, LIMIT};
use crate::gateway::Gateway;
use crate::inbound;
use crate::store::{
    Entry, Epoch, InboxEntry, InboxQuery, Mark, Marked, PAGE_BYTES, Position, StreamName,
};
use crate::streams::catch_up::{told_of, within};
use crate::streams::inbox::{MarkError, mark};

/// How many events may be named in one request.
const MAX_IDS: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    ids: Option<Vec<Uuid>>,
    up_to: Option<u64>,
}

#[derive(Serialize)]
struct Page {
    epoch: Epoch,
    unread: u64,
    items: Vec<Item>,
    next: Option<u64>,
}

#[derive(Serialize)]
struct Item {
    seq: u64,
    stored_at: Timestamp,
    read: bool,
    archived: bool,
    event: Box<RawValue>,
}

/// `GET /api/inbox`, `POST /api/inbox/read` and `POST /api/inbox/archive`.
pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let read = warp::path!("api" / "inbox" / "read").map(|| Mark::Read);
    let archive = warp::path!("api" / "inbox" / "archive").map(|| Mark::Archived);
    let marks = (read.or(archive).unify())
        .and(warp::post())
        .and(asked.clone())
        .and(warp::body::stream())
        .then(mark_some);
    let show = warp::path!("api" / "inbox")
        .and(warp::get())
        .and(asked)
        .and(warp::query())
        .then(show);
    show.or(marks).unify()
}

async fn show(asked: Asked, query: Vec<(String, String)>) -> Answer {
    let user = asked.caller()?.user_id;
    let query = wanted(query)?;
    let store = &kept::streams(&asked.gateway)?.store;
    let name = StreamName::user(&user);
    let heads = within(store.heads(vec![name.clone()])).await;
    let heads = heads.map_err(|error| kept::unavailable(&error))?;
    let head = heads
        .first()
        .ok_or_else(|| kept::unavailable(&crate::store::StoreError::Closed))?;
    let found = within(store.inbox(user, query)).await;
    let found = found.map_err(|error| kept::unavailable(&error))?;
    let item = |entry| item(&name, head.position(), entry);
    let page = Page {
        epoch: head.epoch,
        unread: head.unread,
        items: found.items.into_iter().filter_map(item).collect(),
        next: found.next,
    };
    Ok(warp::reply::json(&page).into_response())
}

/// The event as its user's clients see it; what they cannot be shown is not here either.
fn item(name: &StreamName, position: Position, entry: InboxEntry) -> Option<Item> {
    let told = told_of(
        name,
        position,
        &Entry {
            seq: entry.seq,
            body: entry.body,
        },
    )?;
    let frame = inbound::frame_of(&told)?;
    Some(Item {
        seq: entry.seq,
        stored_at: entry.stored_at,
        read: entry.is_read,
        archived: entry.is_archived,
        event: RawValue::from_string(frame.text().to_owned()).ok()?,
    })
}

fn wanted(query: Vec<(String, String)>) -> Result<InboxQuery, ApiError> {
    let mut wanted = InboxQuery {
        before: None,
        unread_only: false,
        archived: false,
        limit: LIMIT,
        max_bytes: PAGE_BYTES,
    };
    for (name, value) in query {
        match name.as_str() {
            "limit" => wanted.limit = kept::limit(&value)?,
            "before" => wanted.before = Some(kept::number(&name, &value)?),
            "unread" => wanted.unread_only = kept::flag(&name, &value)?,
            "archived" => wanted.archived = kept::flag(&name, &value)?,
            _ => return Err(kept::unknown(&name, "limit, before, unread and archived")),
        }
    }
    Ok(wanted)
}

async fn mark_some(
    how: Mark,
    asked: Asked,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Answer {
    let user = asked.caller()?.user_id;
    let body = whole_body(body).await?;
    let marked = marked(&body)?;
    let unread = mark(&asked.gateway, user, marked, how).await;
    let unread = unread.map_err(|error| match error {
        MarkError::NoStore => kept::no_store(),
        MarkError::Store(error) => kept::unavailable(&error),
    })?;
    Ok(warp::reply::json(&json!({ "unread": unread })).into_response())
}

fn marked(body: &[u8]) -> Result<Marked, ApiError> {
    let bad = |message| ApiError::new(StatusCode::BAD_REQUEST, "bad_json", message);
    let request: Request = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    match (request.ids, request.up_to) {
        (Some(ids), None) if ids.len() > MAX_IDS => Err(bad(format!(
            "`ids` may be {MAX_IDS}, they are {}",
            ids.len()
        ))),
        (Some(ids), None) => Ok(Marked::Ids(ids)),
        (None, Some(seq)) => Ok(Marked::UpTo(seq)),
        _ => Err(bad("either `ids` or `up_to`, and not both".into())),
    }
}
