//! Small pieces of state in the store, as what they mean.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::store::{SharedStore, StoreError};
use crate::streams::catch_up::within;

/// How often a change is tried while others change the same document.
const TRIES: u32 = 10;

/// What is kept under a name. What cannot be read counts as nothing: it is of another version of
/// this program, and would be in the way for ever.
pub(crate) async fn get<T: DeserializeOwned>(
    store: &SharedStore,
    name: &str,
) -> Result<Option<T>, StoreError> {
    Ok(versioned(store, name).await?.1)
}

async fn versioned<T: DeserializeOwned>(
    store: &SharedStore,
    name: &str,
) -> Result<(u64, Option<T>), StoreError> {
    let Some(found) = within(store.document(name.to_owned())).await? else {
        return Ok((0, None));
    };
    let read = serde_json::from_slice(&found.body).ok();
    if read.is_none() {
        // Without the error, which quotes what it stumbled over.
        warn!(name, "a document cannot be read, and counts as not there");
    }
    Ok((found.version, read))
}

/// Changes what is kept under a name, from what is there now; `None` leaves it.
///
/// # Errors
/// [`StoreError`], also if others change it all the time.
pub(crate) async fn change<T: Serialize + DeserializeOwned>(
    store: &SharedStore,
    name: &str,
    mut change: impl FnMut(Option<T>) -> Option<T> + Send,
) -> Result<(), StoreError> {
    for _ in 0..TRIES {
        let (version, before) = versioned(store, name).await?;
        let Some(after) = change(before) else {
            return Ok(());
        };
        // Of our own types none fails.
        let body = serde_json::to_vec(&after).unwrap_or_default();
        let put = store.put_document(name.to_owned(), version, body.into());
        if within(put).await? {
            return Ok(());
        }
    }
    Err(StoreError::Contended(name.to_owned()))
}
