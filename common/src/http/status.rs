//! `/healthz`, `/readyz` and `/metrics`.

use std::convert::Infallible;

use serde_json::json;
use warp::http::StatusCode;
use warp::{Filter, Rejection, Reply};

use crate::telemetry::{Health, Metrics};

/// `GET /healthz` (the process answers), `GET /readyz` (200 while every component is up, else 503;
/// the body names them; `?exclude=NAME`, any number of them, leaves some out) and `GET /metrics`.
#[must_use]
pub fn status_routes(
    health: Health,
    metrics: Metrics,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let healthz = warp::path!("healthz").map(|| "ok\n".into_response());
    let query = warp::query::<Vec<(String, String)>>();
    let readyz = warp::path!("readyz").and(query).map(move |query| {
        let (ready, report) = health.report(&excluded(query));
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        warp::reply::with_status(warp::reply::json(&report), status).into_response()
    });
    let page = warp::path!("metrics").map(move || {
        let content_type = "text/plain; version=0.0.4; charset=utf-8";
        warp::reply::with_header(metrics.render(), "content-type", content_type).into_response()
    });
    warp::get().and(healthz.or(readyz).unify().or(page).unify())
}

fn excluded(query: Vec<(String, String)>) -> Vec<String> {
    let excludes = query.into_iter().filter(|(name, _)| name == "exclude");
    excludes.map(|(_, component)| component).collect()
}

/// Answers 404 to everything else, for a service that has only these pages.
///
/// # Errors
/// Never.
pub async fn not_found(_: Rejection) -> Result<impl Reply, Infallible> {
    let body = json!({ "error": {
        "code": "not_found",
        "message": "there are only GET /healthz, /readyz and /metrics here",
    }});
    let reply = warp::reply::json(&body);
    Ok(warp::reply::with_status(reply, StatusCode::NOT_FOUND))
}
