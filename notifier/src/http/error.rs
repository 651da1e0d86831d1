//! Errors as JSON: `{"error": {"code", "message"}}`.

use std::convert::Infallible;

use serde_json::json;
use warp::http::header::{CONNECTION, SEC_WEBSOCKET_VERSION, UPGRADE, WWW_AUTHENTICATE};
use warp::http::{HeaderName, HeaderValue, StatusCode};
use warp::reject::{InvalidHeader, MethodNotAllowed};
use warp::reply::Response;
use warp::{Rejection, Reply};

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

/// What a request is answered.
pub(super) type Answer = Result<Response, ApiError>;

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }
}

impl Reply for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = warp::reply::json(&body).into_response();
        *response.status_mut() = self.status;
        // These two statuses must say what would be taken (RFC 9110, 15.5.2 and 15.5.22).
        let wanted: &[(HeaderName, &'static str)] = match self.status {
            StatusCode::UNAUTHORIZED => &[(WWW_AUTHENTICATE, "Bearer")],
            StatusCode::UPGRADE_REQUIRED => &[
                (CONNECTION, "upgrade"),
                (UPGRADE, "websocket"),
                (SEC_WEBSOCKET_VERSION, "13"),
            ],
            _ => &[],
        };
        for (name, value) in wanted {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// It is not known yet which tokens were revoked.
#[derive(Debug)]
pub(crate) struct Starting;

impl warp::reject::Reject for Starting {}

/// What is answered while that is so.
pub(super) fn starting() -> ApiError {
    let message = "it is not known yet which tokens were revoked: try again";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ApiError::new(status, "starting", message)
}

/// What no route answered.
pub(crate) async fn answer(rejection: Rejection) -> Result<ApiError, Infallible> {
    let (status, code, message) = if rejection.find::<Starting>().is_some() {
        return Ok(starting());
    } else if rejection.is_not_found() {
        (StatusCode::NOT_FOUND, "not_found", "there is nothing here")
    } else if rejection.find::<InvalidHeader>().is_some() {
        (
            StatusCode::BAD_REQUEST,
            "bad_header",
            "a header cannot be read",
        )
    } else if rejection.find::<MethodNotAllowed>().is_some() {
        // Last, because every route for another method adds it to what the right one says.
        let status = StatusCode::METHOD_NOT_ALLOWED;
        (
            status,
            "method_not_allowed",
            "this path takes another method",
        )
    } else {
        tracing::warn!(?rejection, "a request failed for an unforeseen reason");
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        (status, "internal", "something went wrong here")
    };
    Ok(ApiError::new(status, code, message))
}
