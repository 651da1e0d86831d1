//! Tokens for the clients: the same for every side, good for what each side wants to see.

use anyhow::Context as _;
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

/// The shared secret; it protects nothing.
pub(crate) const SECRET: &str = "bellhop-bench-0123456789abcdef0123";

/// Longer than any scenario.
const LIFETIME_S: i64 = 4 * 3600;

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    exp: i64,
    /// The patterns that our notifier reads.
    rooms: [&'a str; 1],
    /// The channels that centrifuge's server puts the client into.
    channels: [&'a str; 1],
}

/// A token (HS256) for a user who is, or may be, in a room.
pub(crate) fn mint(user: &str, room: &str) -> anyhow::Result<String> {
    let claims = Claims {
        sub: user,
        exp: Timestamp::now().as_second() + LIFETIME_S,
        rooms: ["room:*"],
        channels: [room],
    };
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).context("cannot sign a token")
}
