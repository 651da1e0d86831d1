//! `[websocket]`: one connection, and how many.

use bellhop_common::config::{HumanDuration, HumanSize};
use serde::{Deserialize, Serialize};

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
    /// Holds the answers to a client's pings. What a client is sent goes out from where it is, and
    /// needs no buffer.
    pub write_buffer_size: HumanSize,
    /// How much may wait for a slow client before it is closed and has to come back.
    pub queue_size: HumanSize,
    /// How many connections one user may have on this instance. One more replaces the oldest.
    pub connections_per_user: usize,
    /// How many connections this instance may have; 0 for no limit.
    pub connections: usize,
    /// How many connections may come from one address; 0 for no limit.
    pub connections_per_address: usize,
    /// How many frames a client may send a second, after a burst of ten times as many.
    pub frames_per_second: u32,
    /// How long a client without a token may take to send one.
    pub auth_timeout: HumanDuration,
    /// How long before the end of its token a client is told.
    pub token_notice: HumanDuration,
    /// When this instance stops, over what time its clients are moved to others.
    pub drain_window: HumanDuration,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self {
            ping_interval: HumanDuration::from_secs(30),
            pong_wait: HumanDuration::from_secs(60),
            write_wait: HumanDuration::from_secs(10),
            max_message_size: HumanSize::kib(64),
            read_buffer_size: HumanSize::kib(1),
            write_buffer_size: HumanSize::kib(1),
            queue_size: HumanSize::kib(1024),
            connections_per_user: 10,
            connections: 0,
            connections_per_address: 0,
            frames_per_second: 50,
            auth_timeout: HumanDuration::from_secs(10),
            token_notice: HumanDuration::from_secs(30),
            drain_window: HumanDuration::from_secs(5),
        }
    }
}
impl WebSocketConfig {
    pub(super) fn problems(&self) -> Vec<String> {
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
        if self.connections_per_user == 0 || self.frames_per_second == 0 {
            problems.push(
                "websocket.connections_per_user and websocket.frames_per_second must be at least 1"
                    .into(),
            );
        }
        if self.queue_size.0 < 2 * self.max_message_size.0 {
            problems.push(format!(
                "websocket.queue_size ({}) must be at least twice websocket.max_message_size ({}), or \
                 one client's message closes the others",
                self.queue_size, self.max_message_size
            ));
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
