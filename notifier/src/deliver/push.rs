//! Orders as pushes.

use std::borrow::Cow;

use bellhop_common::telemetry::with_causes;
use bellhop_common::wire::{Event, EventError};
use jiff::Timestamp;
use serde_json::json;
use tracing::warn;
use uuid::Uuid;

use super::{Order, Outcome};
use crate::gateway::Gateway;
use crate::push::kept;
use crate::push::{Device, Devices, PushError, PushNote, Pusher, Subscription, Urgency, Verdict};
use crate::store::{SharedStore, StoreError};

/// The browsers of a user that can be tried, by their ids.
pub(super) async fn devices(
    pusher: &Pusher,
    store: &SharedStore,
    user_id: &str,
) -> Result<Vec<Option<String>>, StoreError> {
    let devices = kept::devices(store, user_id).await?;
    let devices = devices.iter(Timestamp::now());
    Ok(devices
        .filter(|device| pusher.suits(&device.subscription))
        .map(|device| Some(device.subscription.id()))
        .collect())
}

/// The push service that an order goes to, by its origin; `None` if it will go nowhere.
///
/// # Errors
/// [`StoreError`].
pub(super) async fn service(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
) -> Result<Option<String>, StoreError> {
    let devices = kept::devices(store, &order.user_id).await?;
    let origin = || {
        let policy = gateway.pusher.as_ref()?.policy();
        let endpoint = &meant(&devices, order)?.subscription.endpoint;
        Some(policy.check(endpoint).ok()?.origin())
    };
    Ok(origin())
}

fn meant<'a>(devices: &'a Devices, order: &Order) -> Option<&'a Device> {
    let is_meant = |id: &str| Some(id) == order.device.as_deref();
    let mut devices = devices.iter(Timestamp::now());
    devices.find(|device| is_meant(&device.subscription.id()))
}

/// Sends an order.
pub(super) async fn send(
    gateway: &Gateway,
    store: &SharedStore,
    order: &Order,
    events: &[Event],
) -> Outcome {
    let Some(pusher) = &gateway.pusher else {
        return super::not_here("[push]");
    };
    let devices = match kept::devices(store, &order.user_id).await {
        Ok(devices) => devices,
        Err(error) => return super::store_away(&error),
    };
    let Some(device) = meant(&devices, order) else {
        return Outcome::Gone("the browser has given its subscription up".to_owned());
    };
    let subscription = &device.subscription;
    let urgency = events.iter().map(Urgency::of).max();
    let urgency = urgency.unwrap_or(Urgency::Normal);
    let sent = match summary(events) {
        Ok(event) => push(gateway, pusher, subscription, order, (&event, urgency)).await,
        Err(error) => return Outcome::Refused(error.to_string()),
    };
    let verdict = match &sent {
        Ok(()) => Verdict::Taken,
        Err(error) => error.verdict(),
    };
    let noted = kept::note(
        store,
        &order.user_id,
        subscription,
        verdict,
        Timestamp::now(),
    );
    if let Err(error) = noted.await {
        warn!(%error, "it is not noted how a push went");
    }
    sent.map_or_else(|error| outcome(&error), |()| Outcome::Sent)
}

/// What a push says of its events: of several, how many they are.
fn summary(events: &[Event]) -> Result<Cow<'_, Event>, EventError> {
    if let [event] = events {
        return Ok(Cow::Borrowed(event));
    }
    let data = json!({ "title": format!("{} new notifications", events.len()) });
    let id = events.last().map_or(Uuid::nil(), |event| event.id);
    let event = Event::new("notification.created", id, Timestamp::now(), &data)?;
    Ok(Cow::Owned(event))
}

async fn push(
    gateway: &Gateway,
    pusher: &Pusher,
    subscription: &Subscription,
    order: &Order,
    (event, urgency): (&Event, Urgency),
) -> Result<(), PushError> {
    let seq = order.events.last().map(|event| event.seq);
    let ttl = gateway.config.push.ttl.0;
    let note = PushNote {
        urgency,
        ..PushNote::of_event(event, seq, ttl)
    };
    match pusher.send(subscription, &note).await {
        Err(PushError::TooLarge) => {
            let stub = PushNote {
                urgency,
                ..PushNote::stub_of_event(event, seq, ttl)
            };
            pusher.send(subscription, &stub).await
        }
        sent => sent,
    }
}

fn outcome(error: &PushError) -> Outcome {
    let reason = with_causes(error);
    match error {
        _ if error.may_pass() => Outcome::Again {
            after: error.retry_after(),
            reason,
        },
        // Nothing can be mended that would let it go there.
        PushError::Gone
        | PushError::OtherKey
        | PushError::Unusable(_)
        | PushError::ForbiddenAddress { .. } => Outcome::Gone(reason),
        _ => Outcome::Refused(reason),
    }
}
