//! What a digest has: everything that is not read since the one before.

use bellhop_common::wire::Event;
use serde::{Deserialize, Serialize};

use super::decision::mail_choice;
use super::preferences::{MailChoice, Preferences};
use crate::config::EscalationConfig;
use crate::deliver::Ordered;
use crate::documents;
use crate::store::{Epoch, InboxEntry, InboxQuery, Position, SharedStore, StoreError};
use crate::streams::catch_up::within;

/// How many events one mail or push stands for.
pub(super) const MOST_IN_ONE: usize = 50;

/// How many unread events are looked at.
const LOOKED_AT: u32 = 200;

/// How far the last digest of a user went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Last {
    epoch: Epoch,
    seq: u64,
}

/// What a digest has.
pub(super) struct Digest {
    /// The oldest first.
    pub(super) events: Vec<Ordered>,
    /// Everything up to here is dealt with.
    pub(super) up_to: u64,
}

fn document(user_id: &str, which: MailChoice) -> String {
    let which = match which {
        MailChoice::Daily => "daily",
        _ => "hourly",
    };
    format!("digest:{which}:{user_id}")
}

/// How far the last digest went.
pub(super) async fn last(
    store: &SharedStore,
    user_id: &str,
    which: MailChoice,
    epoch: Epoch,
) -> Result<u64, StoreError> {
    let last: Option<Last> = documents::get(store, &document(user_id, which)).await?;
    let last = last.filter(|last| last.epoch == epoch);
    Ok(last.map_or(0, |last| last.seq))
}

/// Notes how far this one goes.
pub(super) async fn remember(
    store: &SharedStore,
    user_id: &str,
    which: MailChoice,
    position: Position,
) -> Result<(), StoreError> {
    let last = Last {
        epoch: position.epoch,
        seq: position.seq,
    };
    let change = |_: Option<Last>| Some(last.clone());
    documents::change(store, &document(user_id, which), change).await?;
    Ok(())
}

/// What is not read, above a number, the newest first.
pub(super) async fn unread(
    store: &SharedStore,
    user_id: &str,
    above: u64,
) -> Result<Vec<InboxEntry>, StoreError> {
    let query = InboxQuery {
        before: None,
        unread_only: true,
        archived: false,
        limit: LOOKED_AT,
    };
    let mut found = within(store.inbox(user_id.to_owned(), query)).await?;
    found.retain(|entry| entry.seq > above);
    Ok(found)
}

/// Those whose category is wanted in this digest; the newest, if they are too many.
pub(super) fn collect(
    found: Vec<InboxEntry>,
    config: &EscalationConfig,
    wishes: &Preferences,
    which: MailChoice,
) -> Digest {
    let up_to = found.first().map_or(0, |newest| newest.seq);
    let mut events: Vec<_> = found
        .into_iter()
        .filter_map(|entry| {
            let event = Event::parse(&entry.body).ok()?;
            let topic = super::topic_of(&event);
            let category = config.of(&topic)?;
            let is_mailed = category.mail_after.is_some();
            let is_wanted = is_mailed && mail_choice(category, wishes) == which;
            is_wanted.then_some(Ordered {
                seq: entry.seq,
                id: event.id,
            })
        })
        .take(MOST_IN_ONE)
        .collect();
    events.reverse();
    Digest { events, up_to }
}
