//! Patterns of routing keys, as the broker's topic exchanges match them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::routing_key::MAX_KEY_BYTES;

/// A pattern of routing keys: words with dots between, where `*` stands for one word and `#` for any
/// number of words (AMQP 0-9-1, 3.1.3.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TopicPattern(String);

/// Not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a pattern has 1 to {MAX_KEY_BYTES} bytes and no empty words, not {0:?}")]
pub struct PatternError(String);

impl TopicPattern {
    /// Whether a routing key matches.
    #[must_use]
    pub fn matches(&self, key: &str) -> bool {
        topic_matches(&self.0, key)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a pattern, which is none of ours perhaps, covers a routing key.
///
/// Without recursion: when the rest does not fit, the last `#` takes one word more.
#[must_use]
pub fn topic_matches(pattern: &str, key: &str) -> bool {
    let pattern: Vec<_> = pattern.split('.').collect();
    let key: Vec<_> = key.split('.').collect();
    let (mut p, mut k) = (0, 0);
    let mut last_hash = None;
    while let Some(word) = key.get(k) {
        match pattern.get(p) {
            Some(&"#") => {
                last_hash = Some((p, k));
                p += 1;
            }
            Some(wanted) if *wanted == "*" || wanted == word => {
                p += 1;
                k += 1;
            }
            _ => {
                let Some((hash, taken)) = last_hash else {
                    return false;
                };
                last_hash = Some((hash, taken + 1));
                (p, k) = (hash + 1, taken + 1);
            }
        }
    }
    let rest = pattern.get(p..).unwrap_or_default();
    rest.iter().all(|word| *word == "#")
}

impl FromStr for TopicPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_pattern =
            text.len() <= MAX_KEY_BYTES && text.split('.').all(|word| !word.is_empty());
        is_pattern
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| PatternError(text.chars().take(64).collect()))
    }
}

impl TryFrom<String> for TopicPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<TopicPattern> for String {
    fn from(pattern: TopicPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rule as the specification has it, which may take long.
    fn by_the_book(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => {
                (0..=key.len()).any(|taken| by_the_book(rest, key.get(taken..).unwrap_or_default()))
            }
            ([word, rest @ ..], [first, others @ ..]) => {
                (*word == "*" || word == first) && by_the_book(rest, others)
            }
            _ => false,
        }
    }

    #[test]
    fn every_short_pattern_matches_what_the_broker_would() {
        let words = ["#", "*", "a", "b"];
        let sequences = |words: &[&'static str], most: u32| {
            let count = words.len();
            let mut all = Vec::new();
            for length in 1..=most {
                for n in 0..count.pow(length) {
                    let word = |at: u32| words[n / count.pow(at) % count];
                    all.push((0..length).map(word).collect::<Vec<_>>());
                }
            }
            all
        };
        for pattern in sequences(&words, 4) {
            let parsed: TopicPattern = pattern.join(".").parse().unwrap();
            for key in sequences(&words[2..], 5) {
                let wants = by_the_book(&pattern, &key);
                assert_eq!(parsed.matches(&key.join(".")), wants, "{pattern:?} {key:?}");
            }
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_time() {
        let pattern: TopicPattern = "#.a.".repeat(60).trim_end_matches('.').parse().unwrap();
        assert!(!pattern.matches(&"a.".repeat(120).replace("a.", "b.")));
        assert!("".parse::<TopicPattern>().is_err());
        assert!("a..b".parse::<TopicPattern>().is_err());
    }
}
