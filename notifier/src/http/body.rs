//! The body of a request, within limits of size and time.

use std::time::Duration;

use bytes::Buf;
use futures_util::{Stream, StreamExt as _};
use tokio::time::timeout;
use warp::http::StatusCode;

use super::error::ApiError;

/// The largest body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's body, if it comes in time and is not too large.
pub(super) async fn whole_body(
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Vec<u8>, ApiError> {
    timeout(BODY_TIMEOUT, read(body)).await.map_err(|_| {
        let message = format!("the body did not arrive within {BODY_TIMEOUT:?}");
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "slow_body", message)
    })?
}

async fn read(
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Vec<u8>, ApiError> {
    let mut body = std::pin::pin!(body);
    let mut read = Vec::new();
    while let Some(chunk) = body.next().await {
        let mut chunk = chunk.map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, "bad_body", error.to_string())
        })?;
        if read.len() + chunk.remaining() > MAX_BODY {
            let message = format!("the body is too large: it may have {MAX_BODY} bytes");
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                message,
            ));
        }
        while chunk.has_remaining() {
            let part = chunk.chunk();
            read.extend_from_slice(part);
            let length = part.len();
            chunk.advance(length);
        }
    }
    Ok(read)
}
