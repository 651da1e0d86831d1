//! What users have read.

use bytes::Bytes;
use jiff::Timestamp;

use super::Redis;
use super::keys::{INBOX, MARK};
use crate::store::page::Filling;
use crate::store::{
    Epoch, InboxEntry, InboxQuery, Mark, Marked, Page, Position, StoreError, StreamName, Unread,
};

impl Redis {
    /// A part of a user's inbox.
    pub(super) async fn inbox(
        &self,
        user_id: &str,
        query: &InboxQuery,
    ) -> Result<Page<InboxEntry, u64>, StoreError> {
        if query.limit == 0 {
            return Ok(Page::empty());
        }
        let wanted = match (query.archived, query.unread_only) {
            (true, _) => "archived",
            (false, true) => "unread",
            (false, false) => "all",
        };
        let top = query.before.map_or(u64::MAX, |seq| seq.saturating_sub(1));
        let mut call = INBOX.call(&self.slot(&StreamName::user(user_id)));
        call.arg(top).arg(wanted);
        call.arg(query.limit).arg(query.max_bytes);
        let found: Vec<(u64, i64, bool, bool, Bytes)> = self.ask(call).await?;
        let mut filling = Filling::new(query.limit, query.max_bytes);
        for (seq, stored_at, is_read, is_archived, body) in found {
            let bytes = body.len();
            let entry = InboxEntry {
                seq,
                stored_at: Timestamp::from_millisecond(stored_at).unwrap_or_default(),
                is_read,
                is_archived,
                body,
            };
            filling.add(seq, entry, bytes);
        }
        Ok(filling.page())
    }

    /// Marks events; how many are not read then.
    pub(super) async fn mark(
        &self,
        user_id: &str,
        marked: &Marked,
        mark: Mark,
    ) -> Result<Unread, StoreError> {
        let mut call = MARK.call(&self.slot(&StreamName::user(user_id)));
        call.arg(match mark {
            Mark::Read => "read",
            Mark::Archived => "archived",
        });
        match marked {
            Marked::UpTo(seq) => call.arg("up_to").arg(*seq),
            Marked::Ids(ids) => {
                call.arg("ids");
                for id in ids {
                    call.arg(id.as_bytes());
                }
                &mut call
            }
        };
        let counted: Option<(u64, u64, u64)> = self.ask(call).await?;
        let Some((count, epoch, seq)) = counted else {
            return Ok(Unread {
                count: 0,
                counted_at: None,
            });
        };
        let epoch = Epoch::new(epoch);
        Ok(Unread {
            count,
            counted_at: Some(Position { epoch, seq }),
        })
    }
}
