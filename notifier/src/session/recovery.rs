//! A connection and the streams: what it begins with, what it missed, how far it is.

use std::sync::Arc;

use bellhop_common::wire::Audience;
use jiff::Timestamp;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::debug;

use super::Session;
use super::login::Login;
use super::pending::{Outcome, Resumed};
use super::seen::Seen;
use crate::protocol::{self, Frame, Kept, Place, Welcome};
use crate::store::{Head, Marked, Position, StoreError, StreamName};
use crate::streams::catch_up::within;
use crate::streams::opening::{Joined, Left, Opened, Since, join, open, replay};
use crate::streams::{Cursor, Streams, inbox};

impl Session {
    /// Makes the connection one of its user's. `connected` comes first, and what the store has to
    /// say is asked for before; what is delivered from now on waits.
    pub(super) fn open(&mut self, mut login: Login, since: Option<&str>) {
        let user = Arc::clone(&login.user);
        let (gateway, outbox) = (Arc::clone(&self.gateway), Arc::clone(&self.outbox));
        let Some(streams) = &gateway.streams else {
            self.login = Some(Box::new(login));
            self.outbox.push(self.greeting(None));
            if since.is_some() {
                self.outbox.push(protocol::not_recovered(None));
            }
            gateway.hub.add(&user, outbox);
            gateway.directory.note(&user, self.outbox.id);
            return;
        };
        let cursor = since.map(|text| Cursor::parse(text, &user).unwrap_or(Cursor::lost(&user)));
        login.since = cursor.clone().unwrap_or_default();
        self.login = Some(Box::new(login));
        let (own, all) = (StreamName::user(&user), StreamName::all());
        let (mut all_shown, now) = (None, Instant::now());
        let own_shown = streams.followed(&own).follow(&own, now, |_| {
            all_shown = streams.followed(&all).follow(&all, now, |_| {
                gateway.hub.add(&user, outbox);
            });
        });
        gateway.directory.note(&user, self.outbox.id);
        let (asked, resumes) = (Arc::clone(&gateway), since.is_some());
        self.ask_first(async move {
            let Some(streams) = &asked.streams else {
                return Outcome::Opened {
                    opened: Err(StoreError::Closed),
                    resumes,
                    shown: (None, None),
                };
            };
            let shown = (own_shown, all_shown);
            let opened = open(&asked, streams, &user, shown, cursor.as_ref()).await;
            Outcome::Opened {
                opened,
                resumes,
                shown,
            }
        });
    }

    /// The first frame of a connection.
    fn greeting(&self, kept: Option<Kept<'_>>) -> Frame {
        let login = self.login.as_deref();
        let rooms = login.map(|login| self.known_rooms(login));
        protocol::connected(&Welcome {
            connection_id: &self.outbox.id.to_string(),
            user_id: login.map_or("", |login| &login.user),
            instance: &self.gateway.instance,
            now: Timestamp::now(),
            ping_interval: self.gateway.config.websocket.ping_interval.0,
            places: rooms.as_deref().unwrap_or_default(),
            kept,
        })
    }

    /// The store has said what the connection begins with.
    pub(super) fn opened(
        &mut self,
        opened: Result<Opened, StoreError>,
        resumes: bool,
        shown: (Option<Position>, Option<Position>),
    ) {
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return self.open_without_store(&error, resumes, shown),
        };
        let positions: Vec<_> = opened
            .streams
            .iter()
            .map(|joined| (joined.name.clone(), joined.from))
            .collect();
        let tasks: Vec<_> = opened
            .tasks
            .iter()
            .filter_map(|state| serde_json::from_slice::<&RawValue>(state).ok())
            .collect();
        let greeting = self.greeting(Some(Kept {
            streams: &positions,
            unread: opened.unread,
            tasks: &tasks,
        }));
        self.lead.push_back(greeting);
        let mut results = Vec::new();
        for joined in opened.streams {
            if joined.name.owner().is_some()
                && let Some(login) = &mut self.login
            {
                let proven = joined.missed.first().and_then(Frame::event);
                let proven = proven.map_or(joined.from.seq, |(_, first)| first.seq - 1);
                // What was missed is not written yet, and may never be.
                login.seen = Some(Seen::new(Position {
                    seq: proven,
                    ..joined.from
                }));
            }
            if let Some(recovered) = joined.recovered {
                results.push((joined.name.clone(), joined.from, recovered));
            }
            self.join(joined);
        }
        // Who did not ask learns only what it could not be shown.
        results.retain(|(.., recovered)| resumes || !recovered);
        if resumes || !results.is_empty() {
            let lost = results.iter().filter(|(.., recovered)| !recovered);
            let lost = lost.map(|(name, from, _)| (name.clone(), *from)).collect();
            let frame = protocol::resumed(&results, None).with_start(lost);
            self.lead.push_back(frame);
        }
    }

    /// Live events come all the same; stored ones once the store works again. `shown`: how far the user's
    /// stream and everybody's had been shown here when the client came.
    fn open_without_store(
        &mut self,
        error: &StoreError,
        resumes: bool,
        (own, all): (Option<Position>, Option<Position>),
    ) {
        debug!(%error, "a client is served without what is kept");
        let greeting = self.greeting(None);
        self.lead.push_back(greeting);
        if resumes {
            self.lead.push_back(protocol::not_recovered(None));
        }
        let (Some(streams), Some(login)) = (&self.gateway.streams, &mut self.login) else {
            return;
        };
        let own_name = StreamName::user(&login.user);
        for (name, shown) in [(own_name, own), (StreamName::all(), all)] {
            // Another connection may have learnt since where the stream stands.
            let Some(from) = shown.or_else(|| streams.followed(&name).begun(&name)) else {
                // Who finds it out tells all that wait.
                streams.catch_up(&name);
                continue;
            };
            // Of everybody's stream only who says where he was has missed anything.
            let has_missed = name.owner().is_some() || login.since.get(&name).is_some();
            login.from.set(&name, from);
            if has_missed {
                self.lead.push_back(protocol::stream_reset(&name, from));
            } else if let Some(shown) = &mut login.shown {
                shown.set(&name, from);
            }
        }
    }

    /// From here on the stream comes by itself.
    fn join(&mut self, joined: Joined) {
        let Some(login) = &mut self.login else { return };
        if let Some(seen) = joined.ahead {
            login.ahead.set(&joined.name, seen);
        }
        login.since.remove(&joined.name);
        login.from.set(&joined.name, joined.from);
        if let Some(shown) = &mut login.shown {
            // What was missed is not written yet, and what is lost is not said.
            shown.set(&joined.name, joined.since.unwrap_or(joined.from));
        }
        self.lead.extend(joined.missed);
    }

    /// Goes into a room or chat. `subscribed` comes before anything from there, with the place in its
    /// stream from which that follows, and what was missed after it.
    pub(super) fn go_in(&mut self, place: &Place, id: Option<&Value>, since: Option<Position>) {
        let (gateway, outbox) = (Arc::clone(&self.gateway), Arc::clone(&self.outbox));
        let Some(login) = &mut self.login else { return };
        let Some(streams) = &gateway.streams else {
            outbox.push(protocol::subscribed(place, None, None, id));
            gateway.enter(place, &login.user, &outbox);
            return;
        };
        let name = StreamName::place(place);
        // It was taken out and comes again.
        if login.places.contains(place) {
            streams.followed(&name).unfollow(&name);
        }
        let since = since.or_else(|| login.since.get(&name));
        if let Some(since) = since {
            login.since.set(&name, since);
        }
        let mut is_told = None;
        let shown = streams
            .followed(&name)
            .follow(&name, Instant::now(), |shown| {
                is_told = shown.filter(|_| since.is_none());
                if let Some(position) = is_told {
                    let frame = protocol::subscribed(place, is_told, None, id);
                    outbox.push(frame.with_start(vec![(name.clone(), position)]));
                }
                gateway.enter(place, &login.user, &outbox);
            });
        if let Some(position) = is_told {
            return login.from.set(&name, position);
        }
        let (place, id, asked) = (place.clone(), id.cloned(), Arc::clone(&gateway));
        self.ask_first(async move {
            let since = since.map_or(Since::Unknown, Since::Told);
            let joined = match &asked.streams {
                Some(streams) => join(&asked, streams, name, shown, since).await,
                None => Err(StoreError::Closed),
            };
            Outcome::Entered { place, id, joined }
        });
    }

    /// The store has said where the stream of a room stands.
    pub(super) fn entered(
        &mut self,
        place: &Place,
        id: Option<&Value>,
        joined: Result<Joined, StoreError>,
    ) {
        match joined {
            Ok(joined) => {
                let (from, recovered) = (joined.from, joined.recovered);
                let mut frame = protocol::subscribed(place, Some(from), recovered, id);
                if recovered != Some(true) {
                    frame = frame.with_start(vec![(joined.name.clone(), from)]);
                }
                self.lead.push_back(frame);
                self.join(joined);
            }
            Err(error) => {
                debug!(%error, "a room is entered without what is kept of it");
                let name = StreamName::place(place);
                let had = self
                    .login
                    .as_deref()
                    .and_then(|login| login.since.get(&name));
                let recovered = had.map(|_| false);
                let frame = protocol::subscribed(place, None, recovered, id);
                self.lead.push_back(frame);
                if let Some(streams) = &self.gateway.streams {
                    streams.catch_up(&name);
                }
            }
        }
    }

    /// What was missed of some streams is asked for.
    pub(super) fn resume(&mut self, wanted: Vec<(Audience, Position)>, id: Option<Value>) {
        let gateway = Arc::clone(&self.gateway);
        let (Some(_), Some(login)) = (&gateway.streams, &self.login) else {
            return self.outbox.push(protocol::not_recovered(id.as_ref()));
        };
        let mut known = Vec::new();
        for (audience, since) in wanted {
            if let Some(place) = Place::of(&audience)
                && !self.is_in(&place)
            {
                return self.not_in(&place.to_string(), id.as_ref());
            }
            let name = match audience {
                Audience::User(_) => StreamName::user(&login.user),
                other => match StreamName::of(&other) {
                    Some(name) => name,
                    None => continue,
                },
            };
            let from = login.from.get(&name);
            known.push((name, since, from));
        }
        self.ask_first(async move {
            let resumed = match &gateway.streams {
                Some(streams) => within(replay_all(streams, known)).await,
                None => Err(StoreError::Closed),
            };
            Outcome::Resumed { id, resumed }
        });
    }

    pub(super) fn resumed(&mut self, id: Option<&Value>, resumed: Result<Resumed, StoreError>) {
        let resumed = match resumed {
            Ok(resumed) => resumed,
            Err(error) => {
                debug!(%error, "a client cannot resume");
                return self.lead.push_back(protocol::not_recovered(id));
            }
        };
        let mut results = Vec::new();
        for (name, position, missed) in resumed {
            results.push((name, position, missed.is_some()));
            self.lead.extend(missed.into_iter().flatten());
        }
        self.lead.push_back(protocol::resumed(&results, id));
    }

    /// Everything up to this number has arrived, the client says.
    pub(super) fn ack(&mut self, seq: u64, id: Option<&Value>) {
        let (Some(streams), Some(login)) = (&self.gateway.streams, &self.login) else {
            return self.no_store(id);
        };
        if let Some(seen) = &login.seen {
            let position = Position {
                seq: seq.min(seen.written.seq),
                ..seen.written
            };
            streams
                .leaving
                .move_cursor(StreamName::user(&login.user), position);
        }
        if id.is_some() {
            self.outbox.push(protocol::marked("acked", None, id));
        }
    }

    /// The user has read something.
    pub(super) fn mark_read(&mut self, marked: Marked, id: Option<Value>) {
        let gateway = Arc::clone(&self.gateway);
        let (Some(_), Some(login)) = (&gateway.streams, &self.login) else {
            return self.no_store(id.as_ref());
        };
        let user = login.user.to_string();
        self.ask(async move {
            let marking = inbox::mark(&gateway, user, marked, crate::store::Mark::Read);
            let unread = marking.await.map_err(|error| error.to_string());
            Outcome::Marked { id, unread }
        });
    }

    pub(super) fn marked(&mut self, id: Option<&Value>, unread: Result<u64, String>) {
        match unread {
            Ok(unread) if id.is_some() => {
                self.outbox.push(protocol::marked("read", Some(unread), id));
            }
            Ok(_) => {}
            Err(error) => self.refuse("store_unavailable", &error, id),
        }
    }

    fn no_store(&self, id: Option<&Value>) {
        let message = "nothing is kept here (store.kind = \"none\")";
        self.refuse("no_store", message, id);
    }
}

/// No more of all of them together than of one: they lie in memory until they are written.
async fn replay_all(
    streams: &Streams,
    known: Vec<(StreamName, Position, Option<Position>)>,
) -> Result<Resumed, StoreError> {
    let names = known.iter().map(|(name, ..)| name.clone()).collect();
    let heads: Vec<Head> = streams.store.heads(names).await?;
    let (mut resumed, mut left) = (Vec::new(), Left::ALL);
    for ((name, since, from), head) in known.into_iter().zip(heads) {
        let up_to = from.unwrap_or(head.position());
        let missed = replay(streams, &name, since, up_to, &head, &mut left).await?;
        resumed.push((name, up_to, missed));
    }
    Ok(resumed)
}
