//! Who a connection belongs to, and until when.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::seen::Seen;
use crate::access::Grant;
use crate::auth::Identity;
use crate::protocol::Place;
use crate::streams::Cursor;

/// The user, what the token allows, and where the connection is.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: Arc<str>,
    pub(super) grant: Grant,
    /// Where it went, in this order. Where it was taken out since, only [`Rooms`] knows.
    ///
    /// [`Rooms`]: crate::rooms::Rooms
    pub(super) places: Vec<Place>,
    /// Where it was in its streams when it came, as far as it said so and was not told yet.
    pub(super) since: Cursor,
    /// From where on each stream comes by itself.
    pub(super) from: Cursor,
    /// Of an event stream, how far its client was shown each stream: the id that it gives back.
    pub(super) shown: Option<Cursor>,
    /// What it has seen already, beyond what this instance has shown.
    pub(super) ahead: Cursor,
    /// How far it is in its user's stream, once that is known.
    pub(super) seen: Option<Seen>,
}

impl Login {
    pub(super) fn new(identity: Identity) -> Self {
        let grant = Grant::of(&identity);
        Self {
            user: identity.user_id.into(),
            grant,
            places: Vec::new(),
            since: Cursor::default(),
            from: Cursor::default(),
            shown: None,
            ahead: Cursor::default(),
            seen: None,
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
