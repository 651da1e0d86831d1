//! Who asks, and what for: administrators and publishers are known by a word in their token's scope,
//! administrators also by their name in the configuration.

use std::sync::Arc;

use jiff::Timestamp;
use warp::http::StatusCode;
use warp::{Filter, Rejection};

use super::arrival::{require_loopback, unauthorized};
use super::error::ApiError;
use crate::auth::{Credentials, Identity};
use crate::config::AuthMode;
use crate::gateway::Gateway;

/// The scope of those who look after the system. It includes the others.
const ADMIN: &str = "admin";

/// The scope of backends.
const PUBLISH: &str = "publish";

/// A request, whoever it is from.
pub(super) struct Asked {
    pub(super) gateway: Arc<Gateway>,
    authorization: Option<String>,
    host: Option<String>,
}

/// What the routes begin with, after their path and method.
pub(super) fn asked(
    gateway: Arc<Gateway>,
) -> impl Filter<Extract = (Asked,), Error = Rejection> + Clone {
    let authorization = warp::header::optional("authorization");
    let headers = authorization.and(warp::header::optional("host"));
    headers.map(move |authorization, host| Asked {
        gateway: Arc::clone(&gateway),
        authorization,
        host,
    })
}

impl Asked {
    /// Who asks. Comes before the body is read, so that a stranger costs little.
    pub(super) fn caller(&self) -> Result<Identity, ApiError> {
        let verifier = &self.gateway.verifier;
        let token = Credentials::read(self.authorization.as_deref(), None, None).token;
        match (verifier.mode(), token) {
            // In the mode without tokens the bearer's word is its name.
            (AuthMode::None, Some((_, user_id))) => {
                require_loopback(self.host.as_deref())?;
                Ok(Identity::unchecked(user_id))
            }
            (AuthMode::Jwt, Some((_, token))) => verifier
                .verify(&token, Timestamp::now())
                .map_err(|error| unauthorized(&error)),
            (_, None) => {
                let message = "send the header Authorization: Bearer <token>";
                Err(ApiError::new(StatusCode::UNAUTHORIZED, "no_token", message))
            }
        }
    }

    /// Who asks, if it is an administrator.
    pub(super) fn administrator(&self) -> Result<Identity, ApiError> {
        let identity = self.caller()?;
        if is_administrator(&self.gateway, &identity) {
            return Ok(identity);
        }
        let message = format!(
            "this is for administrators: the token's `scope` needs the word `{ADMIN}`, or \
             auth.administrators the user's id"
        );
        Err(ApiError::new(StatusCode::FORBIDDEN, "not_admin", message))
    }

    /// Who asks, if it is a publisher.
    pub(super) fn publisher(&self) -> Result<Identity, ApiError> {
        let identity = self.caller()?;
        if is_publisher(&self.gateway, &identity) {
            return Ok(identity);
        }
        let message = format!(
            "this is for backends: the token's `scope` needs the word `{PUBLISH}` or `{ADMIN}`, or \
             auth.administrators the user's id"
        );
        let status = StatusCode::FORBIDDEN;
        Err(ApiError::new(status, "not_publisher", message))
    }
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
