//! The engine's state as a document of the store, so that it outlives the process and whoever
//! goes on finds it.

use bytes::Bytes;
use tracing::warn;

use super::engine::{Silence, State};
use crate::documents;
use crate::store::{Document, SharedStore, StoreError};
use crate::streams::catch_up::within;

/// The document of the open groups.
const STATE: &str = "alerts/state";

/// The document of the silences.
pub(crate) const SILENCES: &str = "alerts/silences";

/// Where the state is kept, and which version of it is ours.
#[derive(Debug)]
pub(super) struct Keeper {
    store: Option<SharedStore>,
    version: u64,
    /// What was saved last.
    saved: Option<Bytes>,
    /// What was to be saved next, while nobody knows whether it is.
    tried: Option<Bytes>,
}

/// What became of a state to save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saved {
    Yes,
    /// Somebody else goes on with it.
    Taken,
}

/// What is kept, and its version.
pub(crate) async fn read_state(store: &SharedStore) -> Result<(u64, State), StoreError> {
    let Some(document) = within(store.document(STATE.to_owned())).await? else {
        return Ok((0, State::default()));
    };
    let state = serde_json::from_slice(&document.body).unwrap_or_else(|error| {
        // Alerts that are still to come matter more.
        warn!(%error, "the state of the alerts cannot be read; it begins anew");
        State::default()
    });
    Ok((document.version, state))
}

impl Keeper {
    pub(super) fn new(store: Option<SharedStore>) -> Self {
        Self {
            store,
            version: 0,
            saved: None,
            tried: None,
        }
    }

    /// Whether anything outlives the process.
    pub(super) fn is_durable(&self) -> bool {
        self.store.is_some()
    }

    /// The same of this store.
    pub(super) async fn look(&self) -> Result<(u64, State), StoreError> {
        let Some(store) = &self.store else {
            return Ok((0, State::default()));
        };
        read_state(store).await
    }

    /// From here on this version is ours.
    pub(super) fn claim(&mut self, version: u64) {
        self.version = version;
        self.saved = None;
        self.tried = None;
    }

    /// Keeps a state if it changed, or if others must see that somebody looks after it.
    pub(super) async fn save(&mut self, state: &State, renew: bool) -> Result<Saved, StoreError> {
        let Some(store) = &self.store else {
            return Ok(Saved::Yes);
        };
        let body = match serde_json::to_vec(state) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                warn!(%error, "the state of the alerts cannot be written");
                return Ok(Saved::Yes);
            }
        };
        loop {
            if !renew && self.saved.as_ref() == Some(&body) {
                return Ok(Saved::Yes);
            }
            let put = store.put_document(STATE.to_owned(), self.version, body.clone());
            let before = self.tried.replace(body.clone());
            if within(put).await? {
                self.tried = None;
                self.version += 1;
                self.saved = Some(body);
                return Ok(Saved::Yes);
            }
            // What an earlier try put there when its time was up is no other instance's.
            let found = match &before {
                Some(_) => within(store.document(STATE.to_owned())).await?,
                None => None,
            };
            self.tried = None;
            let is_ours = |found: &Document| {
                found.version == self.version + 1 && before.as_ref() == Some(&found.body)
            };
            let Some(ours) = found.filter(is_ours) else {
                return Ok(Saved::Taken);
            };
            self.version = ours.version;
            self.saved = Some(ours.body);
        }
    }

    /// The silences that are kept.
    pub(super) async fn silences(&self) -> Result<Vec<Silence>, StoreError> {
        let Some(store) = &self.store else {
            return Ok(Vec::new());
        };
        let silences = documents::get(store, SILENCES).await?;
        Ok(silences.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::store::{Retention, Sqlite};

    fn state(number: u128) -> State {
        let mut state = State::default();
        let pace = state.receivers.entry(number.to_string()).or_default();
        pace.refused(Timestamp::UNIX_EPOCH);
        state
    }

    /// Waits until the store has so many versions.
    async fn versions(store: &SharedStore, wants: u64) {
        loop {
            let found = store.document(STATE.to_owned()).await.unwrap();
            if found.is_some_and(|found| found.version >= wants) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_kept_too_late_to_be_told_is_known_again() {
        let folder = std::env::temp_dir().join(format!("bellhop-alerts-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("store.db");
        let retention = Retention {
            events: 1,
            age: Duration::from_hours(1),
        };
        let store: SharedStore = Arc::new(Sqlite::open(&path, retention).unwrap());
        let mut keeper = Keeper::new(Some(Arc::clone(&store)));
        // Its answer comes when nobody waits for it any more.
        drop(keeper.save(&state(1), false).now_or_never());
        versions(&store, 1).await;
        let saved = keeper.save(&state(1), false).await.unwrap();
        assert_eq!((saved, keeper.version), (Saved::Yes, 1));
        drop(keeper.save(&state(2), false).now_or_never());
        versions(&store, 2).await;
        let saved = keeper.save(&state(3), false).await.unwrap();
        assert_eq!((saved, keeper.version), (Saved::Yes, 3));
        // Another instance's is not taken for it.
        drop(keeper.save(&state(4), false).now_or_never());
        versions(&store, 4).await;
        let mut other = Keeper::new(Some(Arc::clone(&store)));
        other.claim(4);
        assert_eq!(other.save(&state(5), false).await.unwrap(), Saved::Yes);
        assert_eq!(keeper.save(&state(6), false).await.unwrap(), Saved::Taken);
        drop((keeper, other, store));
        drop(std::fs::remove_dir_all(&folder));
    }
}
