//! `[push]`: Web Push, for people who are away.

use std::path::PathBuf;
use std::time::Duration;

use bellhop_common::config::HumanDuration;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::push::HostPattern;

/// What push services keep at most; some refuse more.
const MAX_TTL: Duration = Duration::from_hours(28 * 24);

/// `[push]`: messages to browsers by their makers' push services. Without a key there are none.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// The file with the key that messages are signed with; `notifier vapid` makes one.
    pub key_file: Option<PathBuf>,
    /// Whom a push service may write to if something is wrong with our messages: `mailto:…` or
    /// `https://…`.
    pub subject: Option<String>,
    /// How long a push service keeps a message for a device that is off.
    pub ttl: HumanDuration,
    /// Whether push services may be at private addresses and other ports than 443, and on loopback
    /// without TLS: for tests, and for push services of one's own.
    pub allow_private: bool,
    /// The push services that subscriptions may name, such as `fcm.googleapis.com` and
    /// `*.push.services.mozilla.com`. Any, if empty.
    pub hosts: Vec<HostPattern>,
}

impl Default for PushConfig {
    fn default() -> Self {
        Self {
            key_file: None,
            subject: None,
            ttl: HumanDuration(Duration::from_hours(24)),
            allow_private: false,
            hosts: Vec::new(),
        }
    }
}

impl PushConfig {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.subject {
            None if self.key_file.is_some() => problems.push(
                "push.key_file needs push.subject: whom push services may write to, e.g. \
                 mailto:ops@example.org"
                    .into(),
            ),
            // Some push services refuse a message for anything else (RFC 8292, 2.1).
            Some(subject) if !is_contact(subject) => problems.push(format!(
                "push.subject must be mailto:somebody@example.org or an https:// address, not {subject:?}"
            )),
            _ => {}
        }
        if self.ttl.0 > MAX_TTL {
            problems.push(format!("push.ttl ({}) must be at most 28d", self.ttl));
        }
        problems
    }
}

fn is_contact(subject: &str) -> bool {
    match Url::parse(subject) {
        Ok(url) if url.scheme() == "mailto" => url
            .path()
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        Ok(url) => url.scheme() == "https",
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_contact_and_odd_values_are_named() {
        for (text, wants) in [
            ("key_file = \"k\"", "push.subject"),
            ("subject = \"ops@example.org\"", "mailto:"),
            ("subject = \"mailto:ops\"", "mailto:"),
            ("subject = \"mailto:@x\"", "mailto:"),
            ("subject = \"http://example.org\"", "https://"),
            ("ttl = \"29d\"", "push.ttl"),
        ] {
            let config: PushConfig = toml::from_str(text).unwrap();
            let problems = config.problems().join("\n");
            assert!(problems.contains(wants), "{text}: {problems}");
        }
        for text in [
            "",
            "key_file = \"k\"\nsubject = \"mailto:ops@example.org\"",
            "subject = \"https://example.org/contact\"\nttl = \"0s\"",
        ] {
            let config: PushConfig = toml::from_str(text).unwrap();
            assert_eq!(config.problems(), [""; 0], "{text}");
        }
        let odd = toml::from_str::<PushConfig>("hosts = [\"https://a.org\"]");
        let odd = odd.unwrap_err().to_string();
        assert!(odd.contains("https://a.org"), "{odd}");
    }
}
