//! Who is connected: users and their connections, in shards.
//!
//! A shard's lock is held for a look-up and pushes into outboxes, never over an await.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use uuid::Uuid;

use crate::outbox::Outbox;
use crate::protocol::Frame;
use crate::protocol::close::REPLACED;
use crate::shards::Shards;

/// The connections of this instance.
#[derive(Debug)]
pub struct Hub {
    /// Connections by user, oldest first.
    users: Shards<Arc<str>, Vec<Arc<Outbox>>>,
    per_user: usize,
    connections: AtomicUsize,
}

/// What adding a connection changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// It is the user's first on this instance.
    pub first: bool,
    /// An older one was closed to make room.
    pub replaced: bool,
}

/// What removing a connection changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// It was not there (any more): a newer one has replaced it.
    Absent,
    /// The user has others.
    OneOfSeveral,
    /// It was the user's last on this instance.
    Last,
}

impl Hub {
    /// An empty hub that lets a user have `per_user` connections.
    #[must_use]
    pub fn new(per_user: usize) -> Self {
        Self {
            users: Shards::new(),
            per_user: per_user.max(1),
            connections: AtomicUsize::new(0),
        }
    }

    /// Adds a connection. Beyond the user's limit the oldest is closed as replaced; its own task
    /// sees that, ends, and later removes its own id, not this one.
    pub fn add(&self, user: &Arc<str>, connection: Arc<Outbox>) -> Added {
        let mut shard = self.users.lock(user);
        let connections = shard.entry(Arc::clone(user)).or_default();
        let first = connections.is_empty();
        connections.push(connection);
        let replaced = (connections.len() > self.per_user).then(|| connections.remove(0));
        drop(shard);
        match &replaced {
            Some(oldest) => oldest.close(REPLACED),
            None => {
                self.connections.fetch_add(1, Ordering::Relaxed);
            }
        }
        Added {
            first,
            replaced: replaced.is_some(),
        }
    }

    /// Removes one connection of a user by its id, and only that.
    pub fn remove(&self, user: &str, id: Uuid) -> Removed {
        let mut shard = self.users.lock(user);
        let Some(connections) = shard.get_mut(user) else {
            return Removed::Absent;
        };
        let Some(index) = connections
            .iter()
            .position(|connection| connection.id == id)
        else {
            return Removed::Absent;
        };
        connections.remove(index);
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if connections.is_empty() {
            shard.remove(user);
            return Removed::Last;
        }
        Removed::OneOfSeveral
    }

    /// Whether a user is connected here. One look-up, so that events for others cost no more.
    #[must_use]
    pub fn is_here(&self, user: &str) -> bool {
        self.users.lock(user).contains_key(user)
    }

    /// Gives a frame to every connection of a user; answers how many there are.
    pub fn send_to_user(&self, user: &str, frame: &Frame) -> usize {
        let shard = self.users.lock(user);
        let connections = shard.get(user).map(Vec::as_slice).unwrap_or_default();
        for connection in connections {
            connection.push(frame.clone());
        }
        connections.len()
    }

    /// Gives a frame to every connection; answers how many there are.
    pub fn send_to_all(&self, frame: &Frame) -> usize {
        let mut sent = 0;
        self.each(|connection| {
            connection.push(frame.clone());
            sent += 1;
        });
        sent
    }

    /// The ids of a user's connections, oldest first.
    #[must_use]
    pub fn of_user(&self, user: &str) -> Vec<Uuid> {
        let shard = self.users.lock(user);
        let connections = shard.get(user).into_iter().flatten();
        connections.map(|connection| connection.id).collect()
    }

    /// Every user with the ids of his connections, as they are one shard after the other.
    #[must_use]
    pub fn users(&self) -> Vec<(Arc<str>, Vec<Uuid>)> {
        let mut users = Vec::new();
        for shard in self.users.each() {
            users.extend(shard.iter().map(|(user, connections)| {
                let ids = connections.iter().map(|connection| connection.id);
                (Arc::clone(user), ids.collect())
            }));
        }
        users
    }

    /// Has every connection of a user see whether its login still holds.
    pub fn review_user(&self, user: &str) {
        for connection in self.users.lock(user).get(user).into_iter().flatten() {
            connection.review();
        }
    }

    /// Every connection, as they are one shard after the other.
    pub fn each(&self, mut visit: impl FnMut(&Arc<Outbox>)) {
        for shard in self.users.each() {
            shard.values().flatten().for_each(&mut visit);
        }
    }

    /// How many connections there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether nobody is connected.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Next;
    use futures_util::FutureExt as _;
    use std::collections::BTreeMap;

    fn connection(n: u128) -> Arc<Outbox> {
        Outbox::new(Uuid::from_u128(n), 1 << 20)
    }

    fn frame(text: &str) -> Frame {
        Frame::new(text)
    }

    #[test]
    fn the_old_connections_late_cleanup_leaves_the_new_one_registered() {
        let (hub, ann) = (Hub::new(1), Arc::from("ann"));
        let (old, new) = (connection(1), connection(2));
        assert_eq!(
            hub.add(&ann, Arc::clone(&old)),
            Added {
                first: true,
                replaced: false
            }
        );
        let added = hub.add(&ann, Arc::clone(&new));
        assert!(added.replaced && !added.first);
        assert!(matches!(
            old.next().now_or_never(),
            Some(Next::Close(_, REPLACED))
        ));
        assert_eq!(hub.remove("ann", old.id), Removed::Absent);
        assert_eq!(hub.len(), 1);
        assert_eq!(hub.send_to_user("ann", &frame("x")), 1);
        assert!(matches!(new.next().now_or_never(), Some(Next::Write(_))));
        assert_eq!(hub.remove("ann", new.id), Removed::Last);
        assert!(hub.is_empty() && !hub.is_here("ann"));
    }

    /// Random joins, leaves and sends against a simple model.
    #[test]
    fn deliveries_are_those_of_the_model() {
        const LIMIT: usize = 3;
        let mut draw = crate::testing::random();
        let hub = Hub::new(LIMIT);
        let users: Vec<Arc<str>> = (0..5).map(|n| Arc::from(format!("u{n}"))).collect();
        let mut model: BTreeMap<usize, Vec<Uuid>> = BTreeMap::new();
        let mut outboxes = BTreeMap::new();
        for step in 0..5_000_u128 {
            let user = usize::try_from(draw(5)).unwrap();
            let here = model.entry(user).or_default();
            match draw(3) {
                0 => {
                    let new = connection(step);
                    let added = hub.add(&users[user], Arc::clone(&new));
                    assert_eq!(added.first, here.is_empty());
                    here.push(new.id);
                    if here.len() > LIMIT {
                        here.remove(0);
                    }
                    outboxes.insert(new.id, new);
                }
                1 if !here.is_empty() => {
                    let at = usize::try_from(draw(here.len() as u64)).unwrap();
                    let id = here.remove(at);
                    let wants = if here.is_empty() {
                        Removed::Last
                    } else {
                        Removed::OneOfSeveral
                    };
                    assert_eq!(hub.remove(&users[user], id), wants);
                    assert_eq!(hub.remove(&users[user], id), Removed::Absent);
                }
                _ => {
                    let text = step.to_string();
                    assert_eq!(hub.send_to_user(&users[user], &frame(&text)), here.len());
                    for (id, outbox) in &outboxes {
                        let got = outbox.next().now_or_never();
                        let is_write = matches!(got, Some(Next::Write(_)));
                        assert_eq!(is_write, here.contains(id), "step {step}");
                    }
                }
            }
            assert_eq!(hub.len(), model.values().map(Vec::len).sum::<usize>());
        }
    }
}
