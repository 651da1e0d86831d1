//! Every close code that the notifier sends.
//!
//! 1000–1015 are [IANA's](https://www.iana.org/assignments/websocket/websocket.xhtml). Of ours,
//! 4000–4499 mean *come back*, and 4500–4999 mean *do not, unless something has changed*.

/// Why a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Close {
    /// The code on the wire.
    pub code: u16,
    /// The reason on the wire, and the label in metrics.
    pub reason: &'static str,
}

impl Close {
    /// Whether the client is to come back without further ado.
    #[must_use]
    pub const fn is_come_back(self) -> bool {
        self.code < 4500
    }
}

/// The client broke RFC 6455.
pub const PROTOCOL_ERROR: Close = close(1002, "protocol_error");
/// The client sent a binary message; the protocol is text.
pub const UNSUPPORTED: Close = close(1003, "text_only");
/// The client sent a text that is not UTF-8.
pub const NOT_UTF8: Close = close(1007, "not_utf8");
/// The client sent a message over `websocket.max_message_size`.
pub const TOO_BIG: Close = close(1009, "message_too_big");
/// The notifier stops; another instance, or its successor, takes over.
pub const RESTART: Close = close(1012, "restart");
/// The notifier cannot tell good tokens from bad ones yet: come back in a moment.
pub const STARTING: Close = close(1013, "starting");

/// More waited for the client than `websocket.queue_size`.
pub const SLOW_CONSUMER: Close = close(4000, "slow_consumer");
/// No sign of life within `websocket.pong_wait`.
pub const PONG_TIMEOUT: Close = close(4001, "pong_timeout");
/// Too many frames above `websocket.frames_per_second`.
pub const RATE_LIMITED: Close = close(4002, "rate_limited");

/// A newer connection of the same user took the place of this one.
pub const REPLACED: Close = close(4500, "replaced");
/// The token is malformed, has a wrong signature, or names another algorithm, issuer or audience.
pub const INVALID_TOKEN: Close = close(4501, "invalid_token");
/// The token was good and is over: come back with a new one.
pub const TOKEN_EXPIRED: Close = close(4502, "token_expired");
/// No token came within `websocket.auth_timeout`.
pub const AUTH_TIMEOUT: Close = close(4503, "auth_timeout");
/// The token was good and has been revoked: come back with a new one.
pub const TOKEN_REVOKED: Close = close(4504, "token_revoked");

const fn close(code: u16, reason: &'static str) -> Close {
    Close { code, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_tells_whether_to_come_back() {
        for come_back in [RESTART, STARTING, SLOW_CONSUMER, PONG_TIMEOUT, RATE_LIMITED] {
            let code = come_back.code;
            assert!([1012, 1013].contains(&code) || (4000..4500).contains(&code));
        }
        for stay_away in [
            REPLACED,
            INVALID_TOKEN,
            TOKEN_EXPIRED,
            AUTH_TIMEOUT,
            TOKEN_REVOKED,
        ] {
            assert!((4500..5000).contains(&stay_away.code) && !stay_away.is_come_back());
        }
    }
}
