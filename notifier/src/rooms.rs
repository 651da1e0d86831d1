//! Who of this instance is in which room or chat, in shards.
//!
//! A shard's lock is held for a look-up and pushes into outboxes, never over an await.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use crate::outbox::Outbox;
use crate::protocol::{Frame, Place};
use crate::shards::Shards;

/// The rooms and chats that somebody of this instance is in. An empty one is forgotten.
#[derive(Debug)]
pub struct Rooms {
    rooms: Shards<Place, Room>,
}

#[derive(Debug, Default)]
struct Room {
    members: HashMap<Uuid, Member>,
    /// How many connections each user has in it.
    users: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Member {
    user: Arc<str>,
    outbox: Arc<Outbox>,
}

/// What entering a room changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// The connection was in it already.
    Already,
    /// The user was in it on another connection of this instance.
    Another,
    /// The user was not in it on this instance.
    First,
}

/// What leaving a room changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// The connection was not in it (any more).
    Absent,
    /// The user is still in it on another connection of this instance.
    OneOfSeveral,
    /// The user is in it no more on this instance.
    Last,
}

impl Rooms {
    /// Nobody is anywhere.
    #[must_use]
    pub fn new() -> Self {
        let rooms = Shards::new();
        Self { rooms }
    }

    /// Puts a user's connection into a room.
    pub fn enter(&self, place: &Place, user: &Arc<str>, outbox: &Arc<Outbox>) -> Entered {
        let mut shard = self.rooms.lock(place);
        if !shard.contains_key(place) {
            shard.insert(place.clone(), Room::default());
        }
        let Some(room) = shard.get_mut(place) else {
            return Entered::Already;
        };
        let member = Member {
            user: Arc::clone(user),
            outbox: Arc::clone(outbox),
        };
        if room.members.insert(outbox.id, member).is_some() {
            return Entered::Already;
        }
        let connections = room.users.entry(Arc::clone(user)).or_default();
        *connections += 1;
        match *connections {
            1 => Entered::First,
            _ => Entered::Another,
        }
    }

    /// Takes one connection out of a room, and only that.
    #[expect(
        clippy::must_use_candidate,
        reason = "what changed is not always of interest"
    )]
    pub fn leave(&self, place: &Place, id: Uuid) -> Left {
        let mut shard = self.rooms.lock(place);
        let Some(room) = shard.get_mut(place) else {
            return Left::Absent;
        };
        let left = room.remove(id);
        if room.members.is_empty() {
            shard.remove(place);
        }
        left
    }

    /// Takes all of a user's connections out of a room; answers with their outboxes.
    #[must_use]
    pub fn evict(&self, place: &Place, user: &str) -> Vec<Arc<Outbox>> {
        let mut shard = self.rooms.lock(place);
        let Some(room) = shard.get_mut(place) else {
            return Vec::new();
        };
        if room.users.remove(user).is_none() {
            return Vec::new();
        }
        let leaving = room.members.extract_if(|_, member| &*member.user == user);
        let outboxes = leaving.map(|(_, member)| member.outbox).collect();
        if room.members.is_empty() {
            shard.remove(place);
        }
        outboxes
    }

    /// Whether anybody of this instance is in a room. One look-up, so that an event for a room of
    /// other instances costs no more.
    #[must_use]
    pub fn is_here(&self, place: &Place) -> bool {
        self.rooms.lock(place).contains_key(place)
    }

    /// Whether a connection is in a room.
    #[must_use]
    pub fn has(&self, place: &Place, id: Uuid) -> bool {
        let shard = self.rooms.lock(place);
        let room = shard.get(place);
        room.is_some_and(|room| room.members.contains_key(&id))
    }

    /// Whether a user is in a room on a connection of this instance.
    #[must_use]
    pub fn has_user(&self, place: &Place, user: &str) -> bool {
        let shard = self.rooms.lock(place);
        let room = shard.get(place);
        room.is_some_and(|room| room.users.contains_key(user))
    }

    /// The users of this instance in a room.
    #[must_use]
    pub fn users(&self, place: &Place) -> Vec<Arc<str>> {
        let shard = self.rooms.lock(place);
        let users = shard.get(place).map(|room| room.users.keys().cloned());
        users.into_iter().flatten().collect()
    }

    /// How many users of this instance are in a room.
    #[must_use]
    pub fn count(&self, place: &Place) -> usize {
        let shard = self.rooms.lock(place);
        shard.get(place).map_or(0, |room| room.users.len())
    }

    /// How many rooms and chats somebody of this instance is in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rooms.each().map(|shard| shard.len()).sum()
    }

    /// Whether nobody is anywhere.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rooms.each().all(|shard| shard.is_empty())
    }

    /// Every room with its users of this instance, as they are one shard after the other.
    pub fn each(&self, mut visit: impl FnMut(&Place, &mut dyn Iterator<Item = &Arc<str>>)) {
        for shard in self.rooms.each() {
            for (place, room) in &*shard {
                visit(place, &mut room.users.keys());
            }
        }
    }

    /// Where connections are, as it is one shard after the other.
    #[must_use]
    pub fn of_connections(&self, ids: &HashSet<Uuid>) -> HashMap<Uuid, Vec<Place>> {
        let mut found: HashMap<Uuid, Vec<Place>> = HashMap::new();
        if ids.is_empty() {
            return found;
        }
        for shard in self.rooms.each() {
            for (place, room) in &*shard {
                for id in room.members.keys().filter(|id| ids.contains(id)) {
                    found.entry(*id).or_default().push(place.clone());
                }
            }
        }
        found
    }

    /// Gives a frame to everybody in a room; answers how many connections there are.
    pub fn send(&self, place: &Place, frame: &Frame) -> usize {
        let shard = self.rooms.lock(place);
        let Some(room) = shard.get(place) else {
            return 0;
        };
        for member in room.members.values() {
            member.outbox.push(frame.clone());
        }
        room.members.len()
    }

    /// Gives a frame to everybody in a room except one user.
    pub fn send_to_others(&self, place: &Place, user: &str, frame: &Frame) {
        let shard = self.rooms.lock(place);
        let members = shard.get(place).map(|room| room.members.values());
        for member in members.into_iter().flatten() {
            if &*member.user != user {
                member.outbox.push(frame.clone());
            }
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        Self::new()
    }
}

impl Room {
    fn remove(&mut self, id: Uuid) -> Left {
        let Some(member) = self.members.remove(&id) else {
            return Left::Absent;
        };
        if let Some(connections) = self.users.get_mut(&member.user) {
            *connections -= 1;
            if *connections > 0 {
                return Left::OneOfSeveral;
            }
            self.users.remove(&member.user);
        }
        Left::Last
    }
}

#[cfg(test)]
mod tests;
