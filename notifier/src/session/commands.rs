//! What a client asks for, and the answers.

use jiff::Timestamp;
use metrics::counter;
use serde_json::Value;
use tokio::time::Instant;

use super::login::{Login, instant_of};
use super::{End, Session};
use crate::access::Grant;
use crate::auth::Identity;
use crate::config::AuthMode;
use crate::metric;
use crate::protocol::close;
use crate::protocol::{self, ClientFrame, Command, Relay};

/// When so many more frames were above the rate than within it, the client is closed.
const MAX_REFUSALS: u32 = 100;

/// After so many bytes a frame counts once more.
const FRAME_COUNTS_AGAIN: usize = 4096;

/// How many users a client is shown of a room.
const MAX_SHOWN: usize = 100;

impl Session {
    /// Takes a text frame.
    pub(super) fn take(&mut self, text: &str, now: Instant) -> Option<End> {
        if !self.is_in_pace(text.len(), now) {
            let per_second = self.gateway.config.websocket.frames_per_second;
            // It is not even read, so that its id is not known.
            let message = format!("more than {per_second} frames a second; this one was left out");
            self.refuse("rate_limited", &message, None);
            return self.end_of_patience();
        }
        match ClientFrame::parse(text) {
            Ok(frame) => self.obey(frame, now),
            Err(error) => {
                let code = error.problem.code();
                self.refuse(code, &error.to_string(), error.id.as_ref());
            }
        }
        None
    }

    /// A ping of the protocol is answered by the library, but counts as well.
    pub(super) fn take_ping(&mut self, now: Instant) -> Option<End> {
        self.owes_pong = true;
        if self.is_in_pace(0, now) {
            return None;
        }
        self.end_of_patience()
    }

    /// Whether the client may send this now. A large frame counts as several.
    fn is_in_pace(&mut self, bytes: usize, now: Instant) -> bool {
        let per_second = self.gateway.config.websocket.frames_per_second;
        let count = u32::try_from(1 + bytes / FRAME_COUNTS_AGAIN).unwrap_or(u32::MAX);
        let allowed = self.frames.allows(now, per_second, count);
        if allowed {
            self.refusals = self.refusals.saturating_sub(1);
        } else {
            self.refusals += 1;
        }
        allowed
    }

    fn end_of_patience(&self) -> Option<End> {
        (self.refusals >= MAX_REFUSALS).then_some(End::Close(close::RATE_LIMITED))
    }

    fn obey(&mut self, frame: ClientFrame, now: Instant) {
        let id = frame.id;
        match frame.command {
            Command::Ping => self.outbox.push(protocol::pong(id.as_ref())),
            Command::Auth { token, since } => self.log_in(id.as_ref(), &token, since.as_deref()),
            _ if self.login.is_none() => {
                let message = "log in first: {\"type\": \"auth\", \"token\": …}";
                self.refuse("not_logged_in", message, id.as_ref());
            }
            Command::Subscribe { place, since } => self.subscribe(place, id, since, now),
            Command::Unsubscribe(place) => self.unsubscribe(&place, id.as_ref()),
            Command::Resume(streams) => {
                // It costs the store as much as to enter.
                if self.may_enter_now(id.as_ref(), now) {
                    self.resume(streams, id);
                }
            }
            Command::Ack(seq) => self.ack(seq, id.as_ref()),
            Command::Read(marked) => self.mark_read(marked, id),
            Command::Presence(place) => {
                if !self.is_in(&place) {
                    return self.not_in(&place.to_string(), id.as_ref());
                }
                // To look at everybody there costs as much as to enter.
                if !self.may_enter_now(id.as_ref(), now) {
                    return;
                }
                let (count, users) = self.gateway.present(&place, MAX_SHOWN);
                let frame = protocol::presence(&place, count, &users, id.as_ref());
                self.outbox.push(frame);
            }
            Command::Relay(relay) => self.relay(relay, id.as_ref()),
        }
    }

    /// Answers a frame that could not be done.
    pub(super) fn refuse(&self, code: &'static str, message: &str, id: Option<&Value>) {
        counter!(metric::REFUSED_FRAMES, "code" => code).increment(1);
        self.outbox.push(protocol::error(code, message, id));
    }

    pub(super) fn not_in(&self, place: &str, id: Option<&Value>) {
        let message = format!("you are not in {place}: subscribe first");
        self.refuse("not_subscribed", &message, id);
    }

    fn relay(&mut self, relay: Relay, id: Option<&Value>) {
        let Some(login) = &self.login else { return };
        if !self.gateway.config.rooms.relay {
            let message = "frames of clients are not passed on here (rooms.relay)";
            return self.refuse("relay_off", message, id);
        }
        let here = |place: &&_| self.gateway.rooms.has(place, self.outbox.id);
        let place = if let Some(place) = &relay.place {
            if !here(&place) {
                return self.not_in(&place.to_string(), id);
            }
            place.clone()
        } else {
            let mut places = login.places.iter().filter(here);
            let (Some(only), None) = (places.next(), places.next()) else {
                let message = format!(
                    "say where frames of type {:?} go, with \"room_id\" or \"chat_id\": you are \
                     not in exactly one",
                    relay.kind
                );
                return self.refuse("no_room", &message, id);
            };
            only.clone()
        };
        let sender = &self.outbox;
        let relays = &self.gateway.relays;
        if let Err(error) = relays.send(&place, &login.user, relay, sender, id.cloned()) {
            self.refuse(error.code(), &error.to_string(), id);
        }
    }
}

impl Session {
    /// The first login of a client that came without a token, or the renewal of a login.
    fn log_in(&mut self, id: Option<&Value>, token: &str, since: Option<&str>) {
        let identity = match self.gateway.verifier.verify(token, Timestamp::now()) {
            Ok(identity) => identity,
            Err(error) => {
                let refusal = error.close();
                self.refuse(refusal.reason, &error.to_string(), id);
                // A bad renewal leaves the login that still holds.
                if self.login.is_none() {
                    self.outbox.close(refusal);
                }
                return;
            }
        };
        match &mut self.login {
            None => self.welcome(identity, since),
            Some(login) if *login.user == *identity.user_id => {
                let before = std::mem::replace(&mut login.grant, Grant::of(&identity));
                self.expires_at(identity.expires);
                self.outbox.set_token(identity.token_id.as_deref());
                // It may have been revoked after it was checked and before the hub knew of it.
                if let Some(End::Close(revoked)) = self.review() {
                    return self.outbox.close(revoked);
                }
                self.leave_what_is_not_granted(&before);
            }
            Some(_) => {
                let message = "the token belongs to another user: open another connection";
                self.refuse("wrong_user", message, id);
            }
        }
    }

    pub(super) fn welcome(&mut self, identity: Identity, since: Option<&str>) {
        self.stop = None;
        self.expires_at(identity.expires);
        // Where nothing is sent, nobody's address is kept.
        if let Some(email) = &identity.email
            && self.gateway.config.escalation.is_on()
        {
            let contacts = &self.gateway.contacts;
            contacts.claim(&identity.user_id, email, identity.name.as_deref());
        }
        let login = Login::new(identity);
        self.outbox.set_token(login.grant.token_id.as_deref());
        self.open(login, since);
        // It may have been revoked after it was checked and before the hub knew of it.
        if let Some(End::Close(revoked)) = self.review() {
            return self.outbox.close(revoked);
        }
        // Who came after the drain had looked through the hub is told here.
        if self.gateway.stop.is_cancelled() {
            return self.outbox.close(close::RESTART);
        }
        self.go_where_wanted();
    }

    fn expires_at(&mut self, expires: Option<Timestamp>) {
        let notice = self.gateway.config.websocket.token_notice.0;
        let end = expires.map(instant_of);
        self.heartbeat.ends_at(end, Some(notice));
    }

    /// The token ends soon.
    pub(super) fn give_notice(&self) {
        if let Some(left) = self.heartbeat.time_left(Instant::now()) {
            let expires_at = Timestamp::now().saturating_add(left);
            // Timestamps end in the year 9999.
            if let Ok(expires_at) = expires_at {
                self.outbox.push(protocol::token_expiring(expires_at));
            }
        }
    }

    /// Whether the login still holds, after something was revoked.
    pub(super) fn review(&self) -> Option<End> {
        let Login { user, grant, .. } = self.login.as_deref()?;
        let (id, issued_at) = (grant.token_id.as_deref(), grant.issued_at);
        let verifier = &self.gateway.verifier;
        if verifier.mode() == AuthMode::None {
            return None;
        }
        let is_revoked = verifier.is_revoked(user, id, issued_at);
        is_revoked.then_some(End::Close(close::TOKEN_REVOKED))
    }
}
