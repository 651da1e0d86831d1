//! Who a connection belongs to, and until when.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::access::Grant;
use crate::auth::Identity;
use crate::protocol::Place;

/// The user, what the token allows, and where the connection is.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: Arc<str>,
    pub(super) grant: Grant,
    /// Where it went, in this order. Where it was taken out since, only [`Rooms`] knows.
    ///
    /// [`Rooms`]: crate::rooms::Rooms
    pub(super) places: Vec<Place>,
}

impl Login {
    pub(super) fn new(identity: Identity) -> Self {
        let grant = Grant::of(&identity);
        Self {
            user: identity.user_id.into(),
            grant,
            places: Vec::new(),
        }
    }
}

/// The same time on the clock of timers.
pub(super) fn instant_of(time: Timestamp) -> Instant {
    let left = Timestamp::now().duration_until(time);
    // A far future would overflow the clock; no connection lasts a year.
    let left = Duration::try_from(left).unwrap_or_default();
    Instant::now() + left.min(Duration::from_hours(365 * 24))
}
