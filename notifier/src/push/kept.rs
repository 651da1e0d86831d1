//! A user's devices in the store: one document, changed by whoever knows its version.

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;
use tracing::warn;

use super::devices::{Devices, Verdict};
use super::subscription::Subscription;
use crate::store::{Store, StoreError};
use crate::streams::catch_up::within;

/// How often a change is tried when others change the same at the same time. Each try that fails is
/// one of theirs that did not.
const MAX_TRIES: u32 = 10;

/// Why a user's devices cannot be had or changed.
#[derive(Debug, Error)]
pub enum KeptError {
    /// The store does not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Others were always faster.
    #[error("the user's devices were changed by others {MAX_TRIES} times in a row")]
    Busy,
    /// They cannot be written.
    #[error("the user's devices cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

fn name(user_id: &str) -> String {
    format!("push:{user_id}")
}

/// The devices of a user.
///
/// # Errors
/// [`KeptError::Store`].
pub async fn devices(store: &dyn Store, user_id: &str) -> Result<Devices, KeptError> {
    Ok(read(store, user_id).await?.1)
}

/// Changes the devices of a user, if `change` says that it did.
///
/// # Errors
/// [`KeptError`].
pub async fn change<T>(
    store: &dyn Store,
    user_id: &str,
    mut change: impl FnMut(&mut Devices) -> Option<T>,
) -> Result<Option<T>, KeptError> {
    for _ in 0..MAX_TRIES {
        let (version, mut devices) = read(store, user_id).await?;
        let Some(changed) = change(&mut devices) else {
            return Ok(None);
        };
        let body = Bytes::from(serde_json::to_vec(&devices)?);
        if within(store.put_document(name(user_id), version, body)).await? {
            return Ok(Some(changed));
        }
    }
    Err(KeptError::Busy)
}

/// Notes how a push went, and drops the device if it is of no use any more; whether it was dropped.
///
/// # Errors
/// [`KeptError`].
pub async fn note(
    store: &dyn Store,
    user_id: &str,
    subscription: &Subscription,
    verdict: Verdict,
    now: Timestamp,
) -> Result<bool, KeptError> {
    if verdict == Verdict::Unknown {
        return Ok(false);
    }
    let id = subscription.id();
    let dropped = change(store, user_id, |devices| {
        let changed = devices.note(subscription, verdict, now);
        changed.then(|| {
            !devices
                .iter(now)
                .any(|device| device.subscription.id() == id)
        })
    });
    Ok(dropped.await?.unwrap_or(false))
}

async fn read(store: &dyn Store, user_id: &str) -> Result<(u64, Devices), KeptError> {
    let Some(document) = within(store.document(name(user_id))).await? else {
        return Ok((0, Devices::default()));
    };
    let devices = serde_json::from_slice(&document.body).unwrap_or_else(|_| {
        // Without the error, which quotes what it stumbled over. Browsers give themselves again.
        warn!(
            user_id,
            "what the store has as the devices of a user cannot be read: begun anew"
        );
        Devices::default()
    });
    Ok((document.version, devices))
}
