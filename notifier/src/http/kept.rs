//! What requests for what is kept have in common.

use bytes::Bytes;
use serde_json::value::RawValue;
use tracing::debug;
use warp::http::StatusCode;

use super::error::ApiError;
use crate::gateway::Gateway;
use crate::store::StoreError;
use crate::streams::Streams;

/// How many are answered if the caller does not say.
pub(super) const LIMIT: u32 = 50;

/// How many may be asked for.
const MAX_LIMIT: u32 = 200;

/// The store, where there is one.
pub(super) fn streams(gateway: &Gateway) -> Result<&Streams, ApiError> {
    gateway.streams.as_ref().ok_or_else(no_store)
}

/// Not a 404, which would say that there is no such task.
pub(super) fn no_store() -> ApiError {
    let message = "nothing is kept here (store.kind = \"none\")";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, "no_store", message)
}

/// The store does not do it now.
pub(super) fn unavailable(error: &StoreError) -> ApiError {
    debug!(%error, "a request could not be answered");
    let message = "the store does not answer: try again";
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ApiError::new(status, "store_unavailable", message)
}

/// A query that cannot be answered.
pub(super) fn bad_query(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message)
}

/// A parameter that there is not.
pub(super) fn unknown(name: &str, known: &str) -> ApiError {
    bad_query(format!("there is no parameter {name:?}, only {known}"))
}

/// How many are asked for.
pub(super) fn limit(value: &str) -> Result<u32, ApiError> {
    let limit = value.parse().ok().filter(|n| (1..=MAX_LIMIT).contains(n));
    limit.ok_or_else(|| bad_query(format!("limit must be 1 to {MAX_LIMIT}, not {value:?}")))
}

/// A number of a parameter.
pub(super) fn number(name: &str, value: &str) -> Result<u64, ApiError> {
    let number = value.parse().ok();
    number.ok_or_else(|| bad_query(format!("{name} must be a whole number, not {value:?}")))
}

/// A yes or no of a parameter.
pub(super) fn flag(name: &str, value: &str) -> Result<bool, ApiError> {
    let flag = value.parse().ok();
    flag.ok_or_else(|| bad_query(format!("{name} must be true or false, not {value:?}")))
}

/// JSON that was kept, as it is.
pub(super) fn raw(json: &Bytes) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}
