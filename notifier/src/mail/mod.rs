//! Mails to people who are away: what is in them, and their way to the server that takes them.
//!
//! - [`item_of`]: what an event says to a person. Pure.
//! - `address`, `templates`, `compose`: a mail's receiver, its text, its headers. Pure.
//! - `smtp`: connections to the server, and a mail through one of them. `verdict`: what its answers
//!   mean. Pure.
//!
//! Everything that comes from an event, and the receiver's name and address, may be hostile.

mod address;
mod compose;
mod item;
mod sample;
mod smtp;
mod templates;
mod verdict;

use bellhop_common::config::SecretError;
use jiff::Timestamp;
use lettre::message::Mailbox;
use thiserror::Error;
use uuid::Uuid;

use self::compose::Sender;
pub use self::item::{Item, Tone, item_of};
use self::smtp::Relay;
pub use self::templates::TemplateError;
use self::templates::Templates;
pub use self::verdict::MailError;
use crate::config::{MailConfig, SmtpServer};

/// Makes mails and gives them to the server.
#[derive(Debug)]
pub struct Mailer {
    sender: Sender,
    templates: Templates,
    relay: Relay,
}

/// What is to be told, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Mail<'a> {
    /// The receiver's address, from anywhere: it is checked here.
    pub to: &'a str,
    /// The receiver's name, from anywhere.
    pub name: Option<&'a str>,
    /// The same for every attempt: a mailbox can then drop what came twice.
    pub id: Uuid,
    /// What the mail is about, e.g. a task's id: mails with the same one are shown together.
    pub thread: Option<&'a str>,
    /// One event, or several, the newest first: a digest.
    pub items: &'a [Item<'a>],
    /// How many more there are than the items, all of them older.
    pub more: usize,
    /// The kind of news that it is.
    pub category: &'a str,
    /// An `https` address where one request ends such mails (RFC 8058).
    pub unsubscribe: Option<&'a str>,
    /// Where the receiver says what he wants to hear of.
    pub settings: Option<&'a str>,
}

/// Why there can be no mails.
#[derive(Debug, Error)]
pub enum MailSetupError {
    /// No server, or no sender.
    #[error("{0}")]
    Config(String),
    /// The password cannot be read.
    #[error("mail.password_file")]
    Password(#[from] SecretError),
    /// A template of one's own is wrong.
    #[error("mail.templates")]
    Templates(#[from] TemplateError),
    /// The system's certificates cannot be used.
    #[error("cannot set up encryption for mail.smtp")]
    Tls(#[source] lettre::transport::smtp::Error),
}

/// Whether mail can be sent to a text: one plain address.
#[must_use]
pub fn is_address(text: &str) -> bool {
    address::receiver(text).is_ok()
}

impl Mailer {
    /// Reads password and templates, and tries the templates. Connects to nothing.
    ///
    /// # Errors
    /// [`MailSetupError`] names the key, and the line of a template.
    pub fn new(config: &MailConfig) -> Result<Self, MailSetupError> {
        let missing = |key| MailSetupError::Config(format!("mail.{key} is not set"));
        let smtp = config.smtp.as_deref().ok_or_else(|| missing("smtp"))?;
        let server = SmtpServer::parse(smtp)
            .map_err(|problem| MailSetupError::Config(format!("mail.smtp {problem}")))?;
        let from = mailbox("from", config.from.as_deref())?.ok_or_else(|| missing("from"))?;
        let domain = config.domain.clone();
        Ok(Self {
            templates: Templates::load(config.templates.as_deref())?,
            relay: Relay::new(server, config)?,
            sender: Sender {
                domain: domain.unwrap_or_else(|| from.email.domain().to_owned()),
                reply_to: mailbox("reply_to", config.reply_to.as_deref())?,
                from,
            },
        })
    }

    /// Gives a mail to the server, within `mail.timeout`.
    ///
    /// # Errors
    /// [`MailError`] says what to do about it.
    pub async fn send(&self, mail: &Mail<'_>) -> Result<(), MailError> {
        self.submit(mail).await.map(drop)
    }

    /// The same, with what the server answered.
    ///
    /// # Errors
    /// [`MailError`] says what to do about it.
    pub async fn submit(&self, mail: &Mail<'_>) -> Result<String, MailError> {
        let unsendable = |reason| MailError::Unsendable { reason };
        let to = address::receiver(mail.to).map_err(|problem| unsendable(problem.into()))?;
        let texts = self.templates.render(mail);
        let texts = texts.map_err(|error| unsendable(error.to_string()))?;
        let message = compose::message(&self.sender, &to, mail, texts, Timestamp::now());
        let message = message.map_err(|error| unsendable(error.to_string()))?;
        let message = message.formatted();
        let message =
            std::str::from_utf8(&message).map_err(|error| unsendable(error.to_string()))?;
        self.relay
            .submit(&self.sender.from.email, &to, message)
            .await
    }

    /// Takes leave of the server. A mail sent later connects again.
    pub async fn close(&self) {
        self.relay.close().await;
    }
}

fn mailbox(key: &str, text: Option<&str>) -> Result<Option<Mailbox>, MailSetupError> {
    let mailbox = text.map(str::parse::<Mailbox>).transpose();
    mailbox.map_err(|error| MailSetupError::Config(format!("mail.{key}: {error}")))
}

#[cfg(test)]
mod tests;
