//! `[store]`: what is kept, and where.

use std::path::PathBuf;
use std::time::Duration;

use bellhop_common::config::{HumanDuration, Secret, SecretError};
use serde::{Deserialize, Serialize};

use crate::store::Retention;

/// `[store]`: stored events, what users have read, and where tasks stand.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Which store.
    pub kind: StoreKind,
    /// The SQLite file.
    pub path: PathBuf,
    /// The address of Redis or Valkey, `redis://[:password@]host[:port][/database]`; of a cluster, those
    /// of some of its servers, with commas between them.
    pub url: Option<Secret>,
    /// The same from a file.
    pub url_file: Option<PathBuf>,
    /// What every key in Redis begins with.
    pub prefix: String,
    /// How long events and tasks are kept.
    pub keep: HumanDuration,
    /// How many events of each user, room and chat are kept.
    pub keep_events: u64,
    /// In Redis: after how long without a sign of life an instance counts as gone, and those who
    /// were connected to it as offline.
    pub forget_after: HumanDuration,
}

/// Where things are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreKind {
    /// In a file, for one notifier.
    Sqlite,
    /// In Redis or Valkey, for any number of notifiers.
    Redis,
    /// Nowhere: who is not connected misses what happens.
    None,
}

/// The shortest time that makes sense.
const MIN_KEEP: Duration = Duration::from_mins(1);

/// Signs of life come three times as often.
const MIN_FORGET: Duration = Duration::from_secs(1);

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            path: "bellhop.db".into(),
            url: None,
            url_file: None,
            prefix: "bellhop:".into(),
            keep: HumanDuration(Duration::from_hours(30 * 24)),
            keep_events: 10_000,
            forget_after: HumanDuration::from_secs(60),
        }
    }
}

impl StoreConfig {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match (self.kind, self.url.is_some(), self.url_file.is_some()) {
            (StoreKind::Redis, false, false) => problems.push(
                "store.kind = \"redis\" needs store.url (or store.url_file), e.g. \
                 redis://127.0.0.1:6379"
                    .into(),
            ),
            (_, true, true) => {
                problems.push("store.url and store.url_file are both set: keep one".into());
            }
            _ => {}
        }
        if self.keep.0 < MIN_KEEP {
            problems.push(format!("store.keep ({}) must be at least 1m", self.keep));
        }
        if self.forget_after.0 < MIN_FORGET {
            let forget_after = self.forget_after;
            problems.push(format!(
                "store.forget_after ({forget_after}) must be at least 1s"
            ));
        }
        if self.keep_events == 0 {
            problems.push("store.keep_events must be at least 1".into());
        }
        problems
    }

    /// The address, wherever it stands.
    ///
    /// # Errors
    /// [`SecretError`] if its file cannot be read.
    pub fn url(&self) -> Result<Option<Secret>, SecretError> {
        match &self.url_file {
            Some(path) => Secret::from_file(path).map(Some),
            None => Ok(self.url.clone()),
        }
    }

    /// How much is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        Retention {
            events: self.keep_events,
            age: self.keep.0,
        }
    }
}
