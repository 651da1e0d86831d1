//! `/api/alerts`: what is open, and silences, for administrators.

mod request;

use std::sync::Arc;

use bytes::Buf;
use futures_util::Stream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::info;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use self::request::{SILENCES_MAX, silence};
use super::body::whole_body;
use super::caller::{Asked, asked};
use super::error::{Answer, ApiError};
use super::kept;
use crate::alerts::engine::{Engine, Group, Holds, Pace, Rules, Silence};
use crate::alerts::{Plan, SILENCES, read_state};
use crate::documents;
use crate::gateway::Gateway;
use crate::store::{SharedStore, StoreError};

/// `GET /api/alerts`, `GET` and `POST /api/alerts/silences`, `DELETE /api/alerts/silences/{id}`.
pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Answer,), Error = Rejection> + Clone {
    let plan = Plan::new(&gateway.config.alerts, &gateway.config.mattermost);
    let plan = Arc::new(plan.ok().flatten());
    let asked = asked(gateway);
    let open = warp::path!("api" / "alerts")
        .and(warp::get())
        .and(asked.clone())
        .then(move |asked| open(asked, Arc::clone(&plan)));
    let path = || warp::path!("api" / "alerts" / "silences");
    let list = path().and(warp::get()).and(asked.clone()).then(list);
    let add = path()
        .and(warp::post())
        .and(asked.clone())
        .and(warp::body::stream())
        .then(add);
    let end = warp::path!("api" / "alerts" / "silences" / String)
        .and(warp::delete())
        .and(asked)
        .then(end);
    open.or(list).unify().or(add).unify().or(end).unify()
}

/// The store, for an administrator; and the administrator's name.
fn admit(asked: &Asked) -> Result<(SharedStore, String), ApiError> {
    let by = asked.administrator()?;
    let store = Arc::clone(&kept::streams(&asked.gateway)?.store);
    Ok((store, by.user_id))
}

async fn open(asked: Asked, plan: Arc<Option<Plan>>) -> Answer {
    let (store, _) = admit(&asked)?;
    let plan = (*plan).as_ref().ok_or_else(|| {
        let message = "this notifier tells nobody: no webhook is configured";
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "no_alerts", message)
    })?;
    let (_, state) = read_state(&store)
        .await
        .map_err(|e| kept::unavailable(&e))?;
    let silences = read(&store).await?;
    let engine = Engine::new(plan.rules.clone(), state, silences);
    let (now, state) = (Timestamp::now(), engine.state());
    let holds = engine.holds(now);
    let groups = state.groups.iter();
    let groups: Vec<Value> = groups
        .map(|(key, group)| shown(key, group, &holds, &plan.rules))
        .collect();
    let receivers: Vec<Value> = (plan.receivers.keys())
        .map(|name| {
            let pace = state.receivers.get(name);
            json!({
                "name": name,
                "up": pace.is_none_or(Pace::is_up),
                "failures": pace.map_or(0, |pace| pace.failures),
                "failing_since": pace.and_then(|pace| pace.failing_since),
                "not_before": pace.and_then(|pace| pace.not_before),
            })
        })
        .collect();
    let answer = json!({
        "groups": groups,
        "receivers": receivers,
        "suppressed": state.suppressed,
    });
    Ok(warp::reply::json(&answer).into_response())
}

fn shown(key: &str, group: &Group, holds: &Holds<'_>, rules: &Rules) -> Value {
    let labels = group.labels.iter();
    let labels: serde_json::Map<_, _> = labels
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
        .collect();
    let state = match (&group.flapping, group.resolved) {
        (Some(_), _) => "flapping",
        (None, None) => "open",
        (None, Some(_)) => "over",
    };
    let hold = holds.of(group, rules.route(&group.route));
    json!({
        "group": key,
        "route": group.route,
        "labels": labels,
        "severity": group.severity,
        "state": state,
        "opened_at": group.opened,
        "last_at": group.last,
        "ended_at": group.resolved,
        "count": group.total,
        "pending": group.pending.as_ref().map_or(0, |tally| tally.count),
        "posts": group.posts,
        "posted_at": group.posted_at,
        "held": hold.map(|hold| json!({ "reason": hold.reason, "until": hold.until })),
    })
}

async fn read(store: &SharedStore) -> Result<Vec<Silence>, ApiError> {
    let silences = documents::get(store, SILENCES).await;
    let silences = silences.map_err(|error| kept::unavailable(&error))?;
    Ok(silences.unwrap_or_default())
}

async fn list(asked: Asked) -> Answer {
    let (store, _) = admit(&asked)?;
    let mut silences = read(&store).await?;
    let now = Timestamp::now();
    silences.retain(|silence| silence.until > now);
    Ok(warp::reply::json(&json!({ "silences": silences })).into_response())
}

/// Changes the silences in one step, whoever else does; expired ones go with it.
async fn change<T: Send>(
    store: &SharedStore,
    mut change: impl FnMut(&mut Vec<Silence>) -> Result<T, ApiError> + Send,
) -> Result<T, ApiError> {
    let busy = || {
        let message = "others change the silences at the same time: try again";
        ApiError::new(StatusCode::CONFLICT, "busy", message)
    };
    let mut changed = None;
    let changing = |silences: Option<Vec<Silence>>| {
        let mut silences = silences.unwrap_or_default();
        let now = Timestamp::now();
        silences.retain(|silence| silence.until > now);
        let outcome = change(&mut silences);
        let is_changed = outcome.is_ok();
        changed = Some(outcome);
        is_changed.then_some(silences)
    };
    match documents::change(store, SILENCES, changing).await {
        Ok(()) => changed.unwrap_or_else(|| Err(busy())),
        Err(StoreError::Contended(_)) => Err(busy()),
        Err(error) => Err(kept::unavailable(&error)),
    }
}

async fn add(asked: Asked, body: impl Stream<Item = Result<impl Buf, warp::Error>>) -> Answer {
    let (store, by) = admit(&asked)?;
    let body = whole_body(body).await?;
    let made = silence(&body, Uuid::now_v7(), by, Timestamp::now())?;
    change(&store, |silences| {
        if silences.len() >= SILENCES_MAX {
            let message =
                format!("there are {SILENCES_MAX} silences, which is the most there may be");
            return Err(ApiError::new(StatusCode::CONFLICT, "too_many", message));
        }
        silences.push(made.clone());
        Ok(())
    })
    .await?;
    info!(by = made.author, id = %made.id, until = %made.until, "an administrator silences alerts");
    let answer = warp::reply::json(&made);
    Ok(warp::reply::with_status(answer, StatusCode::CREATED).into_response())
}

async fn end(id: String, asked: Asked) -> Answer {
    let (store, by) = admit(&asked)?;
    let ended = change(&store, |silences| {
        let at = silences
            .iter()
            .position(|silence| silence.id.to_string() == id);
        at.map(|at| silences.remove(at)).ok_or_else(|| {
            let message = format!("there is no silence {id}");
            ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
        })
    })
    .await?;
    info!(by, id, "an administrator ends a silence");
    Ok(warp::reply::json(&ended).into_response())
}
