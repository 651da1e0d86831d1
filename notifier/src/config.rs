//! The notifier's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr as _;

use bellhop_common::config::{
    AmqpConfig, HumanDuration, HumanSize, LogConfig, Secret, ServiceConfig, ShutdownConfig,
};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

use crate::alerts::WebhookUrl;

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
    /// Jobs that users may start.
    pub tasks: TasksConfig,
    /// Team alerts. Without a webhook there are none.
    pub mattermost: MattermostConfig,
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
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            allowed_origins: Vec::new(),
        }
    }
}

/// How users are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a signed token.
    Jwt,
    /// By `?user_id=`, whatever it says: for development, on loopback only.
    None,
}

/// `[auth]`: JSON Web Tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// How users are recognised.
    pub mode: AuthMode,
    /// The one algorithm that is accepted, whatever a token's header says.
    pub algorithm: Algorithm,
    /// For HS256, HS384 and HS512: the shared secret, at least as long as the hash.
    pub secret: Option<Secret>,
    /// The same from a file.
    pub secret_file: Option<PathBuf>,
    /// For the other algorithms: a PEM file with the public key.
    pub public_key_file: Option<PathBuf>,
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// Required value in `aud`.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: HumanDuration,
    /// Users who may look after the dead letters, besides those whose token has the scope `admin`.
    pub administrators: Vec<String>,
    /// Whether `?token=` is taken. Turn it off where addresses are logged on the way.
    pub query_token: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::Jwt,
            algorithm: Algorithm::HS256,
            secret: None,
            secret_file: None,
            public_key_file: None,
            issuer: None,
            audience: None,
            leeway: HumanDuration::from_secs(30),
            administrators: Vec::new(),
            query_token: true,
        }
    }
}

/// `[websocket]`: one connection, and how many.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSocketConfig {
    /// How often we ping a client.
    pub ping_interval: HumanDuration,
    /// After this long without a sign of life, a client counts as gone.
    pub pong_wait: HumanDuration,
    /// How long a write may take.
    pub write_wait: HumanDuration,
    /// The largest message a client may send.
    pub max_message_size: HumanSize,
    /// Held by each connection from its beginning.
    pub read_buffer_size: HumanSize,
    /// How much may wait for a slow client before it is closed and has to come back.
    pub queue_size: HumanSize,
    /// How many connections one user may have on this instance. One more replaces the oldest.
    pub connections_per_user: usize,
    /// How long a client without a token may take to send one.
    pub auth_timeout: HumanDuration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            ping_interval: HumanDuration::from_secs(30),
            pong_wait: HumanDuration::from_secs(60),
            write_wait: HumanDuration::from_secs(10),
            max_message_size: HumanSize::kib(64),
            read_buffer_size: HumanSize::kib(1),
            queue_size: HumanSize::kib(1024),
            connections_per_user: 10,
            auth_timeout: HumanDuration::from_secs(10),
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
    fn problems(&self) -> Vec<String> {
        let mut problems = self.amqp.problems();
        problems.extend(self.log.problems());
        problems.extend(self.auth.problems(self.http.listen));
        problems.extend(self.websocket.problems());
        let hook = &self.mattermost;
        if hook.webhook_url.is_some() && hook.webhook_url_file.is_some() {
            problems.push(
                "mattermost.webhook_url and mattermost.webhook_url_file are both set: keep one"
                    .into(),
            );
        }
        let webhook = hook.webhook_url.as_ref();
        if let Some(Err(error)) = webhook.map(|url| WebhookUrl::from_str(url.expose())) {
            problems.push(format!("mattermost.webhook_url: {error}"));
        }
        if hook
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

impl AuthConfig {
    /// Whether the algorithm takes a shared secret.
    pub(crate) fn is_symmetric(&self) -> bool {
        use Algorithm::{HS256, HS384, HS512};
        matches!(self.algorithm, HS256 | HS384 | HS512)
    }

    fn problems(&self, listen: SocketAddr) -> Vec<String> {
        if self.mode == AuthMode::None {
            return if listen.ip().is_loopback() {
                Vec::new()
            } else {
                vec![format!(
                    "auth.mode = \"none\" lets anybody be anybody: it is only taken with http.listen \
                     on a loopback address, not {listen}"
                )]
            };
        }
        let secrets = [self.secret.is_some(), self.secret_file.is_some()];
        let secrets = secrets.iter().filter(|set| **set).count();
        let name = self.algorithm;
        match (self.is_symmetric(), secrets, self.public_key_file.is_some()) {
            (true, 1, false) | (false, 0, true) => Vec::new(),
            (true, ..) => vec![format!(
                "auth.algorithm {name:?} needs exactly one of auth.secret and auth.secret_file, and \
                 no public key"
            )],
            (false, ..) => vec![format!(
                "auth.algorithm {name:?} needs auth.public_key_file, and no secret"
            )],
        }
    }
}

impl WebSocketConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("ping_interval", self.ping_interval),
            ("write_wait", self.write_wait),
            ("auth_timeout", self.auth_timeout),
        ] {
            if value.0.is_zero() {
                problems.push(format!("websocket.{key} must be more than zero"));
            }
        }
        if self.pong_wait <= self.ping_interval {
            problems.push(format!(
                "websocket.pong_wait ({}) must be longer than websocket.ping_interval ({}), or every \
                 idle client counts as gone",
                self.pong_wait, self.ping_interval
            ));
        }
        if self.connections_per_user == 0 {
            problems.push("websocket.connections_per_user must be at least 1".into());
        }
        if self.read_buffer_size.0 < 256 || self.queue_size.0 < 4096 {
            problems.push(
                "websocket.read_buffer_size must be at least 256 bytes, websocket.queue_size 4KiB"
                    .into(),
            );
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        toml::from_str::<NotifierConfig>(text)
            .unwrap()
            .problems()
            .join("\n")
    }

    #[test]
    fn keys_that_do_not_fit_together_are_named() {
        for (text, wants) in [
            ("", "auth.secret"),
            ("[auth]\nsecret=\"s\"\nsecret_file=\"f\"", "exactly one"),
            (
                "[auth]\nalgorithm=\"ES256\"\nsecret=\"s\"",
                "public_key_file",
            ),
            (
                "[auth]\nmode=\"none\"\n[http]\nlisten=\"0.0.0.0:80\"",
                "loopback",
            ),
            ("[websocket]\npong_wait=\"5s\"", "websocket.pong_wait"),
            ("[http]\nallowed_origins=[\"a.org\"]", "https://a.org"),
            ("[mattermost]\ntask_url=\"https://x\"", "{task_id}"),
        ] {
            assert!(problems(text).contains(wants), "{text}: {}", problems(text));
        }
        assert_eq!(problems("[auth]\nmode=\"none\""), "");
        assert_eq!(problems("[auth]\nsecret=\"s\""), "");
    }
}
