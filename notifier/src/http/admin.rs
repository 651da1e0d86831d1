//! What only administrators may do.

use jiff::Timestamp;
use warp::http::StatusCode;

use super::error::ApiError;
use super::tasks::caller;
use crate::auth::Identity;
use crate::gateway::Gateway;

/// The word that a token's scope must have.
const SCOPE: &str = "admin";

/// Lets administrators pass. To be asked before anything else, so that a stranger costs little.
pub(super) fn administrator(
    gateway: &Gateway,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Identity, ApiError> {
    let identity = caller(gateway, authorization, now)?;
    let named = &gateway.config.auth.administrators;
    if named.contains(&identity.user_id) || identity.scopes.iter().any(|word| word == SCOPE) {
        return Ok(identity);
    }
    let message = format!(
        "this is for administrators: the token's `scope` needs the word `{SCOPE}`, or \
         auth.administrators the user's id"
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "not_admin", message))
}
