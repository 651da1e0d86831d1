//! What a server's answer means for a mail.

use lettre::transport::smtp::Error;
use thiserror::Error as ThisError;

use crate::alerts::markdown::one_line;

/// How much of an answer is kept, in characters.
pub(super) const REASON_MAX: usize = 256;

/// Why a mail was not taken.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum MailError {
    /// Not now: try again later.
    ///
    /// Where the connection broke after the text was sent, the server may have taken it all the same. The next
    /// attempt has the same `Message-ID`, by which most mailboxes show one of them.
    #[error("the mail was not taken now: {reason}")]
    Transient {
        /// The server's code, if it gave one.
        code: Option<u16>,
        /// What it said, or what happened.
        reason: String,
    },
    /// The address takes no mails: send it no more.
    #[error("the address was refused with {code}: {reason}")]
    Refused {
        /// The server's code.
        code: u16,
        /// What it said.
        reason: String,
    },
    /// Something about the mail or the configuration is wrong, and would be at the next attempt.
    #[error("the mail cannot be sent: {reason}")]
    Unsendable {
        /// What.
        reason: String,
    },
}

/// How far a mail was when the server said no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Connect,
    Encrypt,
    Login,
    Sender,
    Receiver,
    Data,
    Content,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connecting",
            Self::Encrypt => "encryption",
            Self::Login => "the login",
            Self::Sender => "the sender",
            Self::Receiver => "the receiver",
            Self::Data => "the start of the text",
            Self::Content => "the text",
        }
    }
}

/// A step that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The server answered with this code.
    Answer { code: u16, text: String },
    /// The connection broke, or what came was no answer.
    Broken(String),
    /// The server lacks what the configuration asks for.
    Lacking(String),
}

impl Failure {
    pub(super) fn new(step: Step, error: &Error) -> Self {
        let text = std::error::Error::source(error).map(ToString::to_string);
        let text = text.unwrap_or_else(|| error.to_string());
        let text = one_line(&text, REASON_MAX);
        let what = match error.status() {
            Some(code) => What::Answer {
                code: code.into(),
                text,
            },
            // lettre's word for a server that offers no login that we know.
            None if error.is_client() => What::Lacking(text),
            None if error.is_response() => What::Broken(format!("no whole answer ({text})")),
            None => What::Broken(text),
        };
        Self { step, what }
    }

    /// Whether the connection was of no use, whatever mail there was to send: it is closed, or the server
    /// (421) says that it will be.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match &self.what {
            What::Answer { code, .. } => *code == 421,
            What::Broken(_) => true,
            What::Lacking(_) => false,
        }
    }
}

impl From<Failure> for MailError {
    fn from(failure: Failure) -> Self {
        let Failure { step, what } = failure;
        let place = step.as_str();
        match what {
            What::Broken(text) => Self::Transient {
                code: None,
                reason: format!("{place}: {text}"),
            },
            // Somebody on the way can take STARTTLS out of what a server offers, and must not make mails disappear.
            What::Lacking(text) if step == Step::Encrypt => Self::Transient {
                code: None,
                reason: format!("{place}: {text}"),
            },
            What::Lacking(text) => Self::Unsendable {
                reason: format!("{place}: {text}"),
            },
            What::Answer { code, text } => answered(step, code, text),
        }
    }
}

fn answered(step: Step, code: u16, text: String) -> MailError {
    let place = step.as_str();
    let reason = || format!("{place}: {code} {text}");
    match (step, code) {
        (Step::Receiver, 500..) if is_full(code, &text) => MailError::Transient {
            code: Some(code),
            reason: reason(),
        },
        (Step::Receiver, 500..) if is_about_the_address(code, &text) => {
            MailError::Refused { code, reason: text }
        }
        (_, 500..) => MailError::Unsendable { reason: reason() },
        _ => MailError::Transient {
            code: Some(code),
            reason: reason(),
        },
    }
}

/// A mailbox that is full now (RFC 3463, section 3.3), or "too many recipients" by its older code
/// (RFC 5321, section 4.5.3.1.10).
fn is_full(code: u16, text: &str) -> bool {
    code == 552 || matches!(enhanced(text), Some((2, 2)))
}

/// Whether the receiver's address is no good, and not the sender, the mail, our server or how often
/// we send: for those it must not be given up.
fn is_about_the_address(code: u16, text: &str) -> bool {
    match enhanced(text) {
        // The sender's address, and the length of the mail (RFC 3463, sections 3.2 and 3.3).
        Some((1, 7 | 8) | (2, 3)) => false,
        Some((subject, _)) => matches!(subject, 1 | 2),
        None => matches!(code, 550 | 551 | 553),
    }
}

/// Subject and detail of an enhanced code at the beginning, the 1 and 10 of `5.1.10`.
fn enhanced(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().next()?.splitn(3, '.');
    let _class: u8 = numbers.next()?.parse().ok()?;
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(step: Step, code: u16, text: &str) -> MailError {
        let what = What::Answer {
            code,
            text: text.into(),
        };
        Failure { step, what }.into()
    }

    /// Its name, and that it says what was answered.
    fn kind(verdict: &MailError, code: u16) -> &'static str {
        match verdict {
            MailError::Transient { code: found, .. } => {
                assert_eq!(*found, Some(code));
                "transient"
            }
            MailError::Refused { code: found, .. } => {
                assert_eq!(*found, code);
                "refused"
            }
            MailError::Unsendable { reason } => {
                assert!(reason.contains(&code.to_string()), "{reason}");
                "unsendable"
            }
        }
    }

    #[test]
    fn a_code_means_what_the_command_makes_of_it() {
        use Step::{Connect, Content, Data, Encrypt, Login, Receiver, Sender};
        for (step, code, text, wants) in [
            (Connect, 421, "", "transient"),
            (Connect, 554, "", "unsendable"),
            (Encrypt, 454, "", "transient"),
            (Login, 454, "", "transient"),
            (Login, 535, "5.7.8 bad", "unsendable"),
            (Sender, 450, "", "transient"),
            (Sender, 550, "", "unsendable"),
            (Receiver, 450, "4.2.0 greylisted", "transient"),
            (Receiver, 550, "5.1.1 no such user", "refused"),
            (Receiver, 550, "no such user", "refused"),
            (Receiver, 553, "", "refused"),
            (Receiver, 552, "", "transient"),
            (Receiver, 554, "5.7.1 Relay access denied", "unsendable"),
            (Receiver, 530, "Authentication required", "unsendable"),
            (Data, 554, "", "unsendable"),
            (Data, 250, "out of step", "transient"),
            (Content, 451, "", "transient"),
            (Content, 552, "5.3.4 too big", "unsendable"),
        ] {
            let found = kind(&verdict(step, code, text), code);
            assert_eq!(found, wants, "{step:?} {code} {text}");
        }
    }

    #[test]
    fn an_address_is_bad_only_by_what_is_said_of_it() {
        for (code, text, wants) in [
            (551, "user not local", "refused"),
            (550, "5.2.1 mailbox disabled", "refused"),
            (554, "5.2.0 gone", "refused"),
            (556, "5.1.10 takes no mail", "refused"),
            (554, "5.1.2 no such domain", "refused"),
            (552, "5.2.2 full", "transient"),
            (550, "5.2.2 full", "transient"),
            (550, "5.1.8 sender's domain not found", "unsendable"),
            (553, "5.1.7 sender's address", "unsendable"),
            (550, "5.2.3 too long for this mailbox", "unsendable"),
            (550, "5.4.5 daily sending quota exceeded", "unsendable"),
            (501, "5.5.4 invalid argument", "unsendable"),
            (550, "5.5.1 sender rate limit", "unsendable"),
            (550, "5.10.1 odd", "unsendable"),
            (554, "no such user", "unsendable"),
            (503, "5.5.1 bad sequence", "unsendable"),
            (550, "5.7.1 blocked", "unsendable"),
        ] {
            let found = kind(&verdict(Step::Receiver, code, text), code);
            assert_eq!(found, wants, "{code} {text}");
        }
    }
}
