//! `[mail]`: mails to people who are away.

use std::path::PathBuf;

use bellhop_common::config::{HumanDuration, Secret, SecretError};
use bellhop_common::wire::decode_word;
use lettre::message::Mailbox;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::auth::is_loopback_host;

/// More at once than any relay bears from one client.
const MAX_CONNECTIONS: usize = 64;

const TIMEOUTS: std::ops::RangeInclusive<HumanDuration> =
    HumanDuration::from_secs(1)..=HumanDuration::from_secs(600);

/// `[mail]`. Without `smtp` there are no mails.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MailConfig {
    /// The server that takes the mails: `smtps://user@host:465`, `smtp://user@host:587` (begins
    /// plain and must go on encrypted), or `smtp+plain://127.0.0.1:25`.
    pub smtp: Option<String>,
    /// Whether anybody on the way may read.
    pub tls: MailTls,
    /// The password of the user in `smtp`.
    pub password: Option<Secret>,
    /// The same from a file.
    pub password_file: Option<PathBuf>,
    /// The sender, `Bellhop <noreply@example.org>`.
    pub from: Option<String>,
    /// Where answers go, if not to `from`.
    pub reply_to: Option<String>,
    /// What ids of mails end with [default: the domain of `from`].
    pub domain: Option<String>,
    /// How many connections to the server there may be.
    pub connections: usize,
    /// How long a mail may take, from the connection to the server's last word.
    pub timeout: HumanDuration,
    /// A folder with templates of one's own.
    pub templates: Option<PathBuf>,
    /// A link to a task for people, with `{task_id}` in it.
    pub task_url: Option<String>,
}

/// Whether connections are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Always, but to this machine.
    Required,
    /// `smtp+plain://` may go anywhere.
    None,
}

impl Default for MailConfig {
    fn default() -> Self {
        Self {
            smtp: None,
            tls: MailTls::Required,
            password: None,
            password_file: None,
            from: None,
            reply_to: None,
            domain: None,
            connections: 4,
            timeout: HumanDuration::from_secs(20),
            templates: None,
            task_url: None,
        }
    }
}

/// Where mails go, as `mail.smtp` says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SmtpServer {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) user: Option<String>,
    pub(crate) encryption: Encryption,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encryption {
    FromTheStart,
    StartTls,
    None,
}

impl SmtpServer {
    /// Never quotes the address: a password may be in it.
    pub(crate) fn parse(address: &str) -> Result<Self, &'static str> {
        let url = Url::parse(address)
            .map_err(|_| "is no address, write smtps://user@host:465 or smtp://user@host:587")?;
        let (encryption, port) = match url.scheme() {
            "smtps" => (Encryption::FromTheStart, 465),
            "smtp" => (Encryption::StartTls, 587),
            "smtp+plain" => (Encryption::None, 25),
            _ => return Err("must begin with smtps://, smtp:// or smtp+plain://"),
        };
        if url.password().is_some() {
            return Err(
                "has a password in it, which would be printed with it: write it to mail.password_file or mail.password",
            );
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err("has something behind the port: end it there");
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or("names no host, write smtps://user@host:465")?;
        let user = Some(url.username()).filter(|user| !user.is_empty());
        let user =
            user.map(|user| decode_word(user).ok_or("has a user that is not percent-encoded"));
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(port),
            user: user.transpose()?,
            encryption,
        })
    }
}

impl MailConfig {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(smtp) = &self.smtp {
            match SmtpServer::parse(smtp) {
                Ok(server) => self.server_problems(&server, &mut problems),
                Err(problem) => problems.push(format!("mail.smtp {problem}")),
            }
            if self.from.is_none() {
                problems.push(
                    "mail.smtp needs mail.from, e.g. \"Bellhop <noreply@example.org>\"".into(),
                );
            }
        }
        if self.password.is_some() && self.password_file.is_some() {
            problems.push("mail.password and mail.password_file are both set: keep one".into());
        }
        for (name, mailbox) in [("from", &self.from), ("reply_to", &self.reply_to)] {
            let is_good = |text: &String| {
                let mailbox = text.parse::<Mailbox>();
                mailbox.is_ok_and(|mailbox| mailbox.email.to_string().is_ascii())
            };
            if let Some(text) = mailbox
                && !is_good(text)
            {
                problems.push(format!(
                    "mail.{name}: {text:?} is no mail address, write noreply@example.org or \
                     Bellhop <noreply@example.org>"
                ));
            }
        }
        if let Some(domain) = &self.domain
            && !is_domain(domain)
        {
            problems.push(format!(
                "mail.domain: {domain:?} is no domain, write example.org"
            ));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            let count = self.connections;
            problems.push(format!(
                "mail.connections ({count}) must be between 1 and {MAX_CONNECTIONS}"
            ));
        }
        if !TIMEOUTS.contains(&self.timeout) {
            let timeout = self.timeout;
            problems.push(format!(
                "mail.timeout ({timeout}) must be between 1s and 10m"
            ));
        }
        if let Some(url) = &self.task_url {
            if !url.contains("{task_id}") {
                problems.push("mail.task_url has no {task_id} in it".into());
            }
            if !url.starts_with("https://") && !url.starts_with("http://") {
                problems.push("mail.task_url must begin with https:// or http://".into());
            }
        }
        problems
    }

    fn server_problems(&self, server: &SmtpServer, problems: &mut Vec<String>) {
        let has_password = self.password.is_some() || self.password_file.is_some();
        match (&server.user, has_password) {
            (Some(user), false) => problems.push(format!(
                "mail.smtp has the user {user:?}, and neither mail.password nor \
                 mail.password_file is set"
            )),
            (None, true) => problems
                .push("mail.smtp has no user for the password, write smtps://user@host:465".into()),
            _ => {}
        }
        let is_plain = server.encryption == Encryption::None;
        if is_plain && self.tls == MailTls::Required && !is_loopback(&server.host) {
            problems.push(
                "mail.smtp is smtp+plain:// to another machine, where anybody on the way can read \
                 mails and password: use smtps:// or smtp://, or say mail.tls = \"none\""
                    .into(),
            );
        }
        if !is_plain && self.tls == MailTls::None {
            problems.push(
                "mail.tls = \"none\" contradicts mail.smtp, which is encrypted: remove it, or write \
                 smtp+plain://"
                    .into(),
            );
        }
    }

    /// The password, wherever it stands.
    pub(crate) fn password(&self) -> Result<Option<Secret>, SecretError> {
        match &self.password_file {
            Some(path) => Secret::from_file(path).map(Some),
            None => Ok(self.password.clone()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    // In brackets, or an IPv6 address would be cut at its first colon.
    is_loopback_host(Some(host)) || is_loopback_host(Some(&format!("[{host}]")))
}

/// Whether it can stand behind the `@` of a message's id.
fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        toml::from_str::<MailConfig>(text)
            .unwrap()
            .problems()
            .join("\n")
    }

    #[test]
    fn a_mistake_is_named_with_its_place_and_the_way_out() {
        let from = "from = \"a@b.org\"\n";
        for (text, wants) in [
            ("smtp = \"smtps://h\"", "needs mail.from"),
            ("smtp = \"mail.example.org\"", "is no address"),
            ("smtp = \"https://h\"", "smtps://, smtp://"),
            ("smtp = \"smtps://\"", "names no host"),
            ("smtp = \"smtps://h:465/x\"", "behind the port"),
            ("smtp = \"smtps://u:hunter2@h\"", "mail.password_file"),
            ("smtp = \"smtps://u@h\"", "neither mail.password"),
            ("smtp = \"smtps://h\"\npassword = \"p\"", "no user"),
            ("smtp = \"smtp+plain://h\"", "another machine"),
            ("smtp = \"smtp://h\"\ntls = \"none\"", "contradicts"),
            ("password = \"a\"\npassword_file = \"b\"", "keep one"),
            ("reply_to = \"nobody\"", "mail.reply_to"),
            ("reply_to = \"ä@example.org\"", "mail.reply_to"),
            ("domain = \"a b\"", "mail.domain"),
            ("domain = \"a>\"", "mail.domain"),
            ("connections = 0", "mail.connections (0)"),
            ("timeout = \"100ms\"", "mail.timeout"),
            ("task_url = \"https://x\"", "{task_id}"),
            ("task_url = \"javascript:{task_id}\"", "https://"),
        ] {
            let text = if wants == "needs mail.from" {
                text.to_owned()
            } else {
                format!("{from}{text}")
            };
            let found = problems(&text);
            assert!(found.contains(wants), "{text}: {found}");
            assert!(!found.contains("hunter2"), "{found}");
        }
        for text in [
            "",
            "smtp = \"smtps://u@h:465\"\npassword = \"p\"",
            "smtp = \"smtp+plain://[::1]:1025\"",
            "smtp = \"smtp+plain://localhost\"",
            "smtp = \"smtp+plain://h\"\ntls = \"none\"",
            "reply_to = \"Ops <ops@example.org>\"",
        ] {
            assert_eq!(problems(&format!("{from}{text}")), "", "{text}");
        }
    }

    #[test]
    fn an_address_says_host_port_user_and_encryption() {
        let server = SmtpServer::parse("smtps://bellhop%40example.org@mail.example.org").unwrap();
        assert_eq!(
            (&*server.host, server.port, server.user.as_deref()),
            ("mail.example.org", 465, Some("bellhop@example.org"))
        );
        assert_eq!(server.encryption, Encryption::FromTheStart);
        // The last @ is the one before the host.
        let server = SmtpServer::parse("smtp://a@b.org@h:25").unwrap();
        assert_eq!((server.user.as_deref(), server.port), (Some("a@b.org"), 25));
        assert_eq!(server.encryption, Encryption::StartTls);
        let server = SmtpServer::parse("smtp+plain://[::1]").unwrap();
        assert_eq!((&*server.host, server.port), ("::1", 25));
    }
}
