//! What a receiver is sent: the body of a request to an incoming webhook. Pure.

use serde::Serialize;

/// A post. Mattermost and Slack read the same; what only one of them knows is left out for the other.
///
/// Mattermost splits a text over 16,383 characters into several posts and cuts a body at 128 KiB,
/// which makes it invalid. Posts stay below both with any input.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Post {
    /// Where to post instead of the webhook's own channel: a channel's name, or `@user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Shown as the author, if the server allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Whom it calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Mattermost's label of what cannot wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Nobody is notified. Servers that do not know it notify all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub silent: bool,
    /// The boxes that make up the post.
    pub attachments: Vec<Attachment>,
}

/// Mattermost's label of a post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Priority {
    /// `important` or `urgent`. Without it the server refuses the post.
    pub priority: &'static str,
}

/// A box with a coloured edge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// What a notification shows. Not rendered.
    pub fallback: String,
    /// `good`, `warning`, `danger` or `#rrggbb`.
    pub color: &'static str,
    /// The headline. Rendered by some clients only.
    pub title: String,
    /// Where the headline leads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_link: Option<String>,
    /// Markdown under the headline; long text is folded.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// A table under the text.
    pub fields: Vec<Field>,
    /// Small print. Not rendered.
    pub footer: String,
    /// Slack's: which parts are markdown.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub mrkdwn_in: &'static [&'static str],
}

/// A caption with a value under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The caption. Not rendered.
    pub title: String,
    /// Markdown.
    pub value: String,
    /// Whether it may share a row with another.
    pub short: bool,
}

impl Field {
    pub(crate) fn short(title: &str, value: String) -> Self {
        Self {
            title: title.to_owned(),
            value,
            short: true,
        }
    }
}
