//! The page at `/`, from files that are part of the program.

use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Rejection, Reply};

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// Path, type and content of every file.
const FILES: [(&str, &str, &str); 17] = [
    ("", HTML, include_str!("../web/index.html")),
    ("style.css", STYLE, include_str!("../web/style.css")),
    ("favicon.svg", IMAGE, include_str!("../web/favicon.svg")),
    ("app.js", SCRIPT, include_str!("../web/app.js")),
    ("api.js", SCRIPT, include_str!("../web/api.js")),
    ("announcer.js", SCRIPT, include_str!("../web/announcer.js")),
    ("cards.js", SCRIPT, include_str!("../web/cards.js")),
    (
        "connection.js",
        SCRIPT,
        include_str!("../web/connection.js"),
    ),
    ("format.js", SCRIPT, include_str!("../web/format.js")),
    ("inbox.js", SCRIPT, include_str!("../web/inbox.js")),
    ("job-form.js", SCRIPT, include_str!("../web/job-form.js")),
    ("log.js", SCRIPT, include_str!("../web/log.js")),
    ("progress.js", SCRIPT, include_str!("../web/progress.js")),
    ("push.js", SCRIPT, include_str!("../web/push.js")),
    ("session.js", SCRIPT, include_str!("../web/session.js")),
    // At the root, because a service worker is for what lies beside it and below.
    ("sw.js", SCRIPT, include_str!("../web/sw.js")),
    ("tasks.js", SCRIPT, include_str!("../web/tasks.js")),
];

/// Nothing from elsewhere, nothing inline: a text that slipped into the page unescaped could still
/// not run or phone home.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

pub(super) fn routes() -> impl Filter<Extract = (Response,), Error = Rejection> + Clone {
    warp::get()
        .and(warp::path::tail())
        .and_then(async |tail: warp::path::Tail| {
            let found = FILES.iter().find(|(path, ..)| *path == tail.as_str());
            found.map(file).ok_or_else(warp::reject::not_found)
        })
}

fn file(&(_, content_type, content): &(&str, &str, &str)) -> Response {
    warp::http::Response::builder()
        .status(StatusCode::OK)
        .header("content-type", content_type)
        .header("content-security-policy", POLICY)
        .header("x-content-type-options", "nosniff")
        .header("referrer-policy", "no-referrer")
        .header("cache-control", "no-cache")
        .body(content.to_owned().into())
        .unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}
