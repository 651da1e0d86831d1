//! What a user has seen, as the store and his connections say.

use super::decision::Seen;
use crate::gateway::Gateway;
use crate::store::{
    Epoch, Head, InboxEntry, InboxQuery, PAGE_BYTES, SharedStore, StoreError, StreamName,
};
use crate::streams::catch_up::within;

/// A user at one moment.
pub(crate) struct Look<'a> {
    store: &'a SharedStore,
    user_id: &'a str,
    /// Where his stream stands.
    pub(crate) head: Head,
    is_online: bool,
}

impl<'a> Look<'a> {
    /// Looks at a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn at(
        gateway: &Gateway,
        store: &'a SharedStore,
        user_id: &'a str,
    ) -> Result<Self, StoreError> {
        let heads = within(store.heads(vec![StreamName::user(user_id)])).await?;
        Ok(Self {
            store,
            user_id,
            head: heads.first().copied().ok_or(StoreError::Closed)?,
            is_online: gateway.online(user_id).await? > 0,
        })
    }

    /// What is known of an event of his, and the event, unless it was put away or is too old.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn event(
        &self,
        epoch: Epoch,
        seq: u64,
    ) -> Result<(Seen, Option<InboxEntry>), StoreError> {
        let query = InboxQuery {
            before: Some(seq.saturating_add(1)),
            unread_only: false,
            archived: false,
            limit: 1,
            max_bytes: PAGE_BYTES,
        };
        let found = within(self.store.inbox(self.user_id.to_owned(), query)).await?;
        let entry = found.items.into_iter().find(|entry| entry.seq == seq);
        let seen = Seen {
            is_kept: self.head.epoch == epoch && self.head.first <= seq,
            is_read: entry.as_ref().is_none_or(|entry| entry.is_read),
            has_arrived: self.is_online || self.head.cursor >= seq,
        };
        Ok((seen, entry))
    }
}
