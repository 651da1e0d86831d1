//! People who are away: an event of theirs that nobody has seen is sent after them.
//!
//! - [`checks`]: with each stored event that has a category, a note to look later whether it was
//!   seen. It waits in RabbitMQ's delay ladder.
//! - [`escalate`]: looks, when the time has come; [`visit`] orders what is to be sent to one user.
//!   [`decision`] (pure) says what follows, by the user's [`preferences`].
//! - [`contacts`]: where users are reached. [`unsubscribe`]: the link that ends mails.
//!
//! What is ordered is sent by [`deliver`](crate::deliver).

pub(crate) mod checks;
pub(crate) mod contacts;
pub(crate) mod decision;
mod digest;
pub(crate) mod escalate;
pub(crate) mod preferences;
pub(crate) mod seen;
pub(crate) mod unsubscribe;
mod visit;

pub use self::preferences::MailChoice;

use bellhop_common::wire::{Event, TASK_STATUS_CHANGED};
use serde::{Deserialize, Serialize};

/// How somebody who is away is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Channel {
    /// Web Push.
    Push,
    /// Mail.
    Email,
}

/// What stands for a category in a digest, which has several.
pub(crate) const DIGEST: &str = "digest";

/// All of them.
pub(crate) const CHANNELS: [Channel; 2] = [Channel::Push, Channel::Email];

impl Channel {
    /// The word in names of queues, metrics and the log of deliveries.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Email => "email",
        }
    }
}

/// What followed the audience in the routing key of an event that is kept: its type, and for a task
/// its status.
pub(crate) fn topic_of(event: &Event) -> String {
    #[derive(Deserialize)]
    struct State {
        status: String,
    }
    let data = event
        .data
        .as_deref()
        .filter(|_| event.kind == TASK_STATUS_CHANGED);
    let state = data.and_then(|data| serde_json::from_str::<State>(data.get()).ok());
    match state {
        Some(state) => format!("{}.{}", event.kind, state.status),
        None => event.kind.clone(),
    }
}
