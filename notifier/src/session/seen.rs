//! What has been written of the streams, and what is sure to have arrived.

use std::collections::VecDeque;

use super::Session;
use super::login::Login;
use crate::gateway::Gateway;
use crate::protocol::{Frame, Place};
use crate::store::{Position, StreamName};

/// How far a client is in its user's stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// What was written up to here.
    pub(super) written: Position,
    /// The same when the ping went out that is not answered yet.
    pinged: Option<u64>,
    /// What is sure to have arrived: the client has answered a ping that went out later.
    proven: u64,
}

impl Seen {
    pub(super) fn new(written: Position) -> Self {
        Self {
            written,
            pinged: None,
            proven: written.seq,
        }
    }

    /// Something was written. Of another life of the stream nothing that arrived before proves anything.
    fn write(&mut self, position: Position) {
        if position.epoch != self.written.epoch {
            *self = Self {
                written: position,
                pinged: None,
                proven: 0,
            };
        } else if position.seq > self.written.seq {
            self.written = position;
        }
    }

    /// A ping goes out after everything else. While another is not answered, an answer may be for that.
    pub(super) fn ping(&mut self) {
        self.pinged.get_or_insert(self.written.seq);
    }

    /// The client has answered.
    pub(super) fn pong(&mut self) {
        if let Some(pinged) = self.pinged.take() {
            self.proven = pinged;
        }
    }

    /// What is sure to have arrived.
    pub(super) fn proven(&self) -> Position {
        Position {
            seq: self.proven,
            ..self.written
        }
    }
}

impl Session {
    /// The connection is in these streams no more.
    pub(super) fn leave_streams(&self, login: &Login, was_last: bool, arrived: bool) {
        let Some(streams) = &self.gateway.streams else {
            return;
        };
        let own = StreamName::user(&login.user);
        let all = StreamName::all();
        streams.followed(&own).unfollow(&own);
        streams.followed(&all).unfollow(&all);
        for place in &login.places {
            let name = StreamName::place(place);
            streams.followed(&name).unfollow(&name);
        }
        if let Some(seen) = login.seen.as_ref().filter(|_| was_last) {
            let position = if arrived { seen.written } else { seen.proven() };
            streams.leaving.move_cursor(own, position);
        }
    }

    /// The connection has left a room or chat.
    pub(super) fn leave_stream(gateway: &Gateway, login: &mut Login, place: &Place) {
        if let Some(streams) = &gateway.streams {
            let name = StreamName::place(place);
            streams.followed(&name).unfollow(&name);
            login.from.remove(&name);
            login.ahead.remove(&name);
        }
    }

    /// The client has come from an instance that was further on.
    pub(super) fn leave_out_what_was_seen(&mut self, frames: &mut VecDeque<Frame>) {
        let Some(login) = self.login.as_mut().filter(|login| !login.ahead.is_empty()) else {
            return;
        };
        frames.retain(|frame| {
            let Some((name, position)) = frame.event() else {
                return true;
            };
            let Some(seen) = login.ahead.get(name) else {
                return true;
            };
            let is_seen = seen.epoch == position.epoch && position.seq <= seen.seq;
            if !is_seen {
                login.ahead.remove(name);
            }
            !is_seen
        });
    }

    /// How far the user's own stream is among what is written now.
    pub(super) fn last_of_own(&self, frames: &VecDeque<Frame>) -> Option<Position> {
        self.login.as_ref()?.seen?;
        let own = |frame: &Frame| {
            let (name, position) = frame.event()?;
            name.owner().is_some().then_some(position)
        };
        frames.iter().rev().find_map(own)
    }

    pub(super) fn wrote(&mut self, position: Option<Position>) {
        let seen = self.login.as_mut().and_then(|login| login.seen.as_mut());
        if let Some((seen, position)) = seen.zip(position) {
            seen.write(position);
        }
    }

    /// A ping goes out, after all that is written.
    pub(super) fn ping(&mut self) {
        if let Some(seen) = self.login.as_mut().and_then(|login| login.seen.as_mut()) {
            seen.ping();
        }
    }

    pub(super) fn pong(&mut self) {
        if let Some(seen) = self.login.as_mut().and_then(|login| login.seen.as_mut()) {
            seen.pong();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Epoch;

    fn at(seq: u64) -> Position {
        Position {
            epoch: Epoch::new(1),
            seq,
        }
    }

    #[test]
    fn what_arrived_of_one_life_proves_nothing_of_the_next() {
        let mut seen = Seen::new(at(50));
        seen.ping();
        let next = Position {
            epoch: Epoch::new(2),
            seq: 3,
        };
        seen.write(next);
        seen.pong();
        assert_eq!(seen.proven(), Position { seq: 0, ..next });
        seen.write(next);
        seen.ping();
        seen.pong();
        assert_eq!(seen.proven(), next);
    }

    #[test]
    fn an_answer_proves_what_was_written_before_the_oldest_ping() {
        let mut seen = Seen::new(at(1));
        seen.write(at(2));
        seen.pong();
        assert_eq!(seen.proven(), at(1), "nobody has asked");
        seen.ping();
        seen.write(at(3));
        seen.ping();
        seen.pong();
        assert_eq!(seen.proven(), at(2), "the second ping is not answered");
        seen.pong();
        assert_eq!(seen.proven(), at(2));
        seen.ping();
        seen.pong();
        assert_eq!(seen.proven(), at(3));
    }
}
