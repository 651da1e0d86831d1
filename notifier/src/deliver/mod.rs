//! Sends what is ordered, over mail and Web Push.
//!
//! Each order is one message in the queue of its channel, for one recipient. What does not succeed
//! waits on the delay ladder, so that nothing stands behind it. An order is sent once, as far as can be
//! known: only a crash between the sending and its entry in the log sends it again, and then under
//! the same Message-ID or topic; or two notifiers that each got one of two copies.
//!
//! [`in_hand`]: of two copies of an order, the second waits for the first.
//! [`places`]: which pushes go at once, so that endpoints that never answer hold up nobody else's.
//! [`mod@wanted`]: what of an order is still to be sent, right before it is. [`after`]: what becomes of an order's message when it was tried.

mod after;
mod email;
mod in_hand;
mod order;
mod places;
mod push;
mod wanted;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_common::amqp::Delivery;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;
use tracing::debug;

use self::after::{again_at, bury, conclude, settle};
use self::in_hand::InHand;
pub(crate) use self::order::{Order, Ordered};
use self::places::{Busy, Place, Places};
use self::wanted::wanted;
use crate::away::Channel;
use crate::config::NotifierConfig;
use crate::gateway::Gateway;
use crate::store::{SharedStore, StoreError};
use crate::streams::retry;

/// How many pushes may be with us: each waits for its place by itself.
const PUSHES: u16 = 128;

/// How many orders of a channel may be with us.
pub(crate) fn prefetch(channel: Channel, config: &NotifierConfig) -> u16 {
    match channel {
        Channel::Push => PUSHES,
        // One goes and one waits for each connection. More could wait for so long, where the server hangs,
        // that RabbitMQ takes them back.
        Channel::Email => u16::try_from(2 * config.mail.connections).unwrap_or(PUSHES),
    }
}

/// How an attempt ended.
#[derive(Debug)]
enum Outcome {
    /// The other side has it.
    Sent,
    /// It may go better later, and not before the time the other side asked for.
    Again {
        after: Option<Duration>,
        reason: String,
    },
    /// The recipient is no more.
    Gone(String),
    /// It will never go.
    Refused(String),
}

/// Another instance, or this one with another configuration, may be able to.
fn not_here(section: &str) -> Outcome {
    Outcome::Again {
        after: None,
        reason: format!("{section} is not configured on the notifier that was to send it"),
    }
}

fn store_away(error: &StoreError) -> Outcome {
    Outcome::Again {
        after: None,
        reason: error.to_string(),
    }
}

/// Where a user is reached over a channel: with push on each of his devices.
///
/// # Errors
/// [`StoreError`].
pub(crate) async fn recipients(
    gateway: &Gateway,
    store: &SharedStore,
    channel: Channel,
    user_id: &str,
) -> Result<Vec<Option<String>>, StoreError> {
    match channel {
        Channel::Push => match &gateway.pusher {
            Some(pusher) => push::devices(pusher, store, user_id).await,
            None => Ok(Vec::new()),
        },
        Channel::Email if gateway.mailer.is_some() => {
            let address = email::address(store, user_id).await?;
            Ok(address.map(|_| None).into_iter().collect())
        }
        Channel::Email => Ok(Vec::new()),
    }
}

/// Sends what is ordered over a channel until the queue ends.
pub(crate) async fn deliver(
    gateway: Arc<Gateway>,
    channel: Channel,
    deliveries: mpsc::Receiver<Delivery>,
) {
    let deliveries = stream::unfold(deliveries, async |mut deliveries| {
        let delivery = deliveries.recv().await?;
        Some((delivery, deliveries))
    });
    let at_once = match channel {
        // Each waits for a place: what has none for long must not stand before what has.
        Channel::Push => PUSHES.into(),
        // Waiting for a connection would count against a mail's time.
        Channel::Email => gateway.config.mail.connections,
    };
    let (gateway, with_us) = (&gateway, &WithUs::default());
    deliveries
        .for_each_concurrent(at_once, |delivery| {
            deliver_one(gateway, channel, with_us, delivery)
        })
        .await;
    if let (Channel::Email, Some(mailer)) = (channel, &gateway.mailer) {
        mailer.close().await;
    }
}

/// What is under way over a channel.
#[derive(Debug, Default)]
struct WithUs {
    orders: InHand,
    places: Places,
}

async fn deliver_one(gateway: &Gateway, channel: Channel, with_us: &WithUs, delivery: Delivery) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    // After a lost connection it is with somebody else.
    if !delivery.receipt.is_valid() {
        return;
    }
    let order: Order = match serde_json::from_slice(&delivery.body) {
        Ok(order) => order,
        Err(error) => {
            let reason = error.to_string();
            return bury(gateway, (channel, None), delivery, ("unreadable", &reason)).await;
        }
    };
    // Both before it is looked at, because much may happen while it waits.
    let _held = with_us.orders.take(order.id).await;
    let places = &with_us.places;
    let turn = match channel {
        Channel::Push => place(gateway, &streams.store, places, &order, &delivery).await,
        Channel::Email => Some(Ok(None)),
    };
    let place = match turn {
        Some(Ok(place)) => place,
        Some(Err(busy)) => {
            let reason = busy.to_string();
            let outcome = Outcome::Again {
                after: None,
                reason,
            };
            return conclude(gateway, delivery, &order, outcome, 0).await;
        }
        None => return,
    };
    attempt(gateway, &streams.store, delivery, &order, place).await;
}

/// Looks at an order once more, and sends what is still wanted of it.
async fn attempt(
    gateway: &Gateway,
    store: &SharedStore,
    delivery: Delivery,
    order: &Order,
    place: Option<Place<'_>>,
) {
    let wanted = until_known(gateway, &delivery, || wanted(gateway, store, order));
    let Some(wanted) = wanted.await else {
        return;
    };
    if wanted.events.is_empty() {
        drop(place);
        return settle(delivery).await;
    }
    if let Some(until) = wanted.quiet_until {
        drop(place);
        return again_at(gateway, delivery, &wanted.order, until).await;
    }
    let (order, events) = (wanted.order, wanted.events);
    let began = Instant::now();
    let outcome = match order.channel {
        Channel::Push => push::send(gateway, store, &order, &events).await,
        Channel::Email => email::send(gateway, store, &order, &events).await,
    };
    let took = began.elapsed();
    if let Some(place) = place {
        place.done(took);
    }
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    conclude(gateway, delivery, &order, outcome, took).await;
}

/// A place for what goes to a push service; `None` when the broker delivers the order again.
async fn place<'a>(
    gateway: &Gateway,
    store: &SharedStore,
    places: &'a Places,
    order: &Order,
    delivery: &Delivery,
) -> Option<Result<Option<Place<'a>>, Busy>> {
    let service = || push::service(gateway, store, order);
    let Some(service) = until_known(gateway, delivery, service).await? else {
        return Some(Ok(None));
    };
    tokio::select! {
        place = places.take(&order.user_id, &service) => Some(place.map(Some)),
        () = gateway.closed.cancelled() => None,
    }
}

/// What the store says, once it does; `None` when the broker delivers the order again.
async fn until_known<T, F: Future<Output = Result<T, StoreError>>>(
    gateway: &Gateway,
    delivery: &Delivery,
    ask: impl Fn() -> F,
) -> Option<T> {
    let mut failures = 0;
    loop {
        match ask().await {
            Ok(known) => return delivery.receipt.is_valid().then_some(known),
            Err(error) => {
                debug!(%error, "it cannot be seen yet whether something is still to be sent");
                retry::wait(gateway, failures, Some(delivery)).await?;
                failures += 1;
            }
        }
    }
}
