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
        // "Too many recipients" by its older code (RFC 5321, section 4.5.3.1.10), or a mailbox that is full now.
        (Step::Receiver, 552) => MailError::Transient {
            code: Some(code),
            reason: reason(),
        },
        // An address must not be given up for what our own relay thinks of us.
        (Step::Receiver, 500..) if is_about_us(code, &text) => {
            MailError::Unsendable { reason: reason() }
        }
        (Step::Receiver, 500..) => MailError::Refused { code, reason: text },
        (_, 500..) => MailError::Unsendable { reason: reason() },
        _ => MailError::Transient {
            code: Some(code),
            reason: reason(),
        },
    }
}

/// A login is missing (530, 503 out of order), or the rules forbid it, as in "5.7.1 Relay access
/// denied" (RFC 3463, section 3.8).
fn is_about_us(code: u16, text: &str) -> bool {
    matches!(code, 503 | 530) || text.starts_with("5.7.")
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
            let found = match verdict(step, code, text) {
                MailError::Transient { code: found, .. } => {
                    assert_eq!(found, Some(code));
                    "transient"
                }
                MailError::Refused { code: found, .. } => {
                    assert_eq!(found, code);
                    "refused"
                }
                MailError::Unsendable { reason } => {
                    assert!(reason.contains(&code.to_string()), "{reason}");
                    "unsendable"
                }
            };
            assert_eq!(found, wants, "{step:?} {code} {text}");
        }
    }
}
