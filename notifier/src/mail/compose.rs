//! A mail as it travels: headers and two parts, the text first. Pure.

use std::time::SystemTime;

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Body, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message};
use thiserror::Error;
use uuid::Uuid;

use super::Mail;
use super::templates::Texts;
use crate::alerts::link::web_address;
use crate::alerts::markdown::one_line;

/// In characters.
const NAME_MAX: usize = 80;

/// A line has at most 998 bytes, and this header must not be folded: a relay that unfolds it breaks
/// the signature over it.
const UNSUBSCRIBE_MAX: usize = 900;

/// Who sends.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) from: Mailbox,
    pub(super) reply_to: Option<Mailbox>,
    /// What ids end with.
    pub(super) domain: String,
}

/// Why there is no mail.
#[derive(Debug, Error)]
pub(super) enum ComposeError {
    #[error("a part cannot be encoded")]
    Encoding,
    #[error("the mail cannot be put together: {0}")]
    Message(#[from] lettre::error::Error),
}

pub(super) fn message(
    sender: &Sender,
    to: &Address,
    mail: &Mail<'_>,
    texts: Texts,
    now: Timestamp,
) -> Result<Message, ComposeError> {
    let name = mail.name.map(|name| one_line(name, NAME_MAX));
    let name = name.filter(|name| !name.is_empty());
    let id = |id: Uuid| format!("<{}@{}>", id.simple(), sender.domain);
    let mut builder = Message::builder()
        .from(sender.from.clone())
        .to(Mailbox::new(name, to.clone()))
        .subject(texts.subject)
        .date(SystemTime::from(now))
        .message_id(Some(id(mail.id)))
        // No "I am on holiday" in return (RFC 3834), also from those who know only the older ways to say so.
        .raw_header(header("Auto-Submitted", "auto-generated".into()))
        .raw_header(header("Precedence", "bulk".into()))
        .raw_header(header("X-Auto-Response-Suppress", "All".into()));
    if let Some(reply_to) = &sender.reply_to {
        builder = builder.reply_to(reply_to.clone());
    }
    if let Some(thread) = mail.thread {
        // No mail has this id. All of a thread answer it, so that they are one thread whichever came first.
        let root = id(Uuid::new_v5(&Uuid::NAMESPACE_OID, thread.as_bytes()));
        builder = builder.in_reply_to(root.clone()).references(root);
    }
    if let Some(url) = mail.unsubscribe.and_then(web_address)
        && url.starts_with("https://")
        && url.len() <= UNSUBSCRIBE_MAX
    {
        builder = builder
            .raw_header(header("List-Unsubscribe", format!("<{url}>")))
            .raw_header(header(
                "List-Unsubscribe-Post",
                "List-Unsubscribe=One-Click".into(),
            ));
    }
    let parts = MultiPart::alternative()
        .boundary(format!("=_{}", mail.id.simple()))
        .singlepart(part(ContentType::TEXT_PLAIN, texts.text)?)
        .singlepart(part(ContentType::TEXT_HTML, texts.html)?);
    Ok(builder.multipart(parts)?)
}

/// A header whose value is ASCII without line breaks: our own words, or an address in its normal form.
fn header(name: &'static str, value: String) -> HeaderValue {
    let name = HeaderName::new_from_ascii_str(name);
    HeaderValue::dangerous_new_pre_encoded(name, value.clone(), value)
}

/// Always quoted-printable, in which no line begins with `--` and a text cannot end its part: the boundary has
/// a `=`, and in the text that is `=3D`.
fn part(kind: ContentType, text: String) -> Result<SinglePart, ComposeError> {
    let encoding = ContentTransferEncoding::QuotedPrintable;
    let body = Body::new_with_encoding(text, encoding).map_err(|_| ComposeError::Encoding)?;
    Ok(SinglePart::builder().content_type(kind).body(body))
}
