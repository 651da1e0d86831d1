//! `[amqp]`: how to reach RabbitMQ.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

use super::{HumanDuration, HumanSize, Secret};

/// `[amqp]`: the broker and how patient we are with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpConfig {
    /// `amqp://user:password@host:port/vhost`, or `amqps://` for TLS. The vhost is
    /// percent-encoded; `%2f` is the default one.
    pub url: AmqpUrl,
    /// Stands before the name of every exchange and queue, so that several systems can share a
    /// vhost.
    pub prefix: String,
    /// How long one attempt to connect and declare may take.
    pub connect_timeout: HumanDuration,
    /// How long a message may wait for the broker's confirm, including the time the broker is
    /// away or blocks us.
    pub publish_timeout: HumanDuration,
    /// AMQP heartbeat; the connection counts as dead after two are missed.
    pub heartbeat: HumanDuration,
    /// A larger message is refused here, because the broker would close the channel over it
    /// (RabbitMQ 4: `max_message_size`, 16 MiB).
    pub max_message_size: HumanSize,
    /// For `amqps://`.
    pub tls: TlsConfig,
}

impl Default for AmqpConfig {
    fn default() -> Self {
        Self {
            url: AmqpUrl(Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f")),
            prefix: "bellhop.".into(),
            connect_timeout: HumanDuration::from_secs(10),
            publish_timeout: HumanDuration::from_secs(30),
            heartbeat: HumanDuration::from_secs(20),
            max_message_size: HumanSize::kib(16 * 1024),
            tls: TlsConfig::default(),
        }
    }
}

/// `[amqp.tls]`: what `amqps://` trusts and shows. The system's certificates are trusted too.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file with the CA that signed the broker's certificate.
    pub ca_file: Option<PathBuf>,
    /// PEM file with our certificate, for a broker that asks for one. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file with our private key. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
}

impl AmqpConfig {
    /// What is wrong with the values together; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Err(error) = crate::amqp::check_url(self.url.expose()) {
            problems.push(format!(
                "amqp.url is not an AMQP address ({error}): write amqp://user:password@host:5672/%2f"
            ));
        }
        let tls = &self.tls;
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            problems.push(
                "amqp.tls.cert_file and amqp.tls.key_file belong together: set both or none".into(),
            );
        }
        let any_tls = tls.ca_file.is_some() || tls.cert_file.is_some();
        if any_tls && !self.url.expose().starts_with("amqps://") {
            problems.push("amqp.tls is set, but amqp.url does not start with amqps://".into());
        }
        if self.prefix.is_empty() || self.prefix.len() > 64 || !self.prefix.ends_with('.') {
            problems.push(format!(
                "amqp.prefix {:?} must end with a dot and have at most 64 bytes, like \"bellhop.\"",
                self.prefix
            ));
        }
        for (key, value) in [
            ("connect_timeout", self.connect_timeout),
            ("publish_timeout", self.publish_timeout),
            ("heartbeat", self.heartbeat),
        ] {
            if value.0.is_zero() {
                problems.push(format!("amqp.{key} must be more than zero"));
            }
        }
        problems
    }
}

/// The broker's address. Its password is never printed.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct AmqpUrl(Secret);

impl AmqpUrl {
    /// Wraps an address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Secret::new(url))
    }

    /// The address with its password, for the one place that connects.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose()
    }
}

impl fmt::Display for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.expose().split_once("://") else {
            // Not an address; whatever it is, it may be the secret itself.
            return f.write_str("***");
        };
        match rest.rsplit_once('@') {
            Some((login, host)) => {
                let user = login.split(':').next().unwrap_or_default();
                write!(f, "{scheme}://{user}:***@{host}")
            }
            None => write!(f, "{scheme}://{rest}"),
        }
    }
}

impl fmt::Debug for AmqpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for AmqpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_printed() {
        for url in [
            "amqp://u:hunter2@host:5672/v",
            "amqps://u:p@hunter2@host/v",
            "hunter2",
        ] {
            let url = AmqpUrl::new(url);
            assert!(!format!("{url} {url:?}").contains("hunter2"), "{url}");
        }
        assert_eq!(
            AmqpUrl::new("amqp://u:p@host:5672/v").to_string(),
            "amqp://u:***@host:5672/v"
        );
    }

    #[test]
    fn values_that_do_not_fit_together_are_named() {
        let config: AmqpConfig = toml::from_str(
            "url = \"amqp://h/%2f\"\nprefix = \"x\"\nheartbeat = \"0s\"\n[tls]\ncert_file = \"c.pem\"",
        )
        .unwrap();
        let problems = config.problems().join("\n");
        for wants in [
            "amqp.tls.key_file",
            "amqps://",
            "amqp.prefix",
            "amqp.heartbeat",
        ] {
            assert!(problems.contains(wants), "{wants} in {problems}");
        }
        assert!(AmqpConfig::default().problems().is_empty());
    }
}
