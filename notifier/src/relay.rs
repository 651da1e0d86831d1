//! What clients send to the others in a room or chat: through RabbitMQ, like every other event, so
//! that what comes by this instance is seen in one order everywhere.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Weak};

use bellhop_common::amqp::{Message, Route};
use bellhop_common::wire::{Event, EventClass, EventKey};
use jiff::Timestamp;
use metrics::counter;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::debug;
use uuid::Uuid;

use crate::gateway::Gateway;
use crate::metric;
use crate::outbox::Outbox;
use crate::protocol::{self, Place, Relay};

/// Frames for one room go one after the other, each after the broker has confirmed the last, so
/// that none overtakes another; rooms in different lanes do not wait for each other.
const LANES: usize = 32;

/// How many frames may wait in a lane.
const LANE_LENGTH: usize = 128;

/// How long a frame may take to RabbitMQ.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way from clients into RabbitMQ.
#[derive(Debug)]
pub(crate) struct Relays {
    lanes: Vec<mpsc::Sender<Outgoing>>,
    hasher: RandomState,
}

/// The ends of the lanes, for [`run`].
#[derive(Debug)]
pub(crate) struct Lanes(Vec<mpsc::Receiver<Outgoing>>);

#[derive(Debug)]
struct Outgoing {
    key: String,
    body: Vec<u8>,
    until: Instant,
    /// Gone when the client is.
    sender: Weak<Outbox>,
    /// The client's own id, for the answer if it fails.
    id: Option<Value>,
}

/// Why a frame is not relayed.
#[derive(Debug, Error)]
pub(crate) enum RelayError {
    #[error("too much waits to be sent; try again in a moment")]
    Busy,
    #[error("the room's id and the type are too long together: {0}")]
    Key(#[from] bellhop_common::wire::KeyError),
    #[error("the frame cannot be passed on: {0}")]
    Body(#[from] bellhop_common::wire::EventError),
}

impl RelayError {
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Key(_) | Self::Body(_) => "bad_field",
        }
    }
}

impl Relays {
    pub(crate) fn new() -> (Self, Lanes) {
        let lanes = (0..LANES).map(|_| mpsc::channel(LANE_LENGTH));
        let (lanes, ends) = lanes.unzip();
        let hasher = RandomState::new();
        (Self { lanes, hasher }, Lanes(ends))
    }

    /// Puts a client's frame on its way.
    pub(crate) fn send(
        &self,
        place: &Place,
        from: &str,
        relay: Relay,
        sender: &Arc<Outbox>,
        id: Option<Value>,
    ) -> Result<(), RelayError> {
        let key = EventKey {
            class: EventClass::Live,
            audience: place.audience(),
            topic: relay.kind.clone(),
        };
        let outgoing = Outgoing {
            key: key.encode()?,
            body: event(relay, from)?.to_bytes()?,
            until: Instant::now() + PATIENCE,
            sender: Arc::downgrade(sender),
            id,
        };
        let lane = usize::try_from(self.hasher.hash_one(place) % LANES as u64).unwrap_or_default();
        let sent = self.lanes.get(lane).map(|lane| lane.try_send(outgoing));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(TrySendError::Full(_) | TrySendError::Closed(_))) | None => {
                Err(RelayError::Busy)
            }
        }
    }
}

/// Whose it is, only we say.
fn event(relay: Relay, from: &str) -> Result<Event, bellhop_common::wire::EventError> {
    let from = serde_json::value::to_raw_value(from)?;
    let mut extra = BTreeMap::from([("from".to_owned(), from)]);
    if let Some(payload) = relay.payload {
        extra.insert("payload".into(), payload);
    }
    Ok(Event {
        kind: relay.kind,
        id: Uuid::now_v7(),
        time: Timestamp::now(),
        data: relay.data,
        extra,
    })
}

/// Publishes what clients send, until nobody can send any more.
pub(crate) fn run(gateway: &Arc<Gateway>, lanes: Lanes, tasks: &TaskTracker) {
    for lane in lanes.0 {
        tasks.spawn(serve(Arc::clone(gateway), lane));
    }
}

async fn serve(gateway: Arc<Gateway>, mut lane: mpsc::Receiver<Outgoing>) {
    let exchange = gateway.names.events();
    loop {
        let outgoing = tokio::select! {
            // What was taken from clients before the end still goes out.
            biased;
            outgoing = lane.recv() => outgoing,
            () = gateway.closed.cancelled() => None,
        };
        let Some(outgoing) = outgoing else { return };
        let route = Route {
            exchange: &exchange,
            key: &outgoing.key,
            mandatory: false,
        };
        let message = Message {
            body: outgoing.body,
            ..Message::default()
        };
        // Late, it would be out of place.
        let sent = timeout_at(outgoing.until, gateway.publisher.publish(route, &message)).await;
        let sent = sent.map_err(|_| None).and_then(|sent| sent.map_err(Some));
        let outcome = if sent.is_ok() { "sent" } else { "failed" };
        counter!(metric::RELAYS, "outcome" => outcome).increment(1);
        if let Err(error) = sent {
            debug!(?error, "a client's frame could not be passed on");
            let text = "the frame may not have reached the others: the broker does not answer";
            let frame = protocol::error("not_sent", text, outgoing.id.as_ref());
            if let Some(sender) = outgoing.sender.upgrade() {
                sender.push(frame);
            }
        }
    }
}
