//! What follows when the time has come and an event may not have been seen. Pure.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Channel;
use super::preferences::{MailChoice, Preferences};
use crate::config::{CategoryConfig, Until};

/// What is known of an event and its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// It is in the store.
    pub(crate) is_kept: bool,
    /// He has read it, or put it away.
    pub(crate) is_read: bool,
    /// A device of his has it, or one is connected.
    pub(crate) has_arrived: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing, and why.
    Stop(Stop),
    /// The same question again, later.
    Wait(Timestamp),
    /// It belongs into the digest of then.
    Digest(MailChoice, Timestamp),
    /// It is sent.
    Send,
}

/// Why nothing is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It is too old, or was lost.
    Expired,
    /// It was read.
    Read,
    /// It has arrived.
    Arrived,
    /// Its user does not want it.
    Off,
    /// Its category is no longer configured.
    NoCategory,
    /// An earlier digest had it.
    InDigest,
    /// There is nowhere to send it.
    NoRecipient,
}

impl Stop {
    /// The word in the log of deliveries and the metric.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Read => "read",
            Self::Arrived => "arrived",
            Self::Off => "off",
            Self::NoCategory => "no_category",
            Self::InDigest => "in_digest",
            Self::NoRecipient => "no_recipient",
        }
    }
}

/// How often mail of a category is wanted.
pub(crate) fn mail_choice(category: &CategoryConfig, wishes: &Preferences) -> MailChoice {
    let own = wishes.categories.get(&category.name);
    own.and_then(|own| own.mail).unwrap_or(category.mail)
}

/// Whether pushes of a category are wanted.
pub(crate) fn push_choice(category: &CategoryConfig, wishes: &Preferences) -> bool {
    let own = wishes.categories.get(&category.name);
    own.and_then(|own| own.push).unwrap_or(category.push)
}

/// Whether a user wants anything of a category over a channel.
pub(crate) fn is_wanted(channel: Channel, category: &CategoryConfig, wishes: &Preferences) -> bool {
    match channel {
        Channel::Push => push_choice(category, wishes),
        Channel::Email => mail_choice(category, wishes) != MailChoice::Never,
    }
}

/// Whether an event is still worth sending.
pub(crate) fn needless(category: &CategoryConfig, seen: Seen) -> Option<Stop> {
    match (seen.is_kept, seen.is_read, category.until) {
        (false, ..) => Some(Stop::Expired),
        (_, true, _) => Some(Stop::Read),
        (.., Until::Arrived) if seen.has_arrived => Some(Stop::Arrived),
        _ => None,
    }
}

/// What follows for an event; `digest` if this is the time of one.
pub(crate) fn next(
    (channel, digest): (Channel, Option<MailChoice>),
    category: &CategoryConfig,
    wishes: &Preferences,
    seen: Seen,
    (now, zone): (Timestamp, &TimeZone),
) -> Next {
    if let Some(stop) = needless(category, seen) {
        return Next::Stop(stop);
    }
    if !is_wanted(channel, category, wishes) {
        return Next::Stop(Stop::Off);
    }
    if let Some(until) = wishes.quiet_until(now, zone) {
        return Next::Wait(until);
    }
    let is_mail = channel == Channel::Email;
    let mail = mail_choice(category, wishes);
    match wishes.next_digest(mail, now, zone) {
        // Whoever has changed his mind meanwhile gets the next of the other kind.
        Some(at) if is_mail && digest != Some(mail) => Next::Digest(mail, at),
        _ => Next::Send,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Seen = Seen {
        is_kept: true,
        is_read: false,
        has_arrived: false,
    };

    fn category(text: &str) -> CategoryConfig {
        let both = format!("name = \"c\"\nevents = [\"#\"]\n{text}");
        toml::from_str(&both).unwrap()
    }

    fn wishes(json: &str) -> Preferences {
        serde_json::from_str(json).unwrap()
    }

    fn next_of(category: &CategoryConfig, wishes: &Preferences, seen: Seen, at: &str) -> Next {
        let when = (at.parse().unwrap(), &TimeZone::UTC);
        next((Channel::Email, None), category, wishes, seen, when)
    }

    const NOON: &str = "2026-01-15T12:00:00Z";

    #[test]
    fn what_was_seen_is_not_sent() {
        let (arrived, read) = (category(""), category("until = \"read\""));
        let nothing = Preferences::default();
        let seen = |is_kept, is_read, has_arrived| Seen {
            is_kept,
            is_read,
            has_arrived,
        };
        for (category, seen, wants) in [
            (&arrived, NEW, Next::Send),
            (&arrived, seen(true, false, true), Next::Stop(Stop::Arrived)),
            (&read, seen(true, false, true), Next::Send),
            (&read, seen(true, true, true), Next::Stop(Stop::Read)),
            (&read, seen(false, false, false), Next::Stop(Stop::Expired)),
        ] {
            assert_eq!(next_of(category, &nothing, seen, NOON), wants, "{seen:?}");
        }
    }

    #[test]
    fn wishes_decide() {
        let plain = category("");
        let never = wishes(r#"{"categories": {"c": {"mail": "never"}}}"#);
        assert_eq!(next_of(&plain, &never, NEW, NOON), Next::Stop(Stop::Off));
        let when = (NOON.parse().unwrap(), &TimeZone::UTC);
        let push = next((Channel::Push, None), &plain, &never, NEW, when);
        assert_eq!(push, Next::Send, "the other channel is another wish");
        let daily = wishes(r#"{"categories": {"c": {"mail": "daily"}}}"#);
        let morning = "2026-01-16T08:00:00Z".parse().unwrap();
        let digest = Next::Digest(MailChoice::Daily, morning);
        assert_eq!(next_of(&plain, &daily, NEW, NOON), digest);
        let at_its_time = (Channel::Email, Some(MailChoice::Daily));
        assert_eq!(next(at_its_time, &plain, &daily, NEW, when), Next::Send);
        let hourly = (Channel::Email, Some(MailChoice::Hourly));
        assert_eq!(next(hourly, &plain, &daily, NEW, when), digest);
    }

    #[test]
    fn what_is_read_in_the_night_is_not_sent_in_the_morning() {
        let night = wishes(r#"{"quiet_hours": [{"from": "11:00", "to": "13:00"}]}"#);
        let until = "2026-01-15T13:00:00Z".parse().unwrap();
        let plain = category("");
        assert_eq!(next_of(&plain, &night, NEW, NOON), Next::Wait(until));
        let read = Seen {
            is_read: true,
            ..NEW
        };
        assert_eq!(next_of(&plain, &night, read, NOON), Next::Stop(Stop::Read));
    }
}
