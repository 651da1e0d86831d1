//! How a connection enters and leaves rooms and chats.

use std::pin::Pin;
use std::sync::Arc;

use metrics::counter;
use serde_json::Value;
use tokio::time::Instant;

use super::Session;
use super::login::Login;
use crate::access::{Moment, Unavailable, Verdict};
use crate::metric;
use crate::protocol::{self, Place};

/// The backend is asked whether the client may enter.
pub(super) struct Asking {
    place: Place,
    id: Option<Value>,
    since: Moment,
    answer: Pin<Box<dyn Future<Output = Result<bool, Unavailable>> + Send>>,
}

/// The backend's answer; never without a question.
pub(super) async fn answer(asking: &mut Option<Box<Asking>>) -> Result<bool, Unavailable> {
    match asking {
        Some(asking) => asking.answer.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Session {
    pub(super) fn subscribe(&mut self, place: Place, id: Option<Value>, now: Instant) {
        if !self.may_enter_now(id.as_ref(), now) {
            return;
        }
        if self.is_in(&place) {
            // Asked for again, perhaps after a mistake: the answer is the same.
            return self.outbox.push(protocol::subscribed(&place, id.as_ref()));
        }
        if self.is_everywhere() {
            let message = format!(
                "a connection may be in {} rooms and chats",
                self.gateway.config.rooms.per_connection
            );
            return self.refuse("too_many_rooms", &message, id.as_ref());
        }
        let Some(login) = &self.login else { return };
        let since = self.gateway.access.now();
        match self
            .gateway
            .access
            .may_enter(&login.user, &login.grant, &place)
        {
            Verdict::Yes => self.enter(place, id.as_ref(), since),
            Verdict::No => self.keep_out(&place, id.as_ref()),
            Verdict::Ask => self.ask(place, id, since),
        }
    }

    /// Whether the client has not entered too often lately; says so if it has.
    pub(super) fn may_enter_now(&mut self, id: Option<&Value>, now: Instant) -> bool {
        let per_second = self.gateway.config.rooms.entries_per_second;
        let allowed = self.entries.allows(now, per_second, 1);
        if !allowed {
            let message = format!("more than {per_second} rooms a second");
            self.refuse("too_many_entries", &message, id);
        }
        allowed
    }

    /// After a renewal: the new token may allow less than the one before.
    pub(super) fn leave_what_is_not_granted(&mut self) {
        let Some(login) = &mut self.login else { return };
        let Login {
            user,
            grant,
            places,
        } = &mut **login;
        let access = &self.gateway.access;
        let lost = |place: &mut Place| access.may_enter(user, grant, place) == Verdict::No;
        for place in places.extract_if(.., lost) {
            let frame = protocol::unsubscribed(&place, Some("not_granted"), None);
            self.outbox.push(frame);
            self.gateway.leave(&place, user, self.outbox.id);
        }
    }

    pub(super) fn unsubscribe(&mut self, place: &Place, id: Option<&Value>) {
        let Some(login) = &mut self.login else { return };
        let known = login.places.len();
        login.places.retain(|entered| entered != place);
        if login.places.len() == known {
            return self.not_in(&place.to_string(), id);
        }
        // Before the others are told, who might answer at once.
        self.outbox.push(protocol::unsubscribed(place, None, id));
        self.gateway.leave(place, &login.user, self.outbox.id);
    }

    /// The backend has said whether the client may enter.
    pub(super) fn answered(&mut self, answer: Result<bool, Unavailable>) {
        let Some(asking) = self.asking.take() else {
            return;
        };
        // Nothing was read meanwhile, so the client could give no sign.
        self.heartbeat.sign_of_life(Instant::now());
        match answer {
            Ok(true) => self.enter(asking.place, asking.id.as_ref(), asking.since),
            Ok(false) => self.keep_out(&asking.place, asking.id.as_ref()),
            Err(error) => {
                counter!(metric::ENTRIES, "outcome" => "refused").increment(1);
                self.refuse("unavailable", &error.to_string(), asking.id.as_ref());
            }
        }
        self.go_where_wanted();
    }

    /// Enters what the address of the handshake named, as far as no question is open.
    pub(super) fn go_where_wanted(&mut self) {
        while self.asking.is_none()
            && let Some(place) = self.wanted.pop()
        {
            self.subscribe(place, None, Instant::now());
        }
    }

    /// Which of the wanted rooms the client is let into without a question, in the order of the
    /// address.
    pub(super) fn known_rooms(&self, login: &Login) -> Vec<Place> {
        let access = &self.gateway.access;
        let may =
            |place: &&Place| access.may_enter(&login.user, &login.grant, place) == Verdict::Yes;
        let known = self.wanted.iter().rev().filter(may).cloned();
        known
            .take(self.gateway.config.rooms.per_connection)
            .collect()
    }

    pub(super) fn is_in(&self, place: &Place) -> bool {
        let is_known = |login: &Login| login.places.contains(place);
        self.login.as_deref().is_some_and(is_known) && self.gateway.rooms.has(place, self.outbox.id)
    }

    /// Whether the connection is in as many rooms as it may. Those it was taken out of are
    /// forgotten only now, when it matters.
    fn is_everywhere(&mut self) -> bool {
        let Some(login) = &mut self.login else {
            return true;
        };
        let limit = self.gateway.config.rooms.per_connection;
        if login.places.len() >= limit {
            let rooms = &self.gateway.rooms;
            login
                .places
                .retain(|place| rooms.has(place, self.outbox.id));
        }
        login.places.len() >= limit
    }

    fn enter(&mut self, place: Place, id: Option<&Value>, since: Moment) {
        let Some(login) = &mut self.login else { return };
        counter!(metric::ENTRIES, "outcome" => "entered").increment(1);
        // In the queue before anything from the room.
        self.outbox.push(protocol::subscribed(&place, id));
        self.gateway.enter(&place, &login.user, &self.outbox);
        let access = &self.gateway.access;
        if access.removed_since(&login.user, &place, since) {
            self.gateway.evict(&place, &login.user, "member_removed");
        }
        if !login.places.contains(&place) {
            login.places.push(place);
        }
    }

    fn keep_out(&self, place: &Place, id: Option<&Value>) {
        counter!(metric::ENTRIES, "outcome" => "refused").increment(1);
        let message = format!("you may not enter {place}");
        self.refuse("forbidden", &message, id);
    }

    fn ask(&mut self, place: Place, id: Option<Value>, since: Moment) {
        let Some(login) = &self.login else { return };
        let (gateway, user) = (Arc::clone(&self.gateway), Arc::clone(&login.user));
        let asked = place.clone();
        let answer = Box::pin(async move { gateway.access.ask(&user, &asked).await });
        self.asking = Some(Box::new(Asking {
            place,
            id,
            since,
            answer,
        }));
    }
}
