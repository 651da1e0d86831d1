//! Who is where, over all instances: tells the others what changes here, and the people here what
//! changes anywhere.

mod roster;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::amqp::{Message as AmqpMessage, Route};
use bellhop_common::telemetry::Component;
use metrics::gauge;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use self::roster::{Change, Message, Notice, Roster};
use crate::gateway::Gateway;
use crate::metric;
use crate::outbox::Outbox;
use crate::protocol::{self, Place};
use crate::rooms::{Entered, Left};

/// The first word of the routing key of what instances tell each other.
pub(crate) const KEY_WORD: &str = "presence";

/// What happens within this time is told together.
const GATHER: Duration = Duration::from_millis(50);

/// Between two signs of life.
const ALIVE_EVERY: Duration = Duration::from_secs(10);

/// After so many signs of life all is told again.
const ROUND_EVERY: u64 = 3;

/// How many users go into one message, so that it stays far below `amqp.max_message_size`.
const PART: usize = 1000;

/// What happens meanwhile is not told one by one, but all again.
const MAX_PENDING: usize = 20_000;

/// How long the last word may take.
const BYE_TIMEOUT: Duration = Duration::from_secs(2);

/// Presence over all instances.
#[derive(Debug)]
pub(crate) struct Presence {
    /// This run of this instance: a restart is another peer, and the old one says goodbye or dies.
    me: Uuid,
    state: Mutex<State>,
    changed: Notify,
    /// Whether we hear the others.
    consumer: Component,
}

#[derive(Debug, Default)]
struct State {
    roster: Roster,
    /// Users whose comings and goings the others do not know yet. Only who and where: whether they
    /// are there is seen when it is told, since a coming and a going may be noted in either order.
    pending: HashSet<(Place, String)>,
    /// Somebody does not know what we have.
    tell_all: bool,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    from: Uuid,
    #[serde(flatten)]
    message: Message,
}

impl Presence {
    pub(crate) fn new(consumer: Component) -> Self {
        Self {
            me: Uuid::now_v7(),
            state: Mutex::default(),
            changed: Notify::new(),
            consumer,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the others do not know yet, and whether all is to be told.
    fn take_what_is_due(&self, beats: u64) -> (HashSet<(Place, String)>, bool) {
        let mut state = self.lock();
        let changes = std::mem::take(&mut state.pending);
        let is_due = beats >= ROUND_EVERY && state.roster.has_peers();
        (changes, std::mem::take(&mut state.tell_all) || is_due)
    }

    /// Takes note of a change on this instance; whether the user is nowhere else.
    fn note(&self, place: &Place, user: &str) -> bool {
        let mut state = self.lock();
        // Told even if nobody is known yet: an instance that has just come is told all that we have,
        // but only who hears of a change announces it.
        if state.pending.len() < MAX_PENDING {
            state.pending.insert((place.clone(), user.to_owned()));
        } else {
            state.tell_all = true;
        }
        let only_here = !state.roster.has(place, user);
        drop(state);
        self.changed.notify_one();
        only_here
    }
}

impl Gateway {
    /// Puts a connection into a room or chat, and tells the others there if the user is new to it.
    pub(crate) fn enter(&self, place: &Place, user: &Arc<str>, outbox: &Arc<Outbox>) {
        let entered = self.rooms.enter(place, user, outbox);
        self.directory.note(user, outbox.id);
        if entered == Entered::First && self.presence.note(place, user) {
            self.announce(place, user, true);
        }
    }

    /// Takes a connection out, and tells the others if the user is there no more.
    pub(crate) fn leave(&self, place: &Place, user: &Arc<str>, id: Uuid) -> Left {
        let left = self.rooms.leave(place, id);
        self.directory.note(user, id);
        if left == Left::Last {
            self.gone(place, user);
        }
        left
    }

    /// Takes a user out with all connections here, and tells them and the others.
    pub(crate) fn evict(&self, place: &Place, user: &str, reason: &str) {
        let outboxes = self.rooms.evict(place, user);
        if outboxes.is_empty() {
            return;
        }
        let frame = protocol::unsubscribed(place, Some(reason), None);
        let user: Arc<str> = user.into();
        for outbox in outboxes {
            self.directory.note(&user, outbox.id);
            outbox.push(frame.clone());
        }
        self.gone(place, &user);
    }

    /// How many users are in a room or chat over all instances, and the first of them by name.
    pub(crate) fn present(&self, place: &Place, limit: usize) -> (usize, Vec<String>) {
        let here = self.rooms.users(place);
        let elsewhere = self.presence.lock().roster.users(place);
        let here = here.iter().map(ToString::to_string);
        let all: BTreeSet<String> = elsewhere.into_iter().chain(here).collect();
        (all.len(), all.into_iter().take(limit).collect())
    }

    fn gone(&self, place: &Place, user: &str) {
        // Perhaps another connection came just now, which is no news then.
        if self.presence.note(place, user) && !self.rooms.has_user(place, user) {
            self.announce(place, user, false);
        }
    }

    /// In a large room nobody is told: n users who come would be n² frames.
    fn announce(&self, place: &Place, user: &str, entered: bool) {
        if self.rooms.count(place) > self.config.rooms.announce_up_to {
            return;
        }
        let frame = if entered {
            protocol::user_joined(place, user)
        } else {
            protocol::user_left(place, user)
        };
        self.rooms.send_to_others(place, user, &frame);
    }
}

/// Takes in what an instance says, perhaps this one.
pub(crate) fn hear(gateway: &Gateway, body: &[u8]) {
    let envelope: Envelope = match serde_json::from_slice(body) {
        Ok(envelope) => envelope,
        // An instance of another version may say more than we understand.
        Err(error) => return debug!(%error, "another instance was not understood"),
    };
    if envelope.from == gateway.presence.me {
        return;
    }
    let mut state = gateway.presence.lock();
    let heard = state
        .roster
        .hear(envelope.from, envelope.message, Instant::now());
    state.tell_all |= heard.tell_all;
    drop(state);
    if heard.tell_all {
        gateway.presence.changed.notify_one();
    }
    announce_all(gateway, heard.notices);
}

fn announce_all(gateway: &Gateway, notices: Vec<Notice>) {
    for notice in notices {
        let Notice {
            place,
            user,
            entered,
        } = notice;
        if gateway.rooms.is_here(&place) && !gateway.rooms.has_user(&place, &user) {
            gateway.announce(&place, &user, entered);
        }
    }
}

/// Tells the other instances what changes here, until `stop`.
pub(crate) async fn tell(gateway: Arc<Gateway>, stop: CancellationToken) {
    let mut beat = interval(ALIVE_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut beats, mut round) = (0, 0);
    // What the others answer must find this instance listening, or it knows of nobody until the
    // next round.
    while !gateway.presence.consumer.is_up() {
        tokio::select! {
            () = sleep(GATHER) => {}
            () = stop.cancelled() => return,
        }
    }
    send(&gateway, Message::Hello).await;
    // Whether we hear the others, and whether they hear us.
    let (mut was_up, mut told) = (true, true);
    loop {
        tokio::select! {
            () = gateway.presence.changed.notified() => sleep(GATHER).await,
            _ = beat.tick() => {
                beats += 1;
                look_around(&gateway, told);
                let is_up = gateway.presence.consumer.is_up();
                // What the others said meanwhile went to a queue that was gone.
                let greeting = if is_up && !was_up { Message::Hello } else { Message::Alive };
                was_up = is_up;
                told = send(&gateway, greeting).await;
            }
            () = stop.cancelled() => break,
        }
        let (pending, tell_all) = gateway.presence.take_what_is_due(beats);
        let changes = pending.into_iter().map(|(place, user)| Change {
            entered: gateway.rooms.has_user(&place, &user),
            place: place.to_string(),
            user,
        });
        for part in changes.collect::<Vec<_>>().chunks(PART) {
            let changes = part.to_vec();
            if !send(&gateway, Message::Changes { changes }).await {
                gateway.presence.lock().tell_all = true;
            }
        }
        if tell_all {
            (beats, round) = (0, round + 1);
            tell_round(&gateway, round).await;
        }
    }
    drop(timeout(BYE_TIMEOUT, send(&gateway, Message::Bye)).await);
}

/// While this instance hears nothing, or cannot say anything because RabbitMQ takes no messages, the
/// silence of the others means nothing.
fn look_around(gateway: &Gateway, told: bool) {
    #[expect(clippy::cast_precision_loss, reason = "rooms are fewer than 2^52")]
    gauge!(metric::ROOMS).set(gateway.rooms.len() as f64);
    let mut state = gateway.presence.lock();
    if !told || !gateway.presence.consumer.is_up() {
        state.roster.excuse_all(Instant::now());
    }
    let notices = state.roster.expire(Instant::now());
    drop(state);
    announce_all(gateway, notices);
}

async fn tell_round(gateway: &Gateway, round: u64) {
    for places in parts(gateway) {
        if !send(gateway, Message::Present { round, places }).await {
            // Unfinished, it takes nothing away; the next one is whole.
            return;
        }
    }
    send(gateway, Message::RoundOver { round }).await;
}

fn parts(gateway: &Gateway) -> Vec<HashMap<String, Vec<String>>> {
    let mut parts = vec![HashMap::<String, Vec<String>>::new()];
    let mut users_in_part = 0;
    gateway.rooms.each(|place, users| {
        let place = place.to_string();
        for user in users {
            if users_in_part == PART {
                parts.push(HashMap::new());
                users_in_part = 0;
            }
            users_in_part += 1;
            if let Some(part) = parts.last_mut() {
                part.entry(place.clone())
                    .or_default()
                    .push(user.to_string());
            }
        }
    });
    parts
}

/// Whether the broker has it.
async fn send(gateway: &Gateway, message: Message) -> bool {
    let envelope = Envelope {
        from: gateway.presence.me,
        message,
    };
    let body = match serde_json::to_vec(&envelope) {
        Ok(body) => body,
        Err(error) => {
            warn!(%error, "what changed here cannot be written");
            return false;
        }
    };
    let (exchange, key) = (
        gateway.names.events(),
        format!("{KEY_WORD}.{}", gateway.presence.me),
    );
    let route = Route {
        exchange: &exchange,
        key: &key,
        mandatory: false,
    };
    let message = AmqpMessage {
        body,
        ..AmqpMessage::default()
    };
    let sent = gateway.publisher.publish(route, &message).await;
    if let Err(error) = &sent {
        debug!(%error, "the other instances could not be told");
    }
    sent.is_ok()
}
