//! The engine's state as a document of the store, so that it outlives the process and whoever
//! goes on finds it.

use bytes::Bytes;
use tracing::warn;

use super::engine::{Silence, State};
use crate::documents;
use crate::store::{SharedStore, StoreError};
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
        if !renew && self.saved.as_ref() == Some(&body) {
            return Ok(Saved::Yes);
        }
        let put = store.put_document(STATE.to_owned(), self.version, body.clone());
        if !within(put).await? {
            return Ok(Saved::Taken);
        }
        self.version += 1;
        self.saved = Some(body);
        Ok(Saved::Yes)
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
