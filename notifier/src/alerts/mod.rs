//! Tells the team's channel about tasks that failed.

mod dispatch;
#[allow(
    dead_code,
    unused_imports,
    reason = "the dispatcher does not use it yet"
)]
pub(crate) mod engine;
pub mod markdown;
pub mod mattermost;
pub mod post;

/// How many alerts may be with us at once.
pub(crate) const PREFETCH: u16 = 500;

pub(crate) use dispatch::{PATTERN, dispatch};
pub use mattermost::{Mattermost, PostError, WebhookUrl, retry_pause};
pub use post::{FailedTask, Post};

#[cfg(test)]
#[path = "../../../tests/support/mattermost/mod.rs"]
mod double;
