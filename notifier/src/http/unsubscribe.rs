//! `/unsubscribe/{token}`: the link in a mail. A GET shows a button, because programs follow links
//! to look at them; only a POST ends the mails, as a mail client sends it with one click (RFC 8058).

use std::sync::Arc;

use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

use super::kept;
use crate::away::unsubscribe;
use crate::gateway::Gateway;
use crate::store::StoreError;

/// Nothing from elsewhere. The form goes to this very page.
const POLICY: &str = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; \
     frame-ancestors 'none'";

pub(super) fn routes(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    let with_gateway = warp::any().map(move || Arc::clone(&gateway));
    let path = || warp::path!("unsubscribe" / String);
    let show = path()
        .and(warp::get())
        .and(with_gateway.clone())
        .then(async |token: String, gateway: Arc<Gateway>| answer(&gateway, &token, false).await);
    let end = path()
        .and(warp::post())
        .and(with_gateway)
        .then(async |token: String, gateway: Arc<Gateway>| answer(&gateway, &token, true).await);
    show.or(end).unify()
}

async fn answer(gateway: &Gateway, token: &str, end: bool) -> Response {
    let said = match &gateway.streams {
        None => return kept::no_store().into_response(),
        Some(streams) => leave(gateway, &streams.store, token, end).await,
    };
    match said {
        Ok(Some(page)) => html(StatusCode::OK, page),
        Ok(None) => html(
            StatusCode::NOT_FOUND,
            "<p>This link is not one of ours, or not all of it.</p>",
        ),
        Err(error) => kept::unavailable(&error).into_response(),
    }
}

async fn leave(
    gateway: &Gateway,
    store: &crate::store::SharedStore,
    token: &str,
    end: bool,
) -> Result<Option<&'static str>, StoreError> {
    let Some(leave) = gateway.unsubscribe.read(store, token).await? else {
        return Ok(None);
    };
    if !end {
        return Ok(Some(
            "<p>Do you want no more mails of this kind?</p>\
             <form method=\"post\"><button>Send me no more of these</button></form>",
        ));
    }
    unsubscribe::end(store, &gateway.config.escalation, &leave).await?;
    Ok(Some(
        "<p>Done: you get no more mails of this kind. Your preferences can bring them back.</p>",
    ))
}

fn html(status: StatusCode, text: &str) -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Mails</title>\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <link rel=\"stylesheet\" href=\"/style.css\"></head><body><main>{text}</main></body></html>"
    );
    warp::http::Response::builder()
        .status(status)
        .header("content-type", "text/html; charset=utf-8")
        .header("content-security-policy", POLICY)
        .header("x-content-type-options", "nosniff")
        .header("referrer-policy", "no-referrer")
        .header("cache-control", "no-store")
        .body(page.into())
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
