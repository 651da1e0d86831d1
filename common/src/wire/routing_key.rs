//! The routing key of an event: `<class>.<audience>.<id>.<type>[.<detail>]`.

use std::fmt;

use thiserror::Error;

/// The longest routing key AMQP 0-9-1 can carry, in bytes (a short string has a one-byte length).
pub const MAX_KEY_BYTES: usize = 255;

/// Whether an event is kept for a recipient who is offline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventClass {
    /// Fire and forget: whoever is connected gets it.
    Live,
    /// Kept for the audience, then handed back as [`EventClass::Live`].
    Stored,
}

impl EventClass {
    /// The first word of the key.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Stored => "stored",
        }
    }
}

/// Whom an event is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Every connection of one user.
    User(String),
    /// Everybody in a room.
    Room(String),
    /// Everybody in a chat.
    Chat(String),
    /// Every connection.
    All,
    /// A team's alert channel; never delivered to sockets.
    Team(String),
}

impl Audience {
    /// The audience's word in a routing key.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Room(_) => "room",
            Self::Chat(_) => "chat",
            Self::All => "all",
            Self::Team(_) => "team",
        }
    }

    /// The id within the audience; `all` has the fixed id `all`.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::User(id) | Self::Room(id) | Self::Chat(id) | Self::Team(id) => id,
            Self::All => "all",
        }
    }
}

/// The parsed form of an event's routing key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// Fire-and-forget or kept.
    pub class: EventClass,
    /// Whom it is for.
    pub audience: Audience,
    /// The event's type, possibly with dots, followed by the detail if there is one:
    /// `task.status_changed.failed`. Type and detail cannot be told apart by shape, so they
    /// stay together; the body names the type.
    pub topic: String,
}

/// Why a routing key cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The key would not fit into an AMQP short string.
    #[error("routing key is {bytes} bytes long, AMQP allows {MAX_KEY_BYTES}: {start}…")]
    TooLong {
        /// The length it would have.
        bytes: usize,
        /// Its first characters.
        start: String,
    },
    /// An id is empty, which would make an empty word that no pattern of ours matches.
    #[error("the {audience} id is empty")]
    EmptyId {
        /// Which audience.
        audience: &'static str,
    },
    /// The topic is empty or has an empty word or a wildcard.
    #[error(
        "event type {0:?} is not a dotted name: use words of letters, digits, `-` and `_`, such as `task.status_changed`"
    )]
    BadTopic(String),
    /// The text does not have the form of an event key.
    #[error(
        "routing key {key:?} is not `<live|stored>.<user|room|chat|all|team>.<id>.<type>`: {reason}"
    )]
    Malformed {
        /// The key as it came.
        key: String,
        /// Which part is wrong.
        reason: &'static str,
    },
}

impl EventKey {
    /// The key as AMQP carries it.
    ///
    /// # Errors
    /// [`KeyError`] if an id is empty, the topic is not a dotted name, or the whole is too long.
    pub fn encode(&self) -> Result<String, KeyError> {
        if self.audience.id().is_empty() {
            return Err(KeyError::EmptyId {
                audience: self.audience.word(),
            });
        }
        if !is_topic(&self.topic) {
            return Err(KeyError::BadTopic(self.topic.clone()));
        }
        let key = self.to_string();
        if key.len() > MAX_KEY_BYTES {
            return Err(KeyError::TooLong {
                bytes: key.len(),
                start: key.chars().take(60).collect(),
            });
        }
        Ok(key)
    }

    /// Reads a key.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::BadTopic`].
    pub fn parse(key: &str) -> Result<Self, KeyError> {
        let malformed = |reason| KeyError::Malformed {
            key: key.to_owned(),
            reason,
        };
        let mut words = key.splitn(4, '.');
        let mut next = || words.next().ok_or_else(|| malformed("too few words"));
        let class = match next()? {
            "live" => EventClass::Live,
            "stored" => EventClass::Stored,
            _ => return Err(malformed("the first word is neither live nor stored")),
        };
        let audience = next()?;
        let id = decode_word(next()?).ok_or_else(|| malformed("the id is not percent-encoded"))?;
        let topic = next()?;
        if id.is_empty() {
            return Err(malformed("the id is empty"));
        }
        let audience = match audience {
            "user" => Audience::User(id),
            "room" => Audience::Room(id),
            "chat" => Audience::Chat(id),
            "team" => Audience::Team(id),
            "all" if id == "all" => Audience::All,
            "all" => return Err(malformed("the id of the audience `all` is `all`")),
            _ => return Err(malformed("unknown audience")),
        };
        if !is_topic(topic) {
            return Err(KeyError::BadTopic(topic.to_owned()));
        }
        Ok(Self {
            class,
            audience,
            topic: topic.to_owned(),
        })
    }
}

/// Writes the key without checking it; [`EventKey::encode`] checks.
impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}.{}",
            self.class.as_str(),
            self.audience.word(),
            encode_word(self.audience.id()),
            self.topic
        )
    }
}

/// Whether a text can stand in a routing key as an event's type: words of letters, digits, `-`, `_`
/// and `:`, with dots between.
#[must_use]
pub fn is_topic(topic: &str) -> bool {
    topic
        .split('.')
        .all(|word| !word.is_empty() && word.chars().all(is_word_char))
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | ':')
}

/// Makes any text one AMQP word: `.`, `*`, `#` and `%` are percent-encoded, the rest is kept.
#[must_use]
pub fn encode_word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '.' => word.push_str("%2E"),
            '*' => word.push_str("%2A"),
            '#' => word.push_str("%23"),
            '%' => word.push_str("%25"),
            c => word.push(c),
        }
    }
    word
}

/// The inverse of [`encode_word`]; `None` if a `%` is not followed by two hexadecimal digits or
/// the bytes are not UTF-8.
#[must_use]
pub fn decode_word(word: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_key(id: &str, topic: &str) -> EventKey {
        EventKey {
            class: EventClass::Stored,
            audience: Audience::User(id.into()),
            topic: topic.into(),
        }
    }

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        for id in ["u1", "a.b*c#d%e", "ünï.cödé", "with space", "%2E", "…"] {
            for audience in [
                Audience::User(id.into()),
                Audience::Room(id.into()),
                Audience::Chat(id.into()),
                Audience::Team(id.into()),
                Audience::All,
            ] {
                for class in [EventClass::Live, EventClass::Stored] {
                    let key = EventKey {
                        class,
                        audience: audience.clone(),
                        topic: "task.status_changed.failed".into(),
                    };
                    let text = key.encode().unwrap();
                    assert_eq!(EventKey::parse(&text), Ok(key), "{text}");
                    assert_eq!(
                        text.split('.').count(),
                        6,
                        "an id must stay one word: {text}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_form_is_the_contract() {
        assert_eq!(
            user_key("ann@example.org", "task.status_changed.failed")
                .encode()
                .unwrap(),
            "stored.user.ann@example%2Eorg.task.status_changed.failed"
        );
    }

    #[test]
    fn a_key_of_255_bytes_fits_and_256_do_not() {
        let fixed = "stored.user..x".len();
        let longest = user_key(&"i".repeat(MAX_KEY_BYTES - fixed), "x");
        assert_eq!(longest.encode().unwrap().len(), MAX_KEY_BYTES);
        let over = user_key(&"i".repeat(MAX_KEY_BYTES - fixed + 1), "x");
        assert!(matches!(
            over.encode(),
            Err(KeyError::TooLong { bytes: 256, .. })
        ));
    }

    #[test]
    fn wrong_parts_are_named() {
        for (key, wants) in [
            ("live.user", "too few words"),
            ("now.user.u1.x", "first word"),
            ("live.pets.u1.x", "unknown audience"),
            ("live.user..x", "id is empty"),
            ("live.user.%zz.x", "percent-encoded"),
            ("live.all.everyone.x", "audience `all`"),
            ("live.user.u1.a..b", "dotted name"),
            ("live.user.u1.#", "dotted name"),
        ] {
            let error = EventKey::parse(key).unwrap_err().to_string();
            assert!(error.contains(wants), "{key}: {error}");
        }
        assert!(user_key("", "x").encode().is_err());
        assert!(user_key("u1", "a.*").encode().is_err());
    }
}
