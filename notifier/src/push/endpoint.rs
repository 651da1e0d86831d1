//! Where pushes may go: the address that a browser names is a stranger's, and we are to send requests
//! there. What it looks like is checked here; which machine it means, when a connection is made
//! (`resolver.rs`). Pure.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use thiserror::Error as ThisError;

use crate::auth::is_loopback_host;
use crate::config::PushConfig;
use crate::public_address::is_public;

/// The longest endpoint, in bytes. Those of the large services have some 200.
const MAX_BYTES: usize = 2048;

/// The address of one browser at its push service. Whoever has it can send there, so only its host is
/// ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why an endpoint is not taken. Never holds the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum EndpointError {
    /// Too long.
    #[error("the endpoint has more than {MAX_BYTES} bytes")]
    TooLong,
    /// No address.
    #[error("the endpoint is no address")]
    NoAddress,
    /// Not over TLS.
    #[error("the endpoint must be an https:// address")]
    NotHttps,
    /// With a user's name, which no push service gives out.
    #[error("the endpoint has a user's name or password in it")]
    UserInfo,
    /// Another port.
    #[error("the endpoint's port is {0}; only 443 is taken here")]
    Port(u16),
    /// An address of a machine that the internet does not know.
    #[error("the endpoint is not on the public internet")]
    NotPublic,
    /// Not in the list.
    #[error("push.hosts does not have the push service {0}")]
    OtherHost(String),
}

impl Endpoint {
    /// What to connect to.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port: what a token for the push service is for.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.host())
    }
}

/// By what a subscription is called: says nothing of its endpoint, and is always the same for it.
#[must_use]
pub fn id_of(endpoint: &str) -> String {
    let hash = Sha256::digest(endpoint);
    let half = hash.get(..16).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(half)
}

/// A push service's host, or `*.` and what hosts end with. On the wire: a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern(String);

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text.strip_prefix("*.").unwrap_or(text);
        let parsed = Url::parse(&format!("https://{name}/"));
        // As the host of an address is written, or nothing would ever be equal to it.
        let is_host = parsed.is_ok_and(|url| url.host_str() == Some(name));
        if is_host && !name.contains('*') {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{text:?} is not a host in lower case, such as fcm.googleapis.com, or *. and the end of one"
        ))
    }
}

impl HostPattern {
    /// Hosts are compared, never addresses: the path of one may look like the host of another.
    fn allows(&self, host: &str) -> bool {
        match self.0.strip_prefix('*') {
            // With its dot, so that `evilexample.org` is not `*.example.org`.
            Some(end) => host.len() > end.len() && host.ends_with(end),
            None => host == self.0,
        }
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which endpoints are taken.
#[derive(Debug, Clone)]
pub struct Policy {
    allow_private: bool,
    hosts: Vec<HostPattern>,
}

impl Policy {
    /// As the configuration says.
    #[must_use]
    pub fn new(config: &PushConfig) -> Self {
        Self {
            allow_private: config.allow_private,
            hosts: config.hosts.clone(),
        }
    }

    /// Whether an endpoint is taken, by what it looks like.
    ///
    /// # Errors
    /// [`EndpointError`] says why it is not.
    pub fn check(&self, endpoint: &str) -> Result<Endpoint, EndpointError> {
        if endpoint.len() > MAX_BYTES {
            return Err(EndpointError::TooLong);
        }
        let url = Url::parse(endpoint).map_err(|_| EndpointError::NoAddress)?;
        let host = url.host_str().ok_or(EndpointError::NoAddress)?;
        match url.scheme() {
            "https" => {}
            "http" if self.allow_private && is_loopback_host(Some(host)) => {}
            _ => return Err(EndpointError::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::UserInfo);
        }
        // `port` is `None` for the usual one of the scheme, which for `http` is on loopback.
        if let Some(port) = url.port().filter(|_| !self.allow_private) {
            return Err(EndpointError::Port(port));
        }
        // A name is looked at once it has been resolved; an address never is.
        if literal(host).is_some_and(|address| !self.allows(address)) {
            return Err(EndpointError::NotPublic);
        }
        if !self.hosts.is_empty() && !self.hosts.iter().any(|pattern| pattern.allows(host)) {
            return Err(EndpointError::OtherHost(host.to_owned()));
        }
        Ok(Endpoint(url))
    }

    /// Whether pushes may go to this machine.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        self.allow_private || is_public(address)
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::new(&toml::from_str(text).unwrap())
    }

    #[test]
    fn what_no_push_service_gives_out_is_refused() {
        use EndpointError::{NoAddress, NotHttps, NotPublic, Port, TooLong, UserInfo};
        let strict = policy("");
        for (endpoint, wants) in [
            ("https://fcm.googleapis.com/fcm/send/x:y", None),
            ("https://web.push.apple.com/Q?a=b#c", None),
            ("https://fcm.googleapis.com:443/x", None),
            ("https://8.8.8.8/x", None),
            ("http://fcm.googleapis.com/x", Some(NotHttps)),
            ("http://localhost/x", Some(NotHttps)),
            ("ftp://fcm.googleapis.com/x", Some(NotHttps)),
            ("javascript:alert(1)", Some(NoAddress)),
            ("data:text/html,x", Some(NoAddress)),
            ("/fcm/send", Some(NoAddress)),
            ("https://", Some(NoAddress)),
            ("", Some(NoAddress)),
            ("https://a@fcm.googleapis.com/x", Some(UserInfo)),
            ("https://:b@fcm.googleapis.com/x", Some(UserInfo)),
            ("https://fcm.googleapis.com:8443/x", Some(Port(8443))),
            ("https://fcm.googleapis.com:22/x", Some(Port(22))),
            ("https://127.0.0.1/x", Some(NotPublic)),
            ("https://2130706433/x", Some(NotPublic)),
            ("https://0x7f.1/x", Some(NotPublic)),
            ("https://127.1./x", Some(NotPublic)),
            ("https://169.254.169.254/latest/meta-data", Some(NotPublic)),
            ("https://[::1]/x", Some(NotPublic)),
            ("https://[::ffff:10.0.0.1]/x", Some(NotPublic)),
            ("https://[64:ff9b::169.254.169.254]/x", Some(NotPublic)),
            ("https://[fd00::1]/x", Some(NotPublic)),
        ] {
            assert_eq!(strict.check(endpoint).err(), wants, "{endpoint}");
        }
        let long = format!("https://fcm.googleapis.com/{}", "x".repeat(MAX_BYTES));
        assert_eq!(strict.check(&long), Err(TooLong));
    }

    #[test]
    fn an_own_push_service_is_taken_where_the_configuration_says_so() {
        let own = policy("allow_private = true");
        for (endpoint, wants) in [
            ("http://127.0.0.1:8000/x", true),
            ("http://localhost:8000/x", true),
            ("http://[::1]:8000/x", true),
            ("https://10.0.0.1:8443/x", true),
            ("http://10.0.0.1/x", false),
            ("http://push.example.org/x", false),
            ("http://localhost.example.org/x", false),
            ("https://a:b@10.0.0.1/x", false),
        ] {
            assert_eq!(own.check(endpoint).is_ok(), wants, "{endpoint}");
        }
    }

    #[test]
    fn hosts_are_compared_and_not_what_looks_like_them() {
        let listed = policy("hosts = [\"*.push.example.com\", \"fcm.googleapis.com\"]");
        for (endpoint, wants) in [
            ("https://a.push.example.com/x", true),
            ("https://a.b.push.example.com/x", true),
            ("https://A.PUSH.example.com/x", true),
            ("https://fcm.googleapis.com/x", true),
            ("https://push.example.com/x", false),
            ("https://evilpush.example.com/x", false),
            ("https://evil.example/a.push.example.com/", false),
            ("https://evil.example/?a.push.example.com", false),
            ("https://evil.example#.push.example.com", false),
            ("https://a.push.example.com.evil.example/", false),
            ("https://x.fcm.googleapis.com/x", false),
            ("https://a.push.example.com./x", false),
        ] {
            assert_eq!(listed.check(endpoint).is_ok(), wants, "{endpoint}");
        }
        for pattern in [
            "",
            "*",
            "*.",
            "*.*.a.org",
            "A.org",
            "a.org/x",
            "a.org:443",
            "https://a.org",
            "a b",
            "u@a.org",
        ] {
            assert!(pattern.parse::<HostPattern>().is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn an_endpoint_shows_its_host_alone() {
        let endpoint = "https://fcm.googleapis.com/fcm/send/hunter2?k=hunter2";
        let shown = format!(
            "{:?} {}",
            policy("").check(endpoint).unwrap(),
            id_of(endpoint)
        );
        assert!(
            shown.contains("fcm.googleapis.com") && !shown.contains("hunter2"),
            "{shown}"
        );
        assert_eq!(id_of(endpoint), id_of(endpoint));
        assert_ne!(
            id_of(endpoint),
            id_of("https://fcm.googleapis.com/fcm/send/other")
        );
        assert_eq!(id_of("").len(), 22);
    }
}
