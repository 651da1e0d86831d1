//! Revocations from RabbitMQ: every notifier reads their stream from the beginning and follows it,
//! so that one that starts anew knows them all, and each hears of a new one at once.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{Delivery, Message, Route};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{REVOCATION_MARK, Revocation};
use jiff::Timestamp;
use metrics::counter;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::config::AuthMode;
use crate::gateway::Gateway;
use crate::metric;
use crate::outbox::mark_of;

/// How long a request may be held back before it is told to come again.
const HOLD: Duration = Duration::from_secs(3);

/// Between two tries to set the mark.
const MARK_RETRY: Duration = Duration::from_secs(1);

/// Holds logins back until it is known who has been revoked.
#[derive(Debug)]
pub(crate) struct Gate {
    read: watch::Sender<bool>,
    /// Open from now on at the latest: without the broker nothing is delivered here anyway, and who
    /// gets in wrongly is put out when the revocations are read.
    open_at: Instant,
}

impl Gate {
    /// One that opens by itself after a time.
    pub(crate) fn new(wait: Duration) -> Self {
        Self {
            read: watch::Sender::new(false),
            open_at: Instant::now() + wait,
        }
    }

    /// Waits a moment for it to open; answers whether it did.
    pub(crate) async fn opens(&self) -> bool {
        if *self.read.borrow() {
            return true;
        }
        let mut read = self.read.subscribe();
        let opened = async {
            tokio::select! {
                _ = read.wait_for(|read| *read) => {}
                () = sleep_until(self.open_at) => {}
            }
        };
        timeout(HOLD, opened).await.is_ok()
    }
}

/// Reads revocations until the notifier ends. `health` is up once those are read that were given
/// before it started.
pub(crate) async fn follow(
    gateway: Arc<Gateway>,
    mut deliveries: mpsc::Receiver<Delivery>,
    health: Component,
) {
    let mark = Uuid::now_v7().to_string();
    let reading = async {
        while let Some(delivery) = deliveries.recv().await {
            if delivery.properties.message_id.as_deref() == Some(&mark) {
                gateway.gate.read.send_replace(true);
                health.up();
            } else {
                take(&gateway, &delivery.body);
            }
            if let Err(error) = delivery.receipt.ack().await {
                debug!(%error, "the stream of revocations is read again from here");
            }
        }
    };
    tokio::join!(reading, set_mark(&gateway, &mark), say_when_late(&gateway));
}

/// What was revoked before the mark is known once the mark is read.
async fn set_mark(gateway: &Gateway, mark: &str) {
    let exchange = gateway.names.control();
    let route = Route {
        exchange: &exchange,
        key: REVOCATION_MARK,
        mandatory: true,
    };
    let message = Message {
        id: Some(mark.to_owned()),
        ..Message::default()
    };
    let setting = async {
        while let Err(error) = gateway.publisher.publish(route, &message).await {
            warn!(%error, "the revocations are not read yet");
            sleep(MARK_RETRY).await;
        }
    };
    tokio::select! {
        () = setting => {}
        () = gateway.stop.cancelled() => {}
    }
}

async fn say_when_late(gateway: &Gateway) {
    if gateway.verifier.mode() == AuthMode::None {
        return;
    }
    let gate = &gateway.gate;
    let mut read = gate.read.subscribe();
    tokio::select! {
        _ = read.wait_for(|read| *read) => {}
        () = gateway.stop.cancelled() => {}
        () = sleep_until(gate.open_at) => warn!(
            "the revocations could not be read in time: logins are taken without them, and those \
             that were revoked end when they are read"
        ),
    }
}

fn take(gateway: &Gateway, body: &[u8]) {
    // Marks of other notifiers have no body.
    if body.is_empty() {
        return;
    }
    let revocation = match serde_json::from_slice::<Revocation>(body) {
        Ok(revocation) => revocation,
        Err(error) => return warn!(%error, "a revocation that cannot be read was passed over"),
    };
    // In this order: a login that was judged before must see the revocation when it looks again
    // after it has joined the hub.
    gateway.verifier.revoke(&revocation, Timestamp::now());
    on_revocation(gateway, &revocation);
}

/// The one place where open connections learn of a revocation.
fn on_revocation(gateway: &Gateway, revocation: &Revocation) {
    let kind = match revocation {
        Revocation::User { .. } => "user",
        Revocation::Token { .. } => "token",
        Revocation::Everybody { .. } => "everybody",
    };
    counter!(metric::REVOCATIONS, "kind" => kind).increment(1);
    match revocation {
        Revocation::User { user_id, .. } => gateway.hub.review_user(user_id),
        Revocation::Token { token_id, .. } => {
            let token = mark_of(token_id);
            gateway.hub.each(|outbox| {
                if outbox.may_have(token) {
                    outbox.review();
                }
            });
        }
        Revocation::Everybody { .. } => gateway.hub.each(|outbox| outbox.review()),
    }
    if *gateway.gate.read.borrow() {
        info!(?revocation, "revoked");
    } else {
        debug!(?revocation, "revoked before the start");
    }
}
