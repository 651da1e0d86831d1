//! Events from RabbitMQ: `live` ones to the hub, `stored` ones handed back as `live`.

use std::sync::Arc;

use bellhop_common::amqp::{Delivery, Message, Route};
use bellhop_common::wire::{Audience, Event, EventClass, EventKey};
use futures_util::{StreamExt as _, stream};
use metrics::counter;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::gateway::Gateway;
use crate::metric;
use crate::presence;
use crate::protocol::{self, Place};

/// How many `stored` events are handed back at once.
pub(crate) const HAND_BACKS: u16 = 64;

/// The header of `live` events that were `stored` ones before.
const HANDED_BACK: &str = "x-bellhop-handed-back";

/// How many live events are acknowledged together.
const TOGETHER: usize = 64;

/// Delivers `live` events until the queue ends.
pub(crate) async fn deliver(gateway: Arc<Gateway>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while deliveries.recv_many(&mut batch, TOGETHER).await > 0 {
        for delivery in &batch {
            if delivery.routing_key.starts_with(presence::KEY_WORD) {
                presence::hear(&gateway, &delivery.body);
            } else if is_new(&gateway, delivery) {
                route(&gateway, &delivery.routing_key, &delivery.body);
            }
        }
        // After a new connection a batch may hold the last of the old one before the first of the
        // new: the old ones are gone with it.
        let last = batch
            .pop()
            .map(|delivery| delivery.receipt.ack_up_to_here());
        batch.clear();
        if let Some(ack) = last
            && let Err(error) = ack.await
        {
            debug!(%error, "an acknowledgement was lost");
        }
    }
}

/// Whether an event is to be shown. Known here, where it goes to people, and not where it is handed
/// back: a hand-back whose confirm is lost is repeated, and may or may not have arrived.
fn is_new(gateway: &Gateway, delivery: &Delivery) -> bool {
    let properties = &delivery.properties;
    let id = properties.message_id.as_deref().unwrap_or_default();
    // An event without an id cannot be known again.
    if id.is_empty() || !properties.headers.contains_key(HANDED_BACK) {
        return true;
    }
    let is_new = gateway.recent.is_new(id, &delivery.routing_key);
    if !is_new {
        debug!(id, "an event was told twice");
    }
    is_new
}

/// Gives one event to whom its key names. Malformed ones are counted and dropped: whoever
/// published them is not here to be told.
fn route(gateway: &Gateway, key: &str, body: &[u8]) {
    let key = match EventKey::parse(key) {
        Ok(key) => key,
        Err(error) => return malformed(&error),
    };
    let place = Place::of(&key.audience);
    if let Some(place) = &place {
        membership(gateway, place, &key.topic, body);
    }
    // Before the body is read: most events are for users and rooms of other instances.
    let is_here = match (&key.audience, &place) {
        (_, Some(place)) => gateway.rooms.is_here(place),
        (Audience::User(user), None) => gateway.hub.is_here(user),
        (Audience::All, None) => true,
        // For alerts.
        _ => false,
    };
    if !is_here {
        return;
    }
    let frame = match Event::parse(body) {
        Ok(event) => protocol::event(&key, event),
        Err(error) => return malformed(&error),
    };
    let Some(frame) = frame else { return };
    let sent = match (&key.audience, &place) {
        (_, Some(place)) => gateway.rooms.send(place, &frame),
        (Audience::User(user), None) => gateway.hub.send_to_user(user, &frame),
        _ => gateway.hub.send_to_all(&frame),
    };
    counter!(metric::DELIVERIES).increment(sent as u64);
}

/// A backend says who is a member of a room or chat (again), or is none any more. Everywhere, also
/// where nobody is in it: earlier answers must be forgotten.
fn membership(gateway: &Gateway, place: &Place, topic: &str, body: &[u8]) {
    #[derive(Deserialize)]
    struct Member {
        user_id: String,
    }
    let is_member = match topic {
        "room.member_added" | "chat.member_added" => true,
        "room.member_removed" | "chat.member_removed" => false,
        _ => return,
    };
    let event = match Event::parse(body) {
        Ok(event) => event,
        Err(error) => return malformed(&error),
    };
    let data = event.data.as_deref().map_or("null", RawValue::get);
    let user = match serde_json::from_str::<Member>(data) {
        Ok(member) => member.user_id,
        Err(error) => return malformed(&error),
    };
    if is_member {
        gateway.access.add_member(&user, place);
    } else {
        gateway.access.remove_member(&user, place, event.time);
        gateway.evict(place, &user, "member_removed");
    }
}

fn malformed(error: &dyn std::error::Error) {
    counter!(metric::MALFORMED).increment(1);
    warn!(%error, "a malformed event was dropped");
}

/// Hands `stored` events back as `live` ones, each acknowledged only after the broker has
/// confirmed its successor. A crash in between repeats it, with the same event id.
pub(crate) async fn hand_back(gateway: Arc<Gateway>, deliveries: mpsc::Receiver<Delivery>) {
    let deliveries = stream::unfold(deliveries, async |mut deliveries| {
        let delivery = deliveries.recv().await?;
        Some((delivery, deliveries))
    });
    deliveries
        .map(|delivery| hand_one_back(&gateway, delivery))
        .buffered(usize::from(HAND_BACKS))
        .for_each(async |()| {})
        .await;
}

async fn hand_one_back(gateway: &Gateway, delivery: Delivery) {
    let key = match EventKey::parse(&delivery.routing_key) {
        Ok(mut key) => {
            key.class = EventClass::Live;
            key.to_string()
        }
        Err(error) => {
            malformed(&error);
            // Nobody could ever deliver it.
            return settle(delivery).await;
        }
    };
    let exchange = gateway.names.events();
    let mut headers = delivery.properties.headers_to_keep();
    headers.insert(HANDED_BACK.into(), "1".into());
    let message = Message {
        body: delivery.body.clone(),
        id: delivery.properties.message_id.clone(),
        kind: delivery.properties.kind.clone(),
        headers,
        persistent: false,
        ..Message::default()
    };
    // Mandatory: this instance listens before it takes from the inbox, so that somebody must.
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: true,
    };
    match gateway.publisher.publish(route, &message).await {
        Ok(()) => settle(delivery).await,
        Err(error) if error.is_permanent() => {
            malformed(&error);
            if let Err(error) = delivery.receipt.reject().await {
                debug!(%error, "a rejection was lost");
            }
        }
        Err(error) => {
            warn!(%error, "an event could not be handed back yet");
            if let Err(error) = delivery.receipt.requeue().await {
                debug!(%error, "the event returns when the broker is back");
            }
        }
    }
}

async fn settle(delivery: Delivery) {
    if let Err(error) = delivery.receipt.ack().await {
        debug!(%error, "an acknowledgement was lost; the event will be handed back again");
    }
}
