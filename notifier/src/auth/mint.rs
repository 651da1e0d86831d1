//! Makes tokens, for development and tests.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};

use super::claims::Claims;
use super::configured::{KeyError, signing_secret};
use crate::config::AuthConfig;

/// What a token is to say.
#[derive(Debug, Clone, Copy)]
pub struct Draft<'a> {
    /// The user (`sub`).
    pub user_id: &'a str,
    /// When it is issued (`iat`).
    pub now: Timestamp,
    /// How long it is good (`exp`).
    pub lifetime: Duration,
    /// What it is good for besides (`scope`), words with spaces between.
    pub scope: Option<&'a str>,
    /// Patterns of rooms (`rooms`).
    pub rooms: &'a [String],
    /// Its own id (`jti`).
    pub token_id: Option<&'a str>,
    /// The user's address (`email`).
    pub email: Option<&'a str>,
}

impl<'a> Draft<'a> {
    /// A token that says no more than who and how long.
    #[must_use]
    pub fn new(user_id: &'a str, now: Timestamp, lifetime: Duration) -> Self {
        Self {
            user_id,
            now,
            lifetime,
            scope: None,
            rooms: &[],
            token_id: None,
            email: None,
        }
    }
}

/// Signs a token with `auth.secret`, or else with the first shared secret of `auth.keys`, which it
/// names.
///
/// # Errors
/// [`KeyError`] if the configuration has no shared secret.
pub fn mint(config: &AuthConfig, draft: &Draft<'_>) -> Result<String, KeyError> {
    let signing = signing_secret(config)?;
    let expires = draft.now.saturating_add(draft.lifetime);
    let seconds = |time: Timestamp| time.as_duration().as_secs_f64();
    let claims = Claims {
        sub: Some(draft.user_id.to_owned()),
        exp: Some(seconds(expires.unwrap_or(Timestamp::MAX))),
        nbf: None,
        iss: config.issuer.clone(),
        aud: config.audience.clone().map(serde_json::Value::from),
        scope: draft.scope.map(serde_json::Value::from),
        scopes: None,
        rooms: (!draft.rooms.is_empty()).then(|| draft.rooms.into()),
        jti: draft.token_id.map(str::to_owned),
        iat: Some(seconds(draft.now)),
        email: draft.email.map(str::to_owned),
        email_verified: None,
        name: None,
    };
    let header = Header {
        kid: signing.id,
        ..Header::new(signing.algorithm)
    };
    let key = EncodingKey::from_secret(signing.secret.expose().as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).map_err(KeyError::Sign)
}
