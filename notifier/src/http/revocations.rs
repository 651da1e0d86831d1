//! `POST /api/revocations`: an administrator makes tokens good no more.

use std::sync::Arc;

use bellhop_common::revoke::revoke;
use bellhop_common::wire::Revocation;
use bytes::Buf;
use futures_util::Stream;
use jiff::Timestamp;
use serde::Deserialize;
use tracing::info;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use crate::gateway::Gateway;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    user_id: Option<String>,
    token_id: Option<String>,
    #[serde(default)]
    everybody: bool,
    issued_before: Option<Timestamp>,
}

pub(super) fn route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    warp::path!("api" / "revocations")
        .and(warp::post())
        .and(asked(gateway))
        .and(warp::body::stream())
        .then(order)
}

async fn order(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (by, gateway) = (asked.administrator()?.user_id, &asked.gateway);
    let body = whole_body(body).await?;
    let bad = |code, message| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let request: Request =
        serde_json::from_slice(&body).map_err(|error| bad("bad_json", error.to_string()))?;
    let revocation = Revocation::new(
        request.user_id,
        request.token_id,
        request.everybody,
        request.issued_before,
        Timestamp::now(),
    )
    .map_err(|error| bad("bad_request", error.to_string()))?;
    revoke(&gateway.publisher, &gateway.names, &revocation)
        .await
        .map_err(|error| {
            let text = error.to_string();
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable", text)
        })?;
    info!(by, ?revocation, "an administrator revokes");
    let answer = warp::reply::json(&revocation);
    Ok(warp::reply::with_status(answer, StatusCode::ACCEPTED).into_response())
}
