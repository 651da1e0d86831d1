//! `GET` and `PUT /api/preferences`: how a user wants to be reached when he is away.

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use serde_json::{Value, json};
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept;
use crate::away::decision::{mail_choice, push_choice};
use crate::away::preferences::{DIGEST_AT, Preferences, preferences_document};
use crate::documents;
use crate::gateway::Gateway;

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let asked = asked(gateway);
    let path = || warp::path!("api" / "preferences");
    let show = path().and(warp::get()).and(asked.clone()).then(show);
    let put = path()
        .and(warp::put())
        .and(asked)
        .and(warp::body::stream())
        .then(put);
    show.or(put).unify()
}

async fn show(asked: Asked) -> Answer {
    let (user, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let store = &kept::streams(gateway)?.store;
    let wishes = documents::get(store, &preferences_document(&user)).await;
    let wishes: Option<Preferences> = wishes.map_err(|error| kept::unavailable(&error))?;
    let mut wishes = wishes.unwrap_or_default();
    // Given back as it is, it must be taken.
    wishes.set_aside(|name| is_category(gateway, name));
    Ok(answer(gateway, &wishes))
}

async fn put(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (user, gateway) = (asked.caller()?.user_id, &asked.gateway);
    let store = &kept::streams(gateway)?.store;
    let body = whole_body(body).await?;
    let bad = |code, message| ApiError::new(StatusCode::BAD_REQUEST, code, message);
    let wishes: Preferences =
        serde_json::from_slice(&body).map_err(|error| bad("bad_json", error.to_string()))?;
    let known = gateway.config.escalation.categories.iter();
    let checked = wishes.check(known.map(|category| category.name.as_str()));
    checked.map_err(|error| bad("bad_preferences", error.to_string()))?;
    let change = |before: Option<Preferences>| {
        let mut before = before.unwrap_or_default();
        let mut after = wishes.clone();
        let aside = before.set_aside(|name| is_category(gateway, name));
        after.categories.extend(aside);
        Some(after)
    };
    let kept = documents::change(store, &preferences_document(&user), change).await;
    kept.map_err(|error| kept::unavailable(&error))?;
    Ok(answer(gateway, &wishes))
}

fn is_category(gateway: &Gateway, name: &str) -> bool {
    let mut categories = gateway.config.escalation.categories.iter();
    categories.any(|category| category.name == name)
}

/// What a user has chosen, and what holds for him.
fn answer(gateway: &Gateway, wishes: &Preferences) -> Response {
    let config = &gateway.config.escalation;
    let categories = config.categories.iter().map(|category| {
        let seconds = |after: Option<bellhop_common::config::HumanDuration>| {
            after.map(|after| after.0.as_secs())
        };
        let holds = json!({
            "push": push_choice(category, wishes),
            "mail": mail_choice(category, wishes),
            "push_after_s": seconds(category.push_after),
            "mail_after_s": seconds(category.mail_after),
            "until": category.until,
        });
        (category.name.clone(), holds)
    });
    let categories: serde_json::Map<String, Value> = categories.collect();
    let answer = json!({
        "preferences": wishes,
        "effective": {
            "time_zone": wishes.time_zone.as_ref().unwrap_or(&config.time_zone),
            "digest_at": wishes.digest_at.unwrap_or(DIGEST_AT),
            "categories": categories,
        },
    });
    warp::reply::json(&answer).into_response()
}
