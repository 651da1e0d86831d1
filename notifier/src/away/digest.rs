//! What a digest stands for: everything that is not read since the one before. It shows the newest, and
//! says how many more there are.

use bellhop_common::wire::Event;
use serde::{Deserialize, Serialize};

use super::decision::mail_choice;
use super::preferences::{MailChoice, Preferences};
use crate::config::EscalationConfig;
use crate::deliver::Ordered;
use crate::documents;
use crate::store::{Epoch, InboxEntry, InboxQuery, PAGE_BYTES, Position, SharedStore, StoreError};
use crate::streams::catch_up::within;

/// How many events one mail or push stands for.
pub(super) const MOST_IN_ONE: usize = 50;

/// How many unread events are read from the store at once.
const PAGE: u32 = 200;

/// How far the last digest of a user went.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Last {
    epoch: Epoch,
    seq: u64,
}

/// What a digest stands for.
#[derive(Debug, Default)]
pub(super) struct Digest {
    /// The newest first.
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
    documents::change(store, &document(user_id, which), change).await
}

/// All that is not read above a number, of the categories that are wanted in this digest.
pub(super) async fn collect(
    store: &SharedStore,
    user_id: &str,
    above: u64,
    (config, wishes): (&EscalationConfig, &Preferences),
    which: MailChoice,
) -> Result<Digest, StoreError> {
    let mut digest = Digest::default();
    let mut before = None;
    loop {
        let query = InboxQuery {
            before,
            unread_only: true,
            archived: false,
            limit: PAGE,
            max_bytes: PAGE_BYTES,
        };
        let found = within(store.inbox(user_id.to_owned(), query)).await?;
        let page = found.items.len();
        let new = found.items.into_iter();
        let new = new.take_while(|entry| entry.seq > above);
        let new: Vec<_> = new.collect();
        digest.up_to = digest.up_to.max(new.first().map_or(0, |newest| newest.seq));
        before = found.next.filter(|_| new.len() == page);
        let wanted = new
            .iter()
            .filter_map(|entry| wanted(entry, config, wishes, which));
        digest.events.extend(wanted);
        if before.is_none() {
            return Ok(digest);
        }
    }
}

fn wanted(
    entry: &InboxEntry,
    config: &EscalationConfig,
    wishes: &Preferences,
    which: MailChoice,
) -> Option<Ordered> {
    let event = Event::parse(&entry.body).ok()?;
    let category = config.of(&super::topic_of(&event))?;
    let is_mailed = category.mail_after.is_some();
    let is_wanted = is_mailed && mail_choice(category, wishes) == which;
    is_wanted.then_some(Ordered {
        seq: entry.seq,
        id: event.id,
    })
}
