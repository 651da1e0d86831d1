//! Who a connection belongs to, and until when.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::access::Grant;
use crate::auth::Identity;
use crate::protocol::Place;
use crate::store::Position;
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
    /// From where on each stream comes by itself; of an event stream, how far it was written.
    pub(super) at: Cursor,
    /// What it has seen already, beyond what this instance has shown.
    pub(super) ahead: Cursor,
    /// How far it is in its user's stream, once that is known.
    pub(super) seen: Option<Seen>,
}

/// How far a client is in its user's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// What was written up to here.
    pub(super) written: Position,
    /// The same when the last ping went out.
    pinged: u64,
    /// What is sure to have arrived: the client has answered a ping that went out later.
    proven: u64,
}

impl Seen {
    pub(super) fn new(written: Position, proven: u64) -> Self {
        Self {
            written,
            pinged: proven,
            proven,
        }
    }

    /// A ping goes out after everything else.
    pub(super) fn ping(&mut self) {
        self.pinged = self.written.seq;
    }

    /// The client has answered.
    pub(super) fn pong(&mut self) {
        self.proven = self.pinged;
    }

    /// What is sure to have arrived.
    pub(super) fn proven(&self) -> Position {
        Position {
            seq: self.proven,
            ..self.written
        }
    }
}

impl Login {
    pub(super) fn new(identity: Identity) -> Self {
        let grant = Grant::of(&identity);
        Self {
            user: identity.user_id.into(),
            grant,
            places: Vec::new(),
            since: Cursor::default(),
            at: Cursor::default(),
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
