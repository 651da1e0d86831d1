//! What a webhook takes, and what it makes of it.

use serde::Deserialize;
use serde_json::Value;
use warp::http::StatusCode;

use super::{HOME, HOOK_ID, Settings, reader};

/// How much of a JSON body the server reads, in bytes; the rest is cut off.
const BODY_MAX: usize = 128 * 1024 + 1;

/// The longest text of one post, in characters; what is longer becomes several posts.
const TEXT_MAX: usize = 16_383;

/// A post that was accepted, as it is stored: with Slack's syntax rewritten.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// Name of the channel, or `@user`.
    pub channel: String,
    /// The author's name that was asked for.
    pub username: Option<String>,
    /// The text.
    pub text: String,
    /// `important` or `urgent`, if it is labelled so.
    pub priority: Option<String>,
    /// Nobody is to be notified.
    pub silent: bool,
    /// The boxes under the text.
    pub attachments: Vec<Attachment>,
    /// The body it came in.
    pub body: Value,
}

/// A box under a text.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "these are Mattermost's names")]
pub struct Attachment {
    #[serde(deserialize_with = "or_empty")]
    pub fallback: String,
    #[serde(deserialize_with = "or_empty")]
    pub color: String,
    #[serde(deserialize_with = "or_empty")]
    pub pretext: String,
    #[serde(deserialize_with = "or_empty")]
    pub author_name: String,
    #[serde(deserialize_with = "or_empty")]
    pub author_link: String,
    #[serde(deserialize_with = "or_empty")]
    pub author_icon: String,
    #[serde(deserialize_with = "or_empty")]
    pub title: String,
    #[serde(deserialize_with = "or_empty")]
    pub title_link: String,
    #[serde(deserialize_with = "or_empty")]
    pub text: String,
    pub fields: Option<Vec<Option<Field>>>,
    #[serde(deserialize_with = "or_empty")]
    pub image_url: String,
    #[serde(deserialize_with = "or_empty")]
    pub thumb_url: String,
    #[serde(deserialize_with = "or_empty")]
    pub footer: String,
    #[serde(deserialize_with = "or_empty")]
    pub footer_icon: String,
    pub ts: Value,
}

/// A caption with a value under it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "these are Mattermost's names")]
pub struct Field {
    #[serde(deserialize_with = "or_empty")]
    pub title: String,
    pub value: Value,
    pub short: Value,
}

/// The body of a request; keys that are not here are ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Payload {
    #[serde(deserialize_with = "or_empty")]
    text: String,
    #[serde(deserialize_with = "or_empty")]
    channel: String,
    username: Option<String>,
    priority: Option<Priority>,
    silent: Option<bool>,
    attachments: Option<Vec<Option<Attachment>>>,
}

/// A label. Acknowledgements and repeated notifications, which need a licence, are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Priority {
    priority: Option<String>,
}

/// `null` is as good as nothing to the server.
fn or_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Everyone that a post would notify, in any of the texts where the server looks for names.
#[must_use]
pub fn mentions(post: &Post) -> Vec<String> {
    let mut texts = vec![post.text.clone()];
    for attachment in &post.attachments {
        texts.push(attachment.pretext.clone());
        texts.push(attachment.text.clone());
        let fields = attachment.fields.iter().flatten().flatten();
        texts.extend(fields.filter_map(|field| field.value.as_str().map(str::to_owned)));
    }
    let mut names: Vec<String> = texts
        .iter()
        .flat_map(|text| reader::read(text).mentions)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// A status with the error's own id.
pub(super) type Refusal = (StatusCode, &'static str);

impl Settings {
    /// The posts that a request makes; more than one when its text is long.
    pub(super) fn accept(
        &self,
        hook_id: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Vec<Post>, Refusal> {
        let body = decode(content_type, body)?;
        let payload = payload_of(&body)?;
        if payload.text.is_empty() && payload.attachments.is_none() {
            return Err((
                StatusCode::BAD_REQUEST,
                "web.incoming_webhook.text.app_error",
            ));
        }
        if hook_id != HOOK_ID {
            return Err((
                StatusCode::BAD_REQUEST,
                "web.incoming_webhook.invalid.app_error",
            ));
        }
        let channel = self.channel(&payload.channel)?;
        let priority = label(payload.priority)?;
        let mut attachments: Vec<_> = payload
            .attachments
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        for attachment in &mut attachments {
            // The server still logs this and goes on; it says that a later version will not.
            if !is_valid(attachment) {
                return Err((
                    StatusCode::BAD_REQUEST,
                    "model.post.is_valid.props.app_error",
                ));
            }
            rewrite(attachment);
        }
        let text: Vec<char> = reader::rewrite_text(&payload.text).chars().collect();
        let mut pieces: Vec<String> = text
            .chunks(TEXT_MAX)
            .map(|piece| piece.iter().collect())
            .collect();
        let last = pieces.pop().unwrap_or_default();
        let post = |text, attachments| Post {
            channel: channel.clone(),
            username: payload.username.clone(),
            priority: priority.clone(),
            silent: payload.silent == Some(true),
            text,
            attachments,
            body: body.clone(),
        };
        let mut posts: Vec<_> = pieces
            .into_iter()
            .map(|text| post(text, Vec::new()))
            .collect();
        posts.push(post(last, attachments));
        Ok(posts)
    }

    /// The channel that a request asks for.
    fn channel(&self, wanted: &str) -> Result<String, Refusal> {
        let name = if let Some(user) = wanted.strip_prefix('@') {
            if !self.users.contains(&user) {
                return Err((
                    StatusCode::BAD_REQUEST,
                    "web.incoming_webhook.user.app_error",
                ));
            }
            wanted
        } else if wanted.is_empty() {
            HOME
        } else {
            let name = wanted.strip_prefix('#').unwrap_or(wanted);
            if !self.channels.contains(&name) {
                return Err((
                    StatusCode::NOT_FOUND,
                    "web.incoming_webhook.channel.app_error",
                ));
            }
            name
        };
        if self.channel_locked && name != HOME {
            return Err((
                StatusCode::FORBIDDEN,
                "web.incoming_webhook.channel_locked.app_error",
            ));
        }
        Ok(name.to_owned())
    }
}

fn payload_of(body: &Value) -> Result<Payload, Refusal> {
    Option::<Payload>::deserialize(body)
        .map_err(|_| {
            (
                StatusCode::BAD_REQUEST,
                "model.incoming_hook.parse_data.app_error",
            )
        })?
        .ok_or((
            StatusCode::BAD_REQUEST,
            "web.incoming_webhook.parse.app_error",
        ))
}

/// The server takes any word, but knows only these.
fn label(priority: Option<Priority>) -> Result<Option<String>, Refusal> {
    let Some(Priority { priority }) = priority else {
        return Ok(None);
    };
    match priority.as_deref() {
        Some("") => Ok(None),
        Some("important" | "urgent") => Ok(priority),
        _ => Err((
            StatusCode::BAD_REQUEST,
            "api.context.invalid_param.app_error",
        )),
    }
}

/// The JSON in a body, whatever it is packed in.
fn decode(content_type: &str, body: &[u8]) -> Result<Value, Refusal> {
    let unreadable = (
        StatusCode::BAD_REQUEST,
        "web.incoming_webhook.decode.app_error",
    );
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !(media_type.is_empty()
        || media_type
            .split('/')
            .filter(|part| !part.is_empty())
            .count()
            == 2)
    {
        return Err((
            StatusCode::BAD_REQUEST,
            "web.incoming_webhook.media_type.app_error",
        ));
    }
    let json = match media_type {
        "application/x-www-form-urlencoded" => {
            let form = std::str::from_utf8(body).map_err(|_| unreadable)?;
            let payload = form
                .split('&')
                .find_map(|pair| pair.strip_prefix("payload="));
            form_value(payload.unwrap_or_default()).ok_or(unreadable)?
        }
        "multipart/form-data" => return Err(unreadable),
        _ => body.get(..BODY_MAX).unwrap_or(body).to_vec(),
    };
    // The first value counts, what follows it is not looked at.
    let mut values = serde_json::Deserializer::from_slice(&json).into_iter();
    values.next().and_then(Result::ok).ok_or(unreadable)
}

/// Decodes one value of a form.
fn form_value(encoded: &str) -> Option<Vec<u8>> {
    let mut bytes = encoded.bytes();
    let mut value = Vec::new();
    while let Some(byte) = bytes.next() {
        value.push(match byte {
            b'+' => b' ',
            b'%' => {
                let code = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&code).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(value)
}

/// The server's checks of an attachment.
fn is_valid(attachment: &Attachment) -> bool {
    let hex = attachment.color.strip_prefix('#');
    let is_hex =
        hex.is_some_and(|hex| hex.len() == 6 && hex.chars().all(|c| c.is_ascii_hexdigit()));
    let color = is_hex
        || matches!(
            attachment.color.as_str(),
            "" | "good" | "warning" | "danger"
        );
    let links = [
        (&attachment.title_link, &attachment.title),
        (&attachment.author_link, &attachment.author_name),
    ];
    let images = [
        &attachment.author_icon,
        &attachment.image_url,
        &attachment.thumb_url,
        &attachment.footer_icon,
    ];
    let is_value =
        |field: &Field| field.value.is_null() || field.value.is_string() || field.value.is_i64();
    color
        && links
            .iter()
            .all(|(link, of)| link.is_empty() || (!of.is_empty() && is_web_address(link)))
        && images
            .iter()
            .all(|image| image.is_empty() || is_web_address(image))
        && attachment.fields.iter().flatten().flatten().all(is_value)
        && matches!(
            attachment.ts,
            Value::Null | Value::String(_) | Value::Number(_)
        )
}

/// `http://` or `https://` in lower case, a host, no blanks and nothing but whole percent codes.
fn is_web_address(address: &str) -> bool {
    let rest = address
        .strip_prefix("https://")
        .or_else(|| address.strip_prefix("http://"));
    let whole = address.split('%').skip(1).all(|part| {
        let mut digits = part.bytes().take(2);
        let mut is_digit = || digits.next().is_some_and(|digit| digit.is_ascii_hexdigit());
        is_digit() && is_digit()
    });
    whole
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']))
        && !address.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Slack's syntax is rewritten in these parts of an attachment.
fn rewrite(attachment: &mut Attachment) {
    attachment.title = reader::slack_names(&attachment.title);
    attachment.pretext = reader::rewrite_attachment(&attachment.pretext);
    attachment.text = reader::rewrite_attachment(&attachment.text);
    for field in attachment.fields.iter_mut().flatten().flatten() {
        if let Value::String(text) = &mut field.value {
            *text = reader::rewrite_attachment(text);
        }
    }
}
