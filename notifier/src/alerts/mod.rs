//! Tells the team's channel about tasks that failed.

mod dispatch;
pub mod markdown;
pub mod mattermost;
pub mod post;

pub(crate) use dispatch::{PATTERN, dispatch, percent_encode};
pub use mattermost::{Mattermost, PostError, WebhookUrl, retry_pause};
pub use post::{FailedTask, Post};

#[cfg(test)]
#[path = "../../../tests/support/mattermost/mod.rs"]
mod double;
