//! `[escalation]`: whom an event that nobody has seen is sent to, and when.

use bellhop_common::config::HumanDuration;
use bellhop_common::wire::TopicPattern;
use jiff::tz::TimeZone;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::NotifierConfig;
use super::store::StoreKind;
use crate::away::{DIGEST, MailChoice};

/// `[escalation]`: without a category nothing is ever sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EscalationConfig {
    /// Where users reach this notifier, for links in mails, e.g. `https://live.example.org`.
    pub public_url: Option<String>,
    /// The time zone of users who name none.
    pub time_zone: String,
    /// For how long a delivery that does not succeed is tried.
    pub give_up_after: HumanDuration,
    /// The first that covers an event is its category.
    pub categories: Vec<CategoryConfig>,
}

/// `[[escalation.categories]]`: events that are treated alike.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoryConfig {
    /// What users call it in their preferences.
    pub name: String,
    /// Patterns of what follows the audience in the routing key, e.g. `task.status_changed.failed`
    /// or `notification.#`.
    pub events: Vec<TopicPattern>,
    /// How long after the event a push is sent; never if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub push_after: Option<HumanDuration>,
    /// How long after the event a mail is sent; never if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail_after: Option<HumanDuration>,
    /// What makes it needless.
    #[serde(default)]
    pub until: Until,
    /// Whether users who have not chosen get pushes.
    #[serde(default = "yes")]
    pub push: bool,
    /// How often users who have not chosen get mail.
    #[serde(default = "each")]
    pub mail: MailChoice,
}

/// What makes it needless to send an event to somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    /// A device of his has it, or he is connected now.
    #[default]
    Arrived,
    /// He has read it.
    Read,
}

fn yes() -> bool {
    true
}

fn each() -> MailChoice {
    MailChoice::Each
}

impl Default for EscalationConfig {
    fn default() -> Self {
        Self {
            public_url: None,
            time_zone: "UTC".into(),
            give_up_after: HumanDuration::from_secs(24 * 3600),
            categories: Vec::new(),
        }
    }
}

impl EscalationConfig {
    /// Whether anything is ever sent.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.categories.is_empty()
    }

    /// The category of events with this topic: the first that covers it.
    #[must_use]
    pub fn of(&self, topic: &str) -> Option<&CategoryConfig> {
        self.categories.iter().find(|one| one.covers(topic))
    }

    /// The category of this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&CategoryConfig> {
        self.categories.iter().find(|one| one.name == name)
    }

    /// The time zone of users who name none.
    #[must_use]
    pub fn zone(&self) -> TimeZone {
        TimeZone::get(&self.time_zone).unwrap_or(TimeZone::UTC)
    }

    pub(super) fn problems(&self, all: &NotifierConfig) -> Vec<String> {
        let mut problems = Vec::new();
        if self.is_on() && all.store.kind == StoreKind::None {
            problems.push(
                "escalation.categories needs a store to know what was seen: set store.kind to \"sqlite\" or \"redis\""
                    .into(),
            );
        }
        if TimeZone::get(&self.time_zone).is_err() {
            problems.push(format!(
                "escalation.time_zone must be a name such as \"Europe/Berlin\", not {:?}",
                self.time_zone
            ));
        }
        let is_web = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
        if let Some(url) = &self.public_url
            && !Url::parse(url).is_ok_and(|url| is_web(&url))
        {
            problems.push(format!(
                "escalation.public_url must be the address that users see, such as https://live.example.org, not {url:?}"
            ));
        }
        for (index, category) in self.categories.iter().enumerate() {
            problems.extend(category.problems(index));
            problems.extend(category.senders_missing(all));
            let before = self.categories.iter().take(index);
            if before.into_iter().any(|other| other.name == category.name) {
                problems.push(format!(
                    "escalation.categories: the name {:?} is there twice",
                    category.name
                ));
            }
        }
        problems
    }
}

impl CategoryConfig {
    fn problems(&self, index: usize) -> Option<String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
        if !(1..=64).contains(&self.name.len()) || !self.name.chars().all(is_word) {
            return Some(format!(
                "escalation.categories[{index}].name must have 1 to 64 letters, digits, `-` or `_`, not {:?}",
                self.name
            ));
        }
        if self.name == DIGEST {
            return Some(format!(
                "escalation.categories[{index}].name may not be {DIGEST:?}: digests have several categories"
            ));
        }
        if self.events.is_empty() {
            let name = &self.name;
            return Some(format!(
                "the escalation category {name:?} has no `events`: name some, such as \"notification.#\""
            ));
        }
        None
    }

    fn senders_missing(&self, all: &NotifierConfig) -> Vec<String> {
        let mut problems = Vec::new();
        let name = &self.name;
        if self.push_after.is_some() && all.push.key_file.is_none() {
            problems.push(format!(
                "the escalation category {name:?} has `push_after`, but nothing can send pushes: set push.key_file and \
                 push.subject"
            ));
        }
        if self.mail_after.is_some() && all.mail.smtp.is_none() {
            problems.push(format!(
                "the escalation category {name:?} has `mail_after`, but nothing can send mails: set mail.smtp and mail.from"
            ));
        }
        problems
    }

    /// Whether an event with this topic belongs to it.
    #[must_use]
    pub fn covers(&self, topic: &str) -> bool {
        self.events.iter().any(|pattern| pattern.matches(topic))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_category_has_a_name_of_its_own() {
        let problem = |name: &str| {
            let category = format!("name = {name:?}\nevents = [\"#\"]");
            let category: CategoryConfig = toml::from_str(&category).unwrap();
            category.problems(3)
        };
        assert_eq!(problem("failures"), None);
        for name in ["", "two words", "digest"] {
            let problem = problem(name).expect(name);
            assert!(
                problem.starts_with("escalation.categories[3].name m"),
                "{problem}"
            );
        }
    }
}
