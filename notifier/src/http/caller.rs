//! Who asks, and what for: administrators and publishers are known by a word in their token's scope,
//! administrators also by their name in the configuration.

use jiff::Timestamp;
use warp::http::StatusCode;

use super::arrival::unauthorized;
use super::error::ApiError;
use crate::auth::{Credentials, Identity};
use crate::config::AuthMode;
use crate::gateway::Gateway;

/// The scope of those who look after the system. It includes the others.
const ADMIN: &str = "admin";

/// The scope of backends.
const PUBLISH: &str = "publish";

/// Who asks.
pub(super) fn caller(
    gateway: &Gateway,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Identity, ApiError> {
    let token = Credentials::read(authorization, None, None).token;
    match (gateway.verifier.mode(), token) {
        // In the mode without tokens the bearer's word is its name.
        (AuthMode::None, Some((_, user_id))) => Ok(Identity::unchecked(user_id)),
        (AuthMode::Jwt, Some((_, token))) => match gateway.verifier.verify(&token, now) {
            Ok(identity) => Ok(identity),
            Err(error) => Err(unauthorized(&error)),
        },
        (_, None) => {
            let message = "send the header Authorization: Bearer <token>";
            Err(ApiError::new(StatusCode::UNAUTHORIZED, "no_token", message))
        }
    }
}

/// Who asks, if it is an administrator.
pub(super) fn administrator(
    gateway: &Gateway,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Identity, ApiError> {
    let identity = caller(gateway, authorization, now)?;
    if is_administrator(gateway, &identity) {
        return Ok(identity);
    }
    let message = format!(
        "this is for administrators: the token's `scope` needs the word `{ADMIN}`, or \
         auth.administrators the user's id"
    );
    Err(ApiError::new(StatusCode::FORBIDDEN, "not_admin", message))
}

/// Who asks, if it is a publisher.
pub(super) fn publisher(
    gateway: &Gateway,
    authorization: Option<&str>,
    now: Timestamp,
) -> Result<Identity, ApiError> {
    let identity = caller(gateway, authorization, now)?;
    if is_publisher(gateway, &identity) {
        return Ok(identity);
    }
    let message = format!("this is for backends: the token's `scope` needs the word `{PUBLISH}`");
    let status = StatusCode::FORBIDDEN;
    Err(ApiError::new(status, "not_publisher", message))
}

/// Whether somebody may send to everybody, and see who is where.
pub(super) fn is_publisher(gateway: &Gateway, identity: &Identity) -> bool {
    has_scope(identity, PUBLISH) || is_administrator(gateway, identity)
}

fn is_administrator(gateway: &Gateway, identity: &Identity) -> bool {
    let named = &gateway.config.auth.administrators;
    has_scope(identity, ADMIN) || named.contains(&identity.user_id)
}

fn has_scope(identity: &Identity, scope: &str) -> bool {
    identity.scopes.iter().any(|word| word == scope)
}
