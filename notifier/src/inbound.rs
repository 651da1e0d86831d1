//! Events from RabbitMQ to the hub: `live` ones, and bundles of `stored` ones.

use std::sync::Arc;

use bellhop_common::amqp::Delivery;
use bellhop_common::wire::{Audience, Event, EventKey};
use bytes::Bytes;
use metrics::counter;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::gateway::Gateway;
use crate::metric;
use crate::presence;
use crate::protocol::{self, Frame, Place};
use crate::store::{Position, StreamName};
use crate::streams::bundle::{self, Told};
use crate::streams::{Arrived, Streams, batches};

/// How many live events are acknowledged together.
const TOGETHER: usize = 64;

/// Delivers `live` events until the queue ends.
pub(crate) async fn deliver(gateway: Arc<Gateway>, mut deliveries: mpsc::Receiver<Delivery>) {
    let mut batch = Vec::with_capacity(TOGETHER);
    while deliveries.recv_many(&mut batch, TOGETHER).await > 0 {
        for delivery in &mut batch {
            let key = delivery.routing_key.as_str();
            if key.starts_with(presence::KEY_WORD) {
                presence::hear(&gateway, &delivery.body);
            } else if key.starts_with(bundle::KEY_WORD) {
                open_bundle(&gateway, std::mem::take(&mut delivery.body).into());
            } else if key.starts_with(batches::KEY_WORD) {
                hear_batch(&gateway, &delivery.body);
            } else {
                match EventKey::parse(key) {
                    Ok(key) => route(&gateway, &key, &delivery.body, None),
                    Err(error) => {
                        malformed::<()>(&error);
                    }
                }
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

fn open_bundle(gateway: &Gateway, mut bundle: Bytes) {
    loop {
        match Told::read(&mut bundle) {
            Ok(Some(told)) => hear(gateway, told),
            Ok(None) => return,
            Err(error) => {
                malformed::<()>(&error);
                return;
            }
        }
    }
}

/// The number of a batch has come back.
fn hear_batch(gateway: &Gateway, number: &[u8]) {
    let number = str::from_utf8(number)
        .ok()
        .and_then(|text| text.parse().ok());
    let batches = gateway.streams.as_ref().and_then(Streams::batches);
    let Some((number, batches)) = number.zip(batches) else {
        return;
    };
    for told in batches.take(number) {
        hear(gateway, told);
    }
}

/// A stored event, to be shown once: whoever tells it may not know whether it was told before.
fn hear(gateway: &Gateway, told: Told) {
    let numbered = gateway.streams.as_ref().zip(told.position);
    let Some(((streams, position), name)) = numbered.zip(StreamName::of(&told.key.audience)) else {
        return show_unnumbered(gateway, &told);
    };
    let followed = streams.followed(&name);
    let is_new = |shown: Position| shown.epoch != position.epoch || shown.seq < position.seq;
    // What is told twice may have been undone meanwhile.
    if Place::of(&told.key.audience).is_some() && followed.shown(&name).is_none_or(is_new) {
        obey(gateway, &told);
    }
    let arrived = followed.arrive(&name, position, || Some(told), |told| show(gateway, &told));
    match arrived {
        Arrived::NotFollowed | Arrived::Shown | Arrived::Waits => {}
        Arrived::Known => debug!(%name, seq = position.seq, "an event was told twice"),
        Arrived::Gap => streams.catch_up(&name),
        Arrived::NewLife => {
            counter!(metric::STREAM_RESETS).increment(1);
            show_reset(gateway, &name, position);
        }
    }
}

/// Where nothing is kept, an event is known again by its id, for a while.
fn show_unnumbered(gateway: &Gateway, told: &Told) {
    #[derive(Deserialize)]
    struct Id {
        id: String,
    }
    let id = serde_json::from_slice::<Id>(&told.body).map(|event| event.id);
    let is_new = id.is_ok_and(|id| gateway.recent.is_new(&id, &told.key.to_string()));
    if is_new {
        route(gateway, &told.key, &told.body, None);
    }
}

/// Shows a stored event to those of this instance whom it is for.
pub(crate) fn show(gateway: &Gateway, told: &Told) {
    route(
        gateway,
        &told.key,
        &told.body,
        told.position.map(|position| (position, told.unread)),
    );
}

/// A stored event as clients see it.
pub(crate) fn frame_of(told: &Told) -> Option<Frame> {
    let event = Event::parse(&told.body).ok()?;
    protocol::event(
        &told.key,
        event,
        told.position.map(|position| (position, told.unread)),
    )
}

/// Says to those who follow a stream that events of it may be lost.
pub(crate) fn show_reset(gateway: &Gateway, name: &StreamName, position: Position) {
    let frame = protocol::stream_reset(name, position);
    send(gateway, &name.audience(), &frame);
}

fn send(gateway: &Gateway, audience: &Audience, frame: &Frame) -> usize {
    match audience {
        Audience::User(user) => gateway.hub.send_to_user(user, frame),
        Audience::All => gateway.hub.send_to_all(frame),
        Audience::Room(_) | Audience::Chat(_) | Audience::Team(_) => {
            Place::of(audience).map_or(0, |place| gateway.rooms.send(&place, frame))
        }
    }
}

/// Gives one event to whom its key names. Malformed ones are counted and dropped: whoever
/// published them is not here to be told.
fn route(gateway: &Gateway, key: &EventKey, body: &[u8], number: Option<(Position, Option<u64>)>) {
    let place = Place::of(&key.audience);
    if let Some(place) = place.as_ref().filter(|_| number.is_none()) {
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
        Ok(event) => protocol::event(key, event, number),
        Err(error) => malformed(&error),
    };
    let Some(frame) = frame else { return };
    let sent = send(gateway, &key.audience, &frame);
    counter!(metric::DELIVERIES).increment(sent as u64);
}

/// Lets a stored event take effect before it is shown, whether it came from the broker or was read from the
/// store.
pub(crate) fn obey(gateway: &Gateway, told: &Told) {
    if let Some(place) = Place::of(&told.key.audience) {
        membership(gateway, &place, &told.key.topic, &told.body);
    }
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
        Err(error) => {
            malformed::<()>(&error);
            return;
        }
    };
    let data = event.data.as_deref().map_or("null", RawValue::get);
    let user = match serde_json::from_str::<Member>(data) {
        Ok(member) => member.user_id,
        Err(error) => {
            malformed::<()>(&error);
            return;
        }
    };
    if is_member {
        gateway.access.add_member(&user, place);
    } else {
        gateway.access.remove_member(&user, place, event.time);
        gateway.evict(place, &user, "member_removed");
    }
}

/// Counts what nobody can read.
pub(crate) fn malformed<T>(error: &dyn std::error::Error) -> Option<T> {
    counter!(metric::MALFORMED).increment(1);
    warn!(%error, "a malformed event was dropped");
    None
}
