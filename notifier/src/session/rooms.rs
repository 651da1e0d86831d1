//! How a connection enters and leaves rooms and chats.

use std::sync::Arc;

use futures_util::{StreamExt as _, future, stream};
use metrics::counter;
use serde_json::Value;
use tokio::time::Instant;

use super::Session;
use super::login::Login;
use super::pending::Outcome;
use crate::access::{Grant, Moment, Unavailable, Verdict};
use crate::metric;
use crate::protocol::{self, Place};
use crate::store::{Position, StreamName};

/// About how many rooms of one client the backend is asked at once.
const ASKED_AT_ONCE: usize = 8;

impl Session {
    pub(super) fn subscribe(
        &mut self,
        place: Place,
        id: Option<Value>,
        from: Option<Position>,
        now: Instant,
    ) {
        if !self.may_enter_now(id.as_ref(), now) {
            return;
        }
        if self.is_in(&place) {
            // Asked for again, perhaps after a mistake: the answer is the same.
            let position = self.login.as_ref();
            let position = position.and_then(|login| login.from.get(&StreamName::place(&place)));
            let frame = protocol::subscribed(&place, position, None, id.as_ref());
            return self.outbox.push(frame);
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
            Verdict::Yes => self.enter(place, id.as_ref(), from, since),
            Verdict::No => self.keep_out(&place, id.as_ref()),
            Verdict::Ask => self.ask_backend(place, id, from, since),
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

    /// After a renewal: the new token may allow less than the one `before`. The backend is asked about
    /// what only that one allowed; no answer is a no.
    pub(super) fn leave_what_is_not_granted(&mut self, before: &Grant) {
        let Some(login) = &self.login else { return };
        let (access, user) = (&self.gateway.access, &login.user);
        let (mut lost, mut unclear) = (Vec::new(), Vec::new());
        for place in &login.places {
            match access.may_enter(user, &login.grant, place) {
                Verdict::No => lost.push(place.clone()),
                Verdict::Ask if access.is_granted(user, before, place) => {
                    unclear.push(place.clone());
                }
                Verdict::Yes | Verdict::Ask => {}
            }
        }
        let (gateway, user) = (Arc::clone(&self.gateway), Arc::clone(user));
        self.put_out(lost);
        if unclear.is_empty() {
            return;
        }
        self.ask(async move {
            let questions = stream::iter(unclear).map(|place| async {
                let may_stay = gateway.access.ask(&user, &place).await.unwrap_or(false);
                (!may_stay).then_some(place)
            });
            let lost = questions.buffer_unordered(ASKED_AT_ONCE);
            Outcome::NotGranted(lost.filter_map(future::ready).collect().await)
        });
    }

    /// Out of rooms and chats in which the client may not stay.
    pub(super) fn put_out(&mut self, lost: Vec<Place>) {
        let Some(login) = &mut self.login else { return };
        for place in lost {
            login.places.retain(|entered| *entered != place);
            let frame = protocol::unsubscribed(&place, Some("not_granted"), None);
            self.outbox.push(frame);
            self.gateway.leave(&place, &login.user, self.outbox.id);
            Self::leave_stream(&self.gateway, login, &place);
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
        Self::leave_stream(&self.gateway, login, place);
    }

    /// The backend has said whether the client may enter.
    pub(super) fn may_enter(
        &mut self,
        place: Place,
        id: Option<&Value>,
        from: Option<Position>,
        asked: Moment,
        answer: Result<bool, Unavailable>,
    ) {
        match answer {
            Ok(true) => self.enter(place, id, from, asked),
            Ok(false) => self.keep_out(&place, id),
            Err(error) => {
                counter!(metric::ENTRIES, "outcome" => "refused").increment(1);
                self.refuse("unavailable", &error.to_string(), id);
            }
        }
    }

    /// Enters what the address of the handshake named, as far as no question is open.
    pub(super) fn go_where_wanted(&mut self) {
        while self.pending.is_none()
            && self.login.is_some()
            && let Some(place) = self.wanted.pop()
        {
            self.subscribe(place, None, None, Instant::now());
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
            let is_out = |place: &mut Place| !rooms.has(place, self.outbox.id);
            let left: Vec<_> = login.places.extract_if(.., is_out).collect();
            for place in left {
                Self::leave_stream(&self.gateway, login, &place);
            }
        }
        login.places.len() >= limit
    }

    fn enter(&mut self, place: Place, id: Option<&Value>, from: Option<Position>, since: Moment) {
        counter!(metric::ENTRIES, "outcome" => "entered").increment(1);
        self.go_in(&place, id, from);
        let Some(login) = &mut self.login else { return };
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

    fn ask_backend(
        &mut self,
        place: Place,
        id: Option<Value>,
        since: Option<Position>,
        asked: Moment,
    ) {
        let Some(login) = &self.login else { return };
        let (gateway, user) = (Arc::clone(&self.gateway), Arc::clone(&login.user));
        self.ask(async move {
            let answer = gateway.access.ask(&user, &place).await;
            Outcome::MayEnter {
                place,
                id,
                since,
                asked,
                answer,
            }
        });
    }
}
