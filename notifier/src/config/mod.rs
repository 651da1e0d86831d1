//! The notifier's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use bellhop_common::config::{AmqpConfig, LogConfig, Secret, ServiceConfig, ShutdownConfig};
use serde::{Deserialize, Serialize};

pub use self::alerts::{
    AlertsConfig, FlapConfig, PostRate, PostRateError, QuietConfig, ReceiverConfig, ReceiverKind,
    RouteConfig,
};
pub(crate) use self::auth::jwks_url;
pub use self::auth::{AuthConfig, AuthMode, KeyConfig};
pub use self::escalation::{CategoryConfig, EscalationConfig, Until};
pub(crate) use self::mail::{Encryption, SmtpServer};
pub use self::mail::{MailConfig, MailTls};
pub use self::push::PushConfig;
pub use self::rooms::{Access, RoomsConfig};
pub use self::store::{StoreConfig, StoreKind};
pub use self::websocket::WebSocketConfig;
use crate::alerts::Plan;
use crate::http::Network;

mod alerts;
mod auth;
mod escalation;
mod mail;
mod push;
mod rooms;
mod store;
mod websocket;

/// An instance's name is part of a queue's name, which has at most 255 bytes, some of them spent
/// on percent-encoding.
pub(crate) const MAX_INSTANCE_BYTES: usize = 48;

/// Everything that `notifier run` reads.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NotifierConfig {
    /// This instance's name in queues and frames [default: the host's name].
    pub instance: Option<String>,
    /// The broker.
    pub amqp: AmqpConfig,
    /// Where to listen, and for whom.
    pub http: HttpConfig,
    /// Logs.
    pub log: LogConfig,
    /// What happens on a signal.
    pub shutdown: ShutdownConfig,
    /// Who may connect.
    pub auth: AuthConfig,
    /// Connections.
    pub websocket: WebSocketConfig,
    /// Rooms and chats.
    pub rooms: RoomsConfig,
    /// What is kept for those who are away.
    pub store: StoreConfig,
    /// Jobs that users may start.
    pub tasks: TasksConfig,
    /// How people who are away are reached.
    pub escalation: EscalationConfig,
    /// Web Push. Without a key there is none.
    pub push: PushConfig,
    /// Mails to people who are away. Without a server there are none.
    pub mail: MailConfig,
    /// The receiver of team alerts. Without any there are none.
    pub mattermost: MattermostConfig,
    /// Which alerts the team is told, when and where.
    pub alerts: AlertsConfig,
}

/// `[http]`: the listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Web pages that may connect, e.g. `https://app.example.org` or `https://*.example.org`, or
    /// `*` for any. A page that this notifier serves itself always may, and so may clients that
    /// send no `Origin`, which are no browsers.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed when connections are counted by address, e.g.
    /// `10.0.0.0/8`.
    pub trusted_proxies: Vec<Network>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// `[tasks]`: `POST /api/tasks`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TasksConfig {
    /// The kinds that any user may start, with the queue they go to. None by default: a worker
    /// trusts its queue.
    pub open: BTreeMap<String, OpenKind>,
}

/// `[tasks.open."<kind>"]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenKind {
    /// The queue's short name.
    pub queue: String,
}

impl Default for OpenKind {
    fn default() -> Self {
        Self {
            queue: "default".into(),
        }
    }
}

/// `[mattermost]`: failed jobs for the team.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MattermostConfig {
    /// The incoming webhook's address. It is a secret: whoever has it can post.
    pub webhook_url: Option<Secret>,
    /// The same from a file.
    pub webhook_url_file: Option<PathBuf>,
    /// A channel's name, where the webhook's own is not wanted.
    pub channel: Option<String>,
    /// A link to a task for people, with `{task_id}` in it.
    pub task_url: Option<String>,
}

impl ServiceConfig for NotifierConfig {
    const ELSEWHERE: (&'static str, &'static [&'static str]) = (
        "worker",
        &[
            "celery", "cron", "endpoint", "exec", "files", "jobs", "kinds", "queues",
        ],
    );

    fn problems(&self) -> Vec<String> {
        let mut problems = self.amqp.problems();
        problems.extend(self.log.problems());
        problems.extend(self.auth.problems(self.http.listen));
        problems.extend(self.websocket.problems());
        problems.extend(self.rooms.problems());
        problems.extend(self.store.problems());
        problems.extend(self.push.problems());
        problems.extend(self.mail.problems());
        problems.extend(self.escalation.problems(self));
        if self.rooms.callback_timeout >= self.websocket.pong_wait {
            problems.push(format!(
                "rooms.callback_timeout ({}) must be shorter than websocket.pong_wait ({})",
                self.rooms.callback_timeout, self.websocket.pong_wait
            ));
        }
        if self.websocket.drain_window >= self.shutdown.deadline {
            problems.push(format!(
                "websocket.drain_window ({}) must be shorter than shutdown.deadline ({}), or \
                 connections are cut off",
                self.websocket.drain_window, self.shutdown.deadline
            ));
        }
        if let Err(wrong) = Plan::new(&self.alerts, &self.mattermost) {
            problems.extend(wrong);
        }
        if self
            .mattermost
            .task_url
            .as_ref()
            .is_some_and(|url| !url.contains("{task_id}"))
        {
            problems.push("mattermost.task_url has no {task_id} in it".into());
        }
        let instance = self.instance.as_deref().unwrap_or("x");
        if !(1..=MAX_INSTANCE_BYTES).contains(&instance.len()) {
            problems.push(format!(
                "instance must have 1 to {MAX_INSTANCE_BYTES} bytes"
            ));
        }
        for origin in &self.http.allowed_origins {
            if origin != "*" && !origin.contains("://") {
                problems.push(format!(
                    "http.allowed_origins: {origin:?} has no scheme, write https://{origin}"
                ));
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_common::config::to_redacted_toml;

    fn problems(text: &str) -> String {
        toml::from_str::<NotifierConfig>(text)
            .unwrap()
            .problems()
            .join("\n")
    }

    const TWICE: &str = r#"
        [[auth.keys]]
        id = "k"
        algorithm = "HS256"
        secret = "s"
        [[auth.keys]]
        id = "k"
        algorithm = "HS256"
        secret_file = "f"
    "#;

    #[test]
    fn keys_that_do_not_fit_together_are_named() {
        for (text, wants) in [
            ("", "openssl rand -hex 32"),
            ("[auth]\nsecret=\"s\"\nsecret_file=\"f\"", "exactly one"),
            (
                "[auth]\nalgorithm=\"ES256\"\nsecret=\"s\"",
                "public_key_file",
            ),
            (
                "[auth]\nmode=\"none\"\n[http]\nlisten=\"0.0.0.0:80\"",
                "loopback",
            ),
            (
                "[[auth.keys]]\nid=\"k\"\nalgorithm=\"HS256\"",
                "\"k\".secret",
            ),
            (
                "[[auth.keys]]\nid=\"k\"\nalgorithm=\"EdDSA\"\nsecret=\"s\"",
                "public_key_file",
            ),
            (TWICE, "twice"),
            ("[auth]\njwks_url=\"http://a.org/k\"", "https://, or"),
            ("[auth]\njwks_url=\"ftp://a.org/k\"", "https://"),
            ("[auth]\njwks_url=\"https://u:p@a.org/k\"", "password"),
            ("[auth]\njwks_url=\"keys\"", "no address"),
            (
                "[auth]\njwks_url=\"https://a.org\"\njwks_file=\"f\"",
                "keep one",
            ),
            (
                "[auth]\njwks_file=\"f\"\njwks_refresh=\"10ms\"",
                "jwks_refresh",
            ),
            ("[websocket]\npong_wait=\"5s\"", "websocket.pong_wait"),
            ("[http]\nallowed_origins=[\"a.org\"]", "https://a.org"),
            ("[mattermost]\ntask_url=\"https://x\"", "{task_id}"),
        ] {
            assert!(problems(text).contains(wants), "{text}: {}", problems(text));
        }
        assert_eq!(problems("[auth]\nmode=\"none\""), "");
        assert_eq!(problems("[auth]\nsecret=\"s\""), "");
        assert_eq!(problems("[auth]\njwks_file=\"f\""), "");
        let shown = to_redacted_toml(&toml::from_str::<NotifierConfig>(TWICE).unwrap());
        let again = problems(&shown);
        assert!(again.contains("twice") && shown.contains("***"), "{shown}");
        for url in [
            "https://a.org/k?x=1",
            "http://127.0.0.1:1/k",
            "http://[::1]/k",
        ] {
            assert_eq!(problems(&format!("[auth]\njwks_url={url:?}")), "", "{url}");
        }
    }
}
