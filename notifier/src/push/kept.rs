//! A user's devices in the store.

use jiff::Timestamp;

use super::devices::{Devices, Verdict};
use super::subscription::Subscription;
use crate::documents;
use crate::store::{SharedStore, StoreError};

fn document(user_id: &str) -> String {
    format!("push:{user_id}")
}

/// The devices of a user.
///
/// # Errors
/// [`StoreError`].
pub async fn devices(store: &SharedStore, user_id: &str) -> Result<Devices, StoreError> {
    let devices = documents::get(store, &document(user_id)).await?;
    Ok(devices.unwrap_or_default())
}

/// Changes the devices of a user, if `change` says that it did.
///
/// # Errors
/// [`StoreError`], also if others change them all the time.
pub async fn change<T: Send>(
    store: &SharedStore,
    user_id: &str,
    mut change: impl FnMut(&mut Devices) -> Option<T> + Send,
) -> Result<Option<T>, StoreError> {
    let mut changed = None;
    let changing = |devices: Option<Devices>| {
        let mut devices = devices.unwrap_or_default();
        changed = change(&mut devices);
        changed.is_some().then_some(devices)
    };
    documents::change(store, &document(user_id), changing).await?;
    Ok(changed)
}

/// Notes how a push went, and drops the device if it is of no use any more.
///
/// # Errors
/// [`StoreError`].
pub async fn note(
    store: &SharedStore,
    user_id: &str,
    subscription: &Subscription,
    verdict: Verdict,
    now: Timestamp,
) -> Result<(), StoreError> {
    if verdict == Verdict::Unknown {
        return Ok(());
    }
    let note = |devices: &mut Devices| devices.note(subscription, verdict, now).then_some(());
    change(store, user_id, note).await?;
    Ok(())
}
