//! What a token says, checked against a given time. Pure.

use std::time::Duration;

use bellhop_common::wire::MAX_ID_BYTES;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::close::{self, Close};

/// Who a token says its bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user (`sub`).
    pub user_id: String,
    /// When the token ends, with the leeway; `None` in the mode without tokens.
    pub expires: Option<Timestamp>,
    /// What it may do besides (the words of `scope`, or the list `scopes`).
    pub scopes: Vec<String>,
    /// Patterns of the rooms and chats it may enter (`rooms`), e.g. `room:proj-*`.
    pub rooms: Vec<String>,
    /// The token's own id (`jti`).
    pub token_id: Option<String>,
    /// When the token was issued (`iat`).
    pub issued_at: Option<Timestamp>,
    /// His address (`email`), unless the issuer says that it is not checked (`email_verified`).
    pub email: Option<String>,
    /// What he is called (`name`).
    pub name: Option<String>,
}

impl Identity {
    /// A user who is taken at his word, in the mode without tokens.
    #[must_use]
    pub fn unchecked(user_id: String) -> Self {
        Self {
            user_id,
            expires: None,
            scopes: Vec::new(),
            rooms: Vec::new(),
            token_id: None,
            issued_at: None,
            email: None,
            name: None,
        }
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not three parts of base64 with JSON in them, or a claim of the wrong type.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with another algorithm than that of the key it names, or of any key.
    #[error("the token is signed with {found}, this notifier takes only {wanted}")]
    WrongAlgorithm {
        /// The keys' own.
        wanted: String,
        /// The token's.
        found: String,
    },
    /// Signed with a key that is not known. Its name stays out of the text: it is a stranger's.
    #[error("the token's `kid` names a key that this notifier does not know")]
    UnknownKey,
    /// The signature is not by our key.
    #[error("the token's signature does not match")]
    BadSignature,
    /// A claim is missing.
    #[error("the token has no `{0}`")]
    MissingClaim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` or `aud` is not the configured one.
    #[error("the token's `{0}` is not the one this notifier takes")]
    WrongClaim(&'static str),
    /// It was good and has been revoked.
    #[error("the token has been revoked")]
    Revoked,
    /// The keys that could check it were not fetched yet. No fault of the token.
    #[error("the keys that tokens are checked with could not be fetched yet: try again")]
    Starting,
    /// `sub` is empty or too long.
    #[error("the token's `sub` must have 1 to {MAX_ID_BYTES} bytes")]
    BadSubject,
}

impl TokenError {
    /// The code in an HTTP answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.close().reason
    }

    /// How a connection that brought such a token is closed.
    #[must_use]
    pub fn close(&self) -> Close {
        match self {
            Self::Expired => close::TOKEN_EXPIRED,
            Self::Revoked => close::TOKEN_REVOKED,
            Self::Starting => close::STARTING,
            _ => close::INVALID_TOKEN,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: Option<String>,
    /// Seconds since 1970; RFC 7519 allows a fraction.
    pub(super) exp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) nbf: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aud: Option<serde_json::Value>,
    /// One text with words (RFC 8693, 4.2); some issuers write a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scope: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scopes: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rooms: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) iat: Option<f64>,
    /// Of `OpenID` Connect Core 1.0, section 5.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) email_verified: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
}

impl Claims {
    /// Checks the times and the subject; the signature, `iss` and `aud` were checked before.
    pub(super) fn identity(self, now: Timestamp, leeway: Duration) -> Result<Identity, TokenError> {
        let exp = self.exp.ok_or(TokenError::MissingClaim("exp"))?;
        let expires = instant(exp)?
            .saturating_add(leeway)
            .map_err(|_| TokenError::Malformed)?;
        if now >= expires {
            return Err(TokenError::Expired);
        }
        if let Some(nbf) = self.nbf {
            let begins = instant(nbf)?
                .saturating_sub(leeway)
                .map_err(|_| TokenError::Malformed)?;
            if now < begins {
                return Err(TokenError::NotYetValid);
            }
        }
        let user_id = self.sub.ok_or(TokenError::MissingClaim("sub"))?;
        if !(1..=MAX_ID_BYTES).contains(&user_id.len()) {
            return Err(TokenError::BadSubject);
        }
        Ok(Identity {
            user_id,
            expires: Some(expires),
            scopes: [self.scope, self.scopes]
                .into_iter()
                .flatten()
                .flat_map(words)
                .collect(),
            rooms: self.rooms.map(patterns).unwrap_or_default(),
            token_id: self.jti,
            issued_at: self.iat.map(instant).transpose()?,
            email: self.email.filter(|_| self.email_verified != Some(false)),
            name: self.name,
        })
    }
}

/// The words of a text or of a list of texts. What is neither allows nothing.
fn words(claim: serde_json::Value) -> Vec<String> {
    let split = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    match claim {
        serde_json::Value::String(text) => split(&text),
        serde_json::Value::Array(list) => list
            .iter()
            .filter_map(|word| word.as_str())
            .flat_map(split)
            .collect(),
        _ => Vec::new(),
    }
}

/// A list of texts, which may have spaces in them, or one text. What is neither allows nothing.
fn patterns(claim: serde_json::Value) -> Vec<String> {
    match claim {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(list) => list
            .into_iter()
            .filter_map(|pattern| match pattern {
                serde_json::Value::String(pattern) => Some(pattern),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A `NumericDate` of RFC 7519.
fn instant(seconds: f64) -> Result<Timestamp, TokenError> {
    let duration =
        jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| TokenError::Malformed)?;
    Timestamp::from_duration(duration).map_err(|_| TokenError::Malformed)
}
