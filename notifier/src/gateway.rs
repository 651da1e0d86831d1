//! What every connection and request shares.

use std::sync::Arc;

use bellhop_common::amqp::{Names, Publisher, Rungs};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::admission::Admission;
use crate::auth::Verifier;
use crate::away::contacts::Contacts;
use crate::away::unsubscribe::Unsubscribe;
use crate::clock::Clock;
use crate::config::NotifierConfig;
use crate::directory::Directory;
use crate::hub::Hub;
use crate::mail::Mailer;
use crate::presence::Presence;
use crate::push::Pusher;
use crate::recent::Recent;
use crate::relay::Relays;
use crate::revocations::Gate;
use crate::rooms::Rooms;
use crate::streams::Streams;
use bellhop_common::wire::encode_word;

/// The notifier's shared state.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: NotifierConfig,
    /// This instance's name.
    pub(crate) instance: String,
    pub(crate) names: Names,
    pub(crate) publisher: Publisher,
    pub(crate) verifier: Verifier,
    pub(crate) access: Access,
    pub(crate) admission: Arc<Admission>,
    /// Holds logins back until the verifier knows what was revoked.
    pub(crate) gate: Gate,
    pub(crate) hub: Hub,
    pub(crate) rooms: Rooms,
    pub(crate) presence: Presence,
    /// Who is connected on other instances.
    pub(crate) directory: Directory,
    pub(crate) relays: Relays,
    /// How high the delay ladder is.
    pub(crate) rungs: Rungs,
    /// What is kept; `None` where nothing is.
    pub(crate) streams: Option<Streams>,
    /// Addresses that tokens say, on their way to the store.
    pub(crate) contacts: Contacts,
    /// For what is kept.
    pub(crate) clock: Clock,
    /// Signs the links in mails.
    pub(crate) unsubscribe: Unsubscribe,
    /// Where nothing is kept: what was shown lately.
    pub(crate) recent: Recent,
    /// Sends to browsers; `None` without a key.
    pub(crate) pusher: Option<Pusher>,
    /// Sends mails, if it is configured.
    pub(crate) mailer: Option<Mailer>,
    /// This instance stops: connections are moved elsewhere and no more are taken.
    pub(crate) stop: CancellationToken,
    /// The last connection has ended.
    pub(crate) closed: CancellationToken,
    /// Owns the tasks of all connections.
    pub(crate) sessions: TaskTracker,
}

impl Gateway {
    /// This instance's name as a word of a routing key or queue.
    pub(crate) fn instance_word(&self) -> String {
        encode_word(&self.instance)
    }
}
