//! A message that is published until it is confirmed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::publisher::Message;
use crate::wire::header;

/// What is published one time after the other until the broker has it. Each but the first says, in
/// the header [`ONCE`](header::ONCE), that an earlier one may have arrived, and even have been run.
#[derive(Debug)]
pub struct Copies {
    first: Message,
    is_tried: AtomicBool,
    /// Made when it is needed, which is rarely: a body may be large.
    suspect: OnceLock<Message>,
}

impl Copies {
    /// The copies of a message.
    #[must_use]
    pub const fn of(message: Message) -> Self {
        Self {
            first: message,
            is_tried: AtomicBool::new(false),
            suspect: OnceLock::new(),
        }
    }

    /// The message itself, when it is not published after all.
    #[must_use]
    pub fn into_first(self) -> Message {
        self.first
    }

    /// The one to publish now.
    pub fn next(&self) -> &Message {
        if !self.is_tried.swap(true, Ordering::SeqCst) {
            return &self.first;
        }
        self.suspect.get_or_init(|| {
            let mut suspect = self.first.clone();
            suspect.headers.insert(header::ONCE.into(), "1".into());
            suspect
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_the_first_say_that_there_may_be_another() {
        let headers = [("a".to_owned(), "b".to_owned())];
        let message = Message {
            headers: headers.into(),
            ..Message::default()
        };
        let copies = Copies::of(message.clone());
        assert_eq!(*copies.next(), message);
        for _ in 0..2 {
            let copy = copies.next();
            assert_eq!(
                (&*copy.headers["a"], &*copy.headers[header::ONCE]),
                ("b", "1")
            );
        }
    }
}
