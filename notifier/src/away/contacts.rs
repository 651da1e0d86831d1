//! Where users are reached by mail: from their tokens, or from the backend.

use std::sync::Mutex;
use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::documents;
use crate::gateway::Gateway;
use crate::mail::is_address;
use crate::store::{SharedStore, StoreError};

/// How many users may wait for theirs to be noted; the others are noted when they connect again.
const WAITING: usize = 1024;

/// How long nothing is sent to an address from a token that its server refused. Nobody says of such
/// an address that it is mended, and a mail a month harms no sender's name.
const SUPPRESSED_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A user's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contact {
    /// The address; none is as good as no contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    /// What he is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Who said so.
    pub(crate) source: Source,
    /// Nothing is sent there any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) suppressed: Option<Suppressed>,
}

impl Contact {
    /// The address, if mail goes there now.
    pub(crate) fn usable(self, now: Timestamp) -> Option<String> {
        let holds = |suppressed: Suppressed| match self.source {
            Source::Api => true,
            Source::Token => now.duration_since(suppressed.at) < SUPPRESSED_FOR,
        };
        self.email.filter(|_| !self.suppressed.is_some_and(holds))
    }
}

/// Who said where a user is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// His token.
    Token,
    /// The backend, whose word counts more.
    Api,
}

/// Why an address is no good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Suppressed {
    /// Since when.
    pub(crate) at: Timestamp,
    /// What its server said.
    pub(crate) reason: String,
}

/// What a token says of its bearer's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    user_id: String,
    email: String,
    name: Option<String>,
}

/// Addresses from tokens on their way to the store.
#[derive(Debug)]
pub(crate) struct Contacts {
    claimed: mpsc::Sender<Claimed>,
    to_keep: Mutex<Option<mpsc::Receiver<Claimed>>>,
}

impl Contacts {
    pub(crate) fn new() -> Self {
        let (claimed, to_keep) = mpsc::channel(WAITING);
        Self {
            claimed,
            to_keep: Mutex::new(Some(to_keep)),
        }
    }

    /// Notes what a token says. Without waiting: it is said again with the next connection.
    pub(crate) fn claim(&self, user_id: &str, email: &str, name: Option<&str>) {
        if is_address(email) {
            let claimed = Claimed {
                user_id: user_id.to_owned(),
                email: email.to_owned(),
                name: name.map(str::to_owned),
            };
            drop(self.claimed.try_send(claimed));
        }
    }
}

fn document(user_id: &str) -> String {
    format!("contact:{user_id}")
}

/// Where a user is reached.
pub(crate) async fn contact(
    store: &SharedStore,
    user_id: &str,
) -> Result<Option<Contact>, StoreError> {
    documents::get(store, &document(user_id)).await
}

/// Keeps what the backend says. Another address is a new beginning, and so is the same one said
/// again: somebody may have mended it.
pub(crate) async fn put(
    store: &SharedStore,
    user_id: &str,
    email: Option<String>,
    name: Option<String>,
) -> Result<(), StoreError> {
    let contact = Contact {
        email,
        name,
        source: Source::Api,
        suppressed: None,
    };
    let change = |_| Some(contact.clone());
    documents::change(store, &document(user_id), change).await
}

/// Sends nothing more to an address, unless it is another one meanwhile.
pub(crate) async fn suppress(
    store: &SharedStore,
    user_id: &str,
    email: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let change = |before: Option<Contact>| {
        let before = before.filter(|before| before.email.as_deref() == Some(email))?;
        let reason = bellhop_common::wire::cut(reason, 256).to_owned();
        Some(Contact {
            suppressed: Some(Suppressed { at: now, reason }),
            ..before
        })
    };
    documents::change(store, &document(user_id), change).await
}

/// What a token changes.
fn merged(before: Option<Contact>, claimed: &Claimed) -> Option<Contact> {
    let after = Contact {
        email: Some(claimed.email.clone()),
        name: claimed.name.clone(),
        source: Source::Token,
        suppressed: None,
    };
    match before {
        Some(before) if before.source == Source::Api => None,
        Some(before) if before.email == after.email => {
            let same = Contact {
                suppressed: before.suppressed.clone(),
                ..after
            };
            (same != before).then_some(same)
        }
        _ => Some(after),
    }
}

/// Keeps what tokens say, until `closed`.
pub(crate) async fn keep(gateway: std::sync::Arc<Gateway>, closed: CancellationToken) {
    let taken = gateway.contacts.to_keep.lock();
    let taken = taken.unwrap_or_else(PoisonError::into_inner).take();
    let (Some(mut to_keep), Some(streams)) = (taken, &gateway.streams) else {
        return;
    };
    loop {
        let claimed = tokio::select! {
            claimed = to_keep.recv() => claimed,
            () = closed.cancelled() => None,
        };
        let Some(claimed) = claimed else { return };
        let name = document(&claimed.user_id);
        let change = |before| merged(before, &claimed);
        // What fails is said again with the next connection.
        if let Err(error) = documents::change(&streams.store, &name, change).await {
            warn!(%error, "an address from a token was not kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_token_is_tried_again_after_a_month() {
        let at: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let after = |days: i64| at + jiff::SignedDuration::from_hours(24 * days);
        let bad = |source| Contact {
            email: Some("ann@example.org".into()),
            name: None,
            source,
            suppressed: Some(Suppressed {
                at,
                reason: "550".into(),
            }),
        };
        for (source, days, wants) in [
            (Source::Token, -1, false),
            (Source::Token, 29, false),
            (Source::Token, 30, true),
            // The backend says it again when it is mended.
            (Source::Api, 300, false),
        ] {
            let usable = bad(source).usable(after(days)).is_some();
            assert_eq!(usable, wants, "{source:?} {days}");
        }
    }

    #[test]
    fn the_backend_counts_more_than_a_token() {
        let claimed = Claimed {
            user_id: "ann".into(),
            email: "ann@example.org".into(),
            name: None,
        };
        let contact = |email: &str, source| Contact {
            email: Some(email.into()),
            name: None,
            source,
            suppressed: None,
        };
        let new = Some(contact("ann@example.org", Source::Token));
        assert_eq!(merged(None, &claimed), new);
        assert_eq!(
            merged(Some(contact("old@example.org", Source::Token)), &claimed),
            new
        );
        assert_eq!(merged(new.clone(), &claimed), None);
        assert_eq!(
            merged(Some(contact("b@example.org", Source::Api)), &claimed),
            None
        );
        // An address that is no good does not get better by being said again.
        let mut bad = contact("ann@example.org", Source::Token);
        bad.suppressed = Some(Suppressed {
            at: Timestamp::UNIX_EPOCH,
            reason: "550".into(),
        });
        assert_eq!(merged(Some(bad), &claimed), None);
    }
}
