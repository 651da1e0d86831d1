//! What the team's channel is told about a failed task.

use serde::Serialize;

use super::markdown::{code_block, code_span, line};

/// Longest name, title or code that is shown, in characters.
const SHORT_MAX: usize = 200;

/// Longest error text that is shown, in characters. Mattermost folds it away after about ten lines.
const ERROR_MAX: usize = 4_000;

/// Longest link, in bytes. What is longer is left out.
const LINK_MAX: usize = 2_000;

/// A task that will not be tried again, as the channel needs to see it. Every text may be hostile.
#[derive(Debug, Clone, Copy)]
pub struct FailedTask<'a> {
    /// Which handler ran it, e.g. `files.checksum`.
    pub kind: &'a str,
    /// What its owner calls it, if they do.
    pub title: Option<&'a str>,
    /// The task's id.
    pub task_id: &'a str,
    /// The user it belongs to.
    pub owner: &'a str,
    /// The error's short name, e.g. `timeout`; may be empty.
    pub error_code: &'a str,
    /// The error as the handler put it, of any length and number of lines; may be empty.
    pub error_message: &'a str,
    /// Number of the attempt that failed, from 1.
    pub attempt: u32,
    /// How many attempts the task had; 0 when that is unknown.
    pub max_attempts: u32,
    /// When it failed, for people to read.
    pub time: &'a str,
    /// Where to look at the task. Left out unless it is a well-formed `http` or `https` address.
    pub link: Option<&'a str>,
}

/// The body of a request to an incoming webhook.
///
/// Mattermost splits a text over 16,383 characters into several posts and cuts a body at 128 KiB, which makes it
/// invalid. [`Post::failed`] stays under a quarter of the second limit with any input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Post {
    /// Where to post instead of the webhook's own channel: a channel's name, or `@user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Shown as the author, if the server allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The boxes that make up the post.
    pub attachments: Vec<Attachment>,
}

/// A box with a coloured edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
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
}

/// A caption with a value under it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// The caption. Not rendered.
    pub title: &'static str,
    /// Markdown.
    pub value: String,
    /// Whether it may share a row with another.
    pub short: bool,
}

impl Post {
    /// Tells about a failed task, in the webhook's own channel and name unless others are given.
    ///
    /// `channel` and `username` come from the configuration and are passed on as they are.
    #[must_use]
    pub fn failed(task: &FailedTask<'_>, channel: Option<&str>, username: Option<&str>) -> Self {
        let name = task
            .title
            .filter(|title| !title.trim().is_empty())
            .unwrap_or(task.kind);
        let headline = format!("Failed: {}", line(name, SHORT_MAX));
        let attempt = match task.max_attempts {
            0 => task.attempt.to_string(),
            max => format!("{} of {max}", task.attempt),
        };
        let mut fields = vec![
            Field::short("Task", code_span(task.kind, SHORT_MAX)),
            Field::short("Owner", code_span(task.owner, SHORT_MAX)),
            Field::short("Attempt", attempt),
        ];
        if !task.error_code.is_empty() {
            fields.push(Field::short("Error", code_span(task.error_code, SHORT_MAX)));
        }
        Self {
            channel: channel.map(str::to_owned),
            username: username.map(str::to_owned),
            attachments: vec![Attachment {
                fallback: format!(
                    "{headline} ({}): {}",
                    line(task.owner, SHORT_MAX),
                    line(task.error_message, SHORT_MAX)
                ),
                color: "danger",
                title: headline,
                title_link: task.link.and_then(web_address),
                text: code_block(task.error_message, ERROR_MAX),
                fields,
                footer: format!(
                    "{} · {}",
                    line(task.task_id, SHORT_MAX),
                    line(task.time, SHORT_MAX)
                ),
            }],
        }
    }
}

impl Field {
    fn short(title: &'static str, value: String) -> Self {
        Self {
            title,
            value,
            short: true,
        }
    }
}

/// The address in its normal form, if it is one that people may be sent to and Mattermost takes.
pub(crate) fn web_address(link: &str) -> Option<String> {
    let url = reqwest::Url::parse(link).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    // A password in the address would be shown to the whole channel.
    let is_public = url.username().is_empty() && url.password().is_none();
    let fits = url.as_str().len() <= LINK_MAX && percent_encoding_is_whole(url.as_str());
    (is_web && is_public && fits).then(|| url.into())
}

/// Whether every `%` starts a code of two hexadecimal digits: the server refuses addresses where one does not.
fn percent_encoding_is_whole(address: &str) -> bool {
    address.split('%').skip(1).all(|part| {
        let mut digits = part.chars().take(2);
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_hexdigit());
        is_digit(digits.next()) && is_digit(digits.next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> FailedTask<'static> {
        FailedTask {
            kind: "files.checksum",
            title: Some("Nightly report"),
            task_id: "0198c0de-7b1a-7cc3-9d1f-0123456789ab",
            owner: "alice",
            error_code: "timeout",
            error_message: "took longer than 5 min\nat /srv/a",
            attempt: 3,
            max_attempts: 3,
            time: "2026-11-21 03:22 UTC",
            link: Some("https://bellhop.example/#0198"),
        }
    }

    fn title_link(link: &str) -> Option<String> {
        let task = FailedTask {
            link: Some(link),
            ..task()
        };
        let mut post = Post::failed(&task, None, None);
        post.attachments.remove(0).title_link
    }

    #[test]
    fn names_the_task_its_owner_the_attempt_and_the_error() {
        let post = Post::failed(&task(), Some("ops"), Some("bellhop"));
        let expected = serde_json::json!({
            "channel": "ops",
            "username": "bellhop",
            "attachments": [{
                "fallback": "Failed: Nightly report (alice): took longer than 5 min at /srv/a",
                "color": "danger",
                "title": "Failed: Nightly report",
                "title_link": "https://bellhop.example/#0198",
                "text": "```\ntook longer than 5 min\nat /srv/a\n```",
                "fields": [
                    {"title": "Task", "value": "`files.checksum`", "short": true},
                    {"title": "Owner", "value": "`alice`", "short": true},
                    {"title": "Attempt", "value": "3 of 3", "short": true},
                    {"title": "Error", "value": "`timeout`", "short": true},
                ],
                "footer": "0198c0de-7b1a-7cc3-9d1f-0123456789ab · 2026-11-21 03:\u{200b}22 UTC",
            }],
        });
        assert_eq!(serde_json::to_value(post).unwrap(), expected);
    }

    #[test]
    fn leaves_out_what_is_not_known() {
        let task = FailedTask {
            title: Some(" \n"),
            owner: "",
            error_code: "",
            error_message: "",
            max_attempts: 0,
            link: None,
            ..task()
        };
        let post = serde_json::to_value(Post::failed(&task, None, None)).unwrap();
        assert_eq!(post.get("channel"), None);
        assert_eq!(post.get("username"), None);
        let attachment = &post["attachments"][0];
        assert_eq!(attachment["title"], "Failed: files.checksum");
        assert_eq!(attachment.get("title_link"), None);
        assert_eq!(attachment.get("text"), None);
        let fields = attachment["fields"].as_array().unwrap();
        let fields: Vec<_> = fields.iter().map(|f| (&f["title"], &f["value"])).collect();
        assert_eq!(fields.len(), 3, "{fields:?}");
        assert_eq!(fields[1], (&"Owner".into(), &"–".into()));
        assert_eq!(fields[2], (&"Attempt".into(), &"3".into()));
    }

    #[test]
    fn only_links_to_well_formed_web_addresses() {
        let kept = "https://bellhop.example/tasks?id=%41b&x=1";
        assert_eq!(title_link(kept).as_deref(), Some(kept));
        let normal = Some("http://bellhop.example/a%20%3Cb%3E".to_owned());
        assert_eq!(title_link("HTTP://Bellhop.example/a <b>"), normal);
        for refused in [
            "javascript:alert(1)",
            "data:text/html,x",
            "ftp://bellhop.example/x",
            "file:///etc/passwd",
            "/tasks/1",
            "bellhop.example/tasks/1",
            "https://",
            "https://user:pw@bellhop.example/",
            "https://bellhop.example/100%",
            "https://bellhop.example/%zz",
            "",
        ] {
            assert_eq!(title_link(refused), None, "{refused}");
        }
        let long = format!("https://bellhop.example/{}", "x".repeat(LINK_MAX));
        assert_eq!(title_link(&long), None);
    }

    #[test]
    fn stays_within_the_limits_of_mattermost_with_any_input() {
        for filler in ["x", "\"", "\\", "_", "`", "\t", "🙂", "@", "\u{202e}a"] {
            let long = filler.repeat(300_000);
            let task = FailedTask {
                kind: &long,
                title: Some(&long),
                task_id: &long,
                owner: &long,
                error_code: &long,
                error_message: &long,
                attempt: u32::MAX,
                max_attempts: u32::MAX,
                time: &long,
                link: Some(&long),
            };
            let post = Post::failed(&task, None, None);
            let attachment = &post.attachments[0];
            assert!(attachment.text.chars().count() <= 16_383, "{filler:?}");
            let body = serde_json::to_vec(&post).unwrap().len();
            assert!(body < 32 * 1024, "{filler:?} makes {body} bytes");
        }
    }
}
