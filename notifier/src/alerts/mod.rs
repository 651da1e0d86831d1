//! Tells the team what goes wrong.
//!
//! `plan` is the configuration, `engine` decides what is told when, `compose` writes it, `dispatch`
//! takes from the queue and posts, `state` keeps what must outlive the process.

mod compose;
mod dead;
mod dispatch;
pub(crate) mod engine;
pub(crate) mod link;
pub mod markdown;
pub mod mattermost;
mod outage;
mod plan;
pub mod post;
mod receipts;
mod receivers;
mod state;

/// How many alerts may be with us at once.
pub(crate) const PREFETCH: u16 = 500;

/// The routing key by which an instance asks whose turn it is: the question reaches whoever RabbitMQ
/// gives the queue to.
pub(crate) const TURN: &str = "alerts.turn";

pub(crate) use dispatch::dispatch;
pub use engine::Severity;
pub use mattermost::{Mattermost, PostError, WebhookUrl, retry_pause};
pub(crate) use plan::Plan;
pub use post::Post;
pub(crate) use receivers::Alerting;
pub use receivers::AlertsError;
pub(crate) use state::{SILENCES, read_state};

#[cfg(test)]
#[path = "../../../tests/support/mattermost/mod.rs"]
mod double;
