//! A message to an incoming webhook, and what Slack makes of its texts.

use serde::Deserialize;
use warp::http::StatusCode;

use super::Refusal;

/// More boxes than Slack shows.
const ATTACHMENTS_MAX: usize = 100;

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Message {
    pub text: Option<String>,
    pub channel: Option<String>,
    pub username: Option<String>,
    pub icon_url: Option<String>,
    pub icon_emoji: Option<String>,
    pub link_names: Option<bool>,
    pub mrkdwn: Option<bool>,
    pub unfurl_links: Option<bool>,
    pub attachments: Vec<Attachment>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attachment {
    pub fallback: String,
    pub color: String,
    pub pretext: String,
    pub author_name: String,
    pub title: String,
    pub title_link: Option<String>,
    pub text: String,
    pub fields: Vec<Field>,
    pub footer: String,
    pub ts: Option<i64>,
    pub mrkdwn_in: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub title: String,
    pub value: String,
    pub short: bool,
}

impl Message {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        let bad = |word| Err((StatusCode::BAD_REQUEST, word));
        if self.attachments.len() > ATTACHMENTS_MAX {
            return bad("too_many_attachments");
        }
        let has_text = self.text.as_ref().is_some_and(|text| !text.is_empty());
        if !has_text && self.attachments.iter().all(Attachment::is_empty) {
            return bad("no_text");
        }
        if !self.attachments.iter().all(Attachment::is_sound) {
            return bad("invalid_payload");
        }
        Ok(())
    }
}

impl Attachment {
    fn is_empty(&self) -> bool {
        let texts = [&self.text, &self.title, &self.pretext];
        texts.iter().all(|text| text.is_empty()) && self.fields.is_empty()
    }

    fn is_sound(&self) -> bool {
        let hex = |digits: &str| digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let color = self.color.as_str();
        let is_color = matches!(color, "" | "good" | "warning" | "danger")
            || color.strip_prefix('#').is_some_and(hex);
        let is_web = |link: &String| link.starts_with("https://") || link.starts_with("http://");
        let parts = ["text", "pretext", "fields"];
        let is_part = |part: &String| parts.contains(&part.as_str());
        is_color && self.title_link.iter().all(is_web) && self.mrkdwn_in.iter().all(is_part)
    }
}

/// Whom a message calls: `<!here>`, `<!channel>`, `<@U123>`. In code, too: Slack reads `<`, `>` and `&` first.
pub fn mentions(message: &Message) -> Vec<String> {
    let mut texts = vec![message.text.as_deref().unwrap_or_default()];
    for attachment in &message.attachments {
        texts.extend([&*attachment.pretext, &*attachment.title, &*attachment.text]);
        texts.extend([&*attachment.fallback, &*attachment.footer]);
        texts.extend(attachment.fields.iter().map(|field| &*field.value));
    }
    let mut found = Vec::new();
    for text in texts {
        for after in text.split('<').skip(1) {
            if let Some((inside, _)) = after.split_once('>')
                && let Some(name) = inside.strip_prefix(['!', '@'])
            {
                found.push(name.split('|').next().unwrap_or_default().to_owned());
            }
        }
    }
    found
}
