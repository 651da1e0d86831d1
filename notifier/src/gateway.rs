//! What every connection and request shares.

use bellhop_common::amqp::{Names, Publisher};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Verifier;
use crate::config::NotifierConfig;
use crate::hub::Hub;
use crate::recent::Recent;
use crate::revocations::Gate;

/// The notifier's shared state.
#[derive(Debug)]
pub(crate) struct Gateway {
    pub(crate) config: NotifierConfig,
    /// This instance's name.
    pub(crate) instance: String,
    pub(crate) names: Names,
    pub(crate) publisher: Publisher,
    pub(crate) verifier: Verifier,
    /// Holds logins back until the verifier knows what was revoked.
    pub(crate) gate: Gate,
    pub(crate) hub: Hub,
    pub(crate) recent: Recent,
    /// Ends every connection.
    pub(crate) stop: CancellationToken,
    /// Owns the tasks of all connections.
    pub(crate) sessions: TaskTracker,
}
