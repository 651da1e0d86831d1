//! Revocations: tokens that are good no more, told to all notifiers of today and to come.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::MAX_ID_BYTES;
use super::order::word;

/// How long a revocation holds. No token may live longer, or it would be good again.
pub const REVOCATION_LASTS: SignedDuration = SignedDuration::from_hours(31 * 24);

/// The longest id of a token that can be revoked.
pub const MAX_TOKEN_ID_BYTES: usize = 256;

/// How far ahead `issued_before` may be: an issuer's clock may be, but a slip of the pen must not
/// shut a user out for good.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// The routing key of a message that only marks a place in the stream; it has no body.
pub const REVOCATION_MARK: &str = "revoke.mark";

/// Which tokens are good no more; travels through the exchange `control`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "revoke", rename_all = "snake_case")]
pub enum Revocation {
    /// Those of a user that were issued before a time, or do not say when.
    User {
        /// The user.
        user_id: String,
        /// The time.
        issued_before: Timestamp,
        /// When it was ordered.
        time: Timestamp,
    },
    /// The one with this id (`jti`).
    Token {
        /// The id.
        token_id: String,
        /// When it was ordered.
        time: Timestamp,
    },
    /// All that were issued before a time, or do not say when.
    Everybody {
        /// The time.
        issued_before: Timestamp,
        /// When it was ordered.
        time: Timestamp,
    },
}

/// Why a revocation makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// Not one of them, or several.
    #[error("say who or what is revoked: exactly one of a user, a token's id, and everybody")]
    NotOne,
    /// The user's id.
    #[error("a user's id has 1 to {MAX_ID_BYTES} bytes")]
    BadUser,
    /// The token's id.
    #[error("a token's id has 1 to {MAX_TOKEN_ID_BYTES} bytes")]
    BadToken,
    /// A token is revoked whenever it was issued.
    #[error("a token's id and a time do not go together: a token is revoked as a whole")]
    TokenWithTime,
    /// The time is too far ahead.
    #[error("issued_before may be an hour ahead at most, or nobody could log in again until then")]
    TooFarAhead,
}

impl Revocation {
    /// Makes one of what somebody asked for; without a time, what was issued before `now`.
    ///
    /// # Errors
    /// [`RevocationError`].
    pub fn new(
        user_id: Option<String>,
        token_id: Option<String>,
        everybody: bool,
        issued_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Self, RevocationError> {
        let latest = now.saturating_add(MAX_AHEAD);
        if issued_before.is_some_and(|time| latest.is_ok_and(|latest| time > latest)) {
            return Err(RevocationError::TooFarAhead);
        }
        let time = now;
        let before = issued_before.unwrap_or(now);
        match (user_id, token_id, everybody) {
            (Some(user_id), None, false) => {
                if !(1..=MAX_ID_BYTES).contains(&user_id.len()) {
                    return Err(RevocationError::BadUser);
                }
                Ok(Self::User {
                    user_id,
                    issued_before: before,
                    time,
                })
            }
            (None, Some(token_id), false) => {
                if !(1..=MAX_TOKEN_ID_BYTES).contains(&token_id.len()) {
                    return Err(RevocationError::BadToken);
                }
                if issued_before.is_some() {
                    return Err(RevocationError::TokenWithTime);
                }
                Ok(Self::Token { token_id, time })
            }
            (None, None, true) => Ok(Self::Everybody {
                issued_before: before,
                time,
            }),
            _ => Err(RevocationError::NotOne),
        }
    }

    /// When it was ordered.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::User { time, .. } | Self::Token { time, .. } | Self::Everybody { time, .. } => {
                *time
            }
        }
    }

    /// The routing key it is published with.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::User { user_id, .. } => format!("revoke.user.{}", word(user_id)),
            Self::Token { token_id, .. } => format!("revoke.token.{}", word(token_id)),
            Self::Everybody { .. } => "revoke.everybody".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn new(
        user: Option<&str>,
        token: Option<&str>,
        everybody: bool,
        before: Option<i64>,
    ) -> Result<Revocation, RevocationError> {
        let (user, token) = (user.map(str::to_owned), token.map(str::to_owned));
        Revocation::new(user, token, everybody, before.map(at), at(0))
    }

    #[test]
    fn exactly_one_thing_is_revoked() {
        use RevocationError::{BadToken, BadUser, NotOne, TokenWithTime, TooFarAhead};
        let long = "x".repeat(257);
        for (given, wants) in [
            (new(None, None, false, None), NotOne),
            (new(Some("a"), Some("t"), false, None), NotOne),
            (new(Some("a"), None, true, None), NotOne),
            (new(Some(""), None, false, None), BadUser),
            (new(Some(&long), None, false, None), BadUser),
            (new(None, Some(""), false, None), BadToken),
            (new(None, Some(&long), false, None), BadToken),
            (new(None, Some("t"), false, Some(0)), TokenWithTime),
            (new(None, None, true, Some(3601)), TooFarAhead),
        ] {
            assert_eq!(given, Err(wants));
        }
        assert!(new(Some("a"), None, false, Some(3600)).is_ok());
    }

    #[test]
    fn one_reads_back_as_it_was_written() {
        let user = new(Some("a.b"), None, false, None).unwrap();
        let token = new(None, Some("t"), false, None).unwrap();
        let everybody = new(None, None, true, Some(-5)).unwrap();
        for (revocation, key, form) in [
            (&user, "revoke.user.a%2Eb", r#""revoke":"user""#),
            (&token, "revoke.token.t", r#""revoke":"token""#),
            (&everybody, "revoke.everybody", r#""revoke":"everybody""#),
        ] {
            assert_eq!(revocation.key(), key);
            let text = serde_json::to_string(revocation).unwrap();
            assert!(text.contains(form), "{text}");
            let back: Revocation = serde_json::from_str(&text).unwrap();
            assert_eq!((&back, back.time()), (revocation, at(0)));
        }
    }
}
