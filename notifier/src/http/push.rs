//! `/api/push`: the key that browsers subscribe with, and the caller's subscriptions.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept;
use crate::gateway::Gateway;
use crate::push::kept::{change, devices};
use crate::push::{Device, Given, Pusher, Put};

/// A device as its user may see it: whoever has the endpoint or a key could send there.
#[derive(Serialize)]
struct Shown<'a> {
    id: String,
    origin: String,
    created: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<Timestamp>,
    refusals: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<&'a str>,
    /// It was made for the key that is in use; one for another has to be made anew.
    current: bool,
}

impl<'a> Shown<'a> {
    fn of(device: &'a Device, pusher: &Pusher) -> Self {
        let subscription = &device.subscription;
        let endpoint = pusher.policy().check(&subscription.endpoint);
        Self {
            id: subscription.id(),
            // What the configuration does not take any more has none that would be used.
            origin: endpoint.map_or(String::new(), |endpoint| endpoint.origin()),
            created: device.created,
            last_success: device.last_success,
            refusals: device.refusals,
            label: device.label.as_deref(),
            current: subscription.key == pusher.public_key(),
        }
    }
}

/// `GET /api/push/key`, `GET` and `POST /api/push/subscriptions`, `DELETE /api/push/subscriptions/{id}`.
pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let path = || warp::path!("api" / "push" / "subscriptions");
    let list = path().and(warp::get()).and(asked.clone()).then(list);
    let add = path()
        .and(warp::post())
        .and(asked.clone())
        .and(warp::body::stream())
        .then(add);
    let remove = warp::path!("api" / "push" / "subscriptions" / String)
        .and(warp::delete())
        .and(asked)
        .then(remove);
    list.or(add).unify().or(remove).unify()
}

/// Without a login: the key is public, every subscribed page has it, and a page needs it to know
/// whether to offer anything at all.
pub(super) fn key_route(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::path!("api" / "push" / "key")
        .and(warp::get())
        .map(move || match pusher(&gateway) {
            Ok(pusher) => warp::reply::json(&json!({ "key": pusher.public_key() })).into_response(),
            Err(error) => error.into_response(),
        })
}

async fn list(asked: Asked) -> Answer {
    let (user, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let now = Timestamp::now();
    let pusher = pusher(gateway)?;
    let store = &kept::streams(gateway)?.store;
    let devices = devices(store, &user)
        .await
        .map_err(|error| kept::unavailable(&error))?;
    let shown: Vec<_> = devices
        .iter(now)
        .map(|device| Shown::of(device, pusher))
        .collect();
    Ok(warp::reply::json(&json!({ "subscriptions": shown })).into_response())
}

async fn add(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (user, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let now = Timestamp::now();
    let pusher = pusher(gateway)?;
    let store = &kept::streams(gateway)?.store;
    let body = whole_body(body).await?;
    let device = device(&body, pusher, now)?;
    let put = change(store, &user, |devices| {
        let put = devices.put(device.clone(), now);
        (put != Put::Same).then_some(put)
    });
    let status = match put.await.map_err(|error| kept::unavailable(&error))? {
        Some(Put::New) => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let answer = warp::reply::json(&json!({ "id": device.subscription.id() }));
    Ok(warp::reply::with_status(answer, status).into_response())
}

async fn remove(id: String, asked: Asked) -> Answer {
    let (user, gateway) = (asked.caller()?.user_id, &asked.gateway);
    pusher(gateway)?;
    let store = &kept::streams(gateway)?.store;
    let removed = change(store, &user, |devices| devices.remove(&id).then_some(()));
    match removed.await.map_err(|error| kept::unavailable(&error))? {
        Some(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no_such_subscription",
            "you have no such subscription",
        )),
    }
}

fn device(body: &[u8], pusher: &Pusher, now: Timestamp) -> Result<Device, ApiError> {
    let bad = |code, message| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let given: Given =
        serde_json::from_slice(body).map_err(|error| bad("bad_json", error.to_string()))?;
    let (subscription, label, expires) = given
        .check(pusher.policy(), pusher.public_key(), now)
        .map_err(|error| bad("bad_subscription", error.to_string()))?;
    Ok(Device {
        subscription,
        created: now,
        expires,
        last_success: None,
        refusals: 0,
        label,
    })
}

fn pusher(gateway: &Gateway) -> Result<&Pusher, ApiError> {
    gateway.pusher.as_ref().ok_or_else(|| {
        let message = "this notifier sends no Web Push: push.key_file is not set";
        ApiError::new(StatusCode::NOT_FOUND, "push_not_configured", message)
    })
}
