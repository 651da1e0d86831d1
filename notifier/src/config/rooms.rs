//! `[rooms]`: who may enter rooms and chats, and what goes on in them.

use bellhop_common::config::{HumanDuration, Secret};
use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Who may enter a room or chat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Whose token has a pattern for it in the claim `rooms`.
    #[default]
    Claims,
    /// Whose token has one, and whom the backend lets in when it is asked.
    Callback,
    /// Everybody who is logged in.
    Open,
}

/// `[rooms]`. Chats are rooms with names of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoomsConfig {
    /// Who may enter.
    pub access: Access,
    /// Whom to ask, by a POST of `{"user_id", "room_id" or "chat_id"}`.
    pub callback_url: Option<String>,
    /// Sent along as `Authorization: Bearer …`.
    pub callback_secret: Option<Secret>,
    /// How long the backend may take to answer. After that the answer is no.
    pub callback_timeout: HumanDuration,
    /// How long an answer of the backend holds.
    pub callback_cache: HumanDuration,
    /// Whether clients may send frames of their own types to the others in a room.
    pub relay: bool,
    /// How many rooms and chats one connection may be in.
    pub per_connection: usize,
    /// How many rooms and chats one connection may enter a second, after a burst of ten times as
    /// many.
    pub entries_per_second: u32,
    /// In a room with more users than this on an instance, nobody is told who comes and goes: n
    /// users who come would be n² frames.
    pub announce_up_to: usize,
}

impl Default for RoomsConfig {
    fn default() -> Self {
        Self {
            access: Access::Claims,
            callback_url: None,
            callback_secret: None,
            callback_timeout: HumanDuration::from_secs(3),
            callback_cache: HumanDuration::from_secs(60),
            relay: true,
            per_connection: 100,
            entries_per_second: 20,
            announce_up_to: 100,
        }
    }
}

impl RoomsConfig {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let url = self.callback_url.as_deref().map(Url::parse);
        match (self.access, url) {
            (Access::Callback, None) => problems.push(
                "rooms.access = \"callback\" needs rooms.callback_url, the address to ask".into(),
            ),
            (Access::Claims | Access::Open, Some(_)) => problems
                .push("rooms.callback_url is only asked with rooms.access = \"callback\"".into()),
            (_, Some(Ok(url))) if !matches!(url.scheme(), "http" | "https") => {
                problems.push("rooms.callback_url must begin with http:// or https://".into());
            }
            (_, Some(Err(error))) => problems.push(format!("rooms.callback_url: {error}")),
            (_, Some(Ok(_)) | None) => {}
        }
        if self.callback_timeout.0.is_zero() {
            problems.push("rooms.callback_timeout must be more than zero".into());
        }
        if self.per_connection == 0 || self.entries_per_second == 0 {
            problems.push(
                "rooms.per_connection and rooms.entries_per_second must be at least 1".into(),
            );
        }
        problems
    }
}
