//! Where a client carries its token. Pure.

use std::fmt;

/// The subprotocol that we speak and echo.
pub const SUBPROTOCOL: &str = "bellhop.v1";

/// How a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// `Authorization: Bearer …`: a program, which reads a status code.
    Header,
    /// `Sec-WebSocket-Protocol: bellhop.v1, bearer.…`: a browser, which cannot set headers and is
    /// told nothing of a refused handshake but a close code.
    Subprotocol,
    /// `?token=…`: for clients that can do nothing else.
    Query,
}

/// What a handshake offers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token, by the safest way it came.
    pub token: Option<(Carrier, String)>,
    /// Whether [`SUBPROTOCOL`] was offered and must be echoed. The token never is.
    pub subprotocol: bool,
}

impl Credentials {
    /// Reads the two headers and the query parameter.
    #[must_use]
    pub fn read(
        authorization: Option<&str>,
        protocols: Option<&str>,
        query_token: Option<&str>,
    ) -> Self {
        let header = authorization.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| (Carrier::Header, token.trim().to_owned()))
        });
        let mut offered = protocols.unwrap_or_default().split(',').map(str::trim);
        let subprotocol = offered.clone().any(|offer| offer == SUBPROTOCOL);
        let protocol = offered
            .find_map(|offer| offer.strip_prefix("bearer."))
            .map(|token| (Carrier::Subprotocol, token.to_owned()));
        let query = query_token.map(|token| (Carrier::Query, token.to_owned()));
        Self {
            token: header.or(protocol).or(query),
            subprotocol,
        }
    }
}

/// Without the token.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("carrier", &self.token.as_ref().map(|(carrier, _)| carrier))
            .field("subprotocol", &self.subprotocol)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_safest_carrier_wins() {
        let all = Credentials::read(Some("bearer h"), Some("bellhop.v1, bearer.p"), Some("q"));
        assert_eq!(all.token, Some((Carrier::Header, "h".into())));
        assert!(all.subprotocol);
        let browser = Credentials::read(None, Some("bearer.p,bellhop.v1"), Some("q"));
        assert_eq!(browser.token, Some((Carrier::Subprotocol, "p".into())));
        let query = Credentials::read(Some("Basic x"), Some("chat"), Some("q"));
        assert_eq!(query.token, Some((Carrier::Query, "q".into())));
        assert!(!query.subprotocol);
        assert_eq!(Credentials::read(None, None, None), Credentials::default());
    }

    #[test]
    fn the_token_is_not_printed() {
        let credentials = Credentials::read(Some("Bearer hunter2"), None, None);
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
