//! Who is connected, over all instances that share a Redis: this one's connections on their way
//! there, and the question who is connected anywhere. Other stores have one instance, which knows.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::gateway::Gateway;
use crate::protocol::{Place, PlaceKind};
use crate::store::{Connected, Connections, Redis, StoreError};
use crate::streams::catch_up::within;

/// What changes within this time is written together.
const GATHER: Duration = Duration::from_millis(200);

/// After Redis could not.
const RETRY: Duration = Duration::from_secs(1);

/// After so many signs of life all is written again.
const ALL_EVERY: u32 = 3;

/// How many changes may wait. With more, all is written.
const MAX_PENDING: usize = 20_000;

/// How long the last word may take.
const LAST: Duration = Duration::from_secs(2);

/// What the others know of this instance's connections.
#[derive(Debug)]
pub(crate) struct Directory {
    /// This run of this instance.
    me: Uuid,
    redis: Option<Arc<Redis>>,
    pending: Mutex<Pending>,
    changed: Notify,
}

/// Connections that have changed, and whose they are.
#[derive(Debug, Default)]
struct Pending {
    connections: HashMap<Uuid, Arc<str>>,
    all: bool,
}

impl Directory {
    /// In Redis, if that is the store.
    pub(crate) fn new(redis: Option<Arc<Redis>>) -> Self {
        Self {
            me: Uuid::now_v7(),
            redis,
            pending: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// A connection has come, gone, or moved.
    pub(crate) fn note(&self, user: &Arc<str>, id: Uuid) {
        if self.redis.is_none() {
            return;
        }
        let mut pending = self.lock();
        if pending.connections.len() < MAX_PENDING {
            pending.connections.insert(id, Arc::clone(user));
        } else {
            pending.all = true;
        }
        drop(pending);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// How many connections a user has over all instances; with none the user is offline.
    pub(crate) async fn online(&self, user: &str) -> Result<usize, StoreError> {
        let directory = &self.directory;
        let elsewhere = match &directory.redis {
            Some(redis) => within(redis.connections_elsewhere(user, directory.me)).await?,
            None => 0,
        };
        Ok(self.hub.of_user(user).len() + elsewhere)
    }

    /// Connections of a user, or of everybody, over all instances; at most so many.
    pub(crate) async fn connected(
        &self,
        user: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(Uuid, Connected)>, StoreError> {
        let here = match user {
            Some(user) => vec![(user.into(), self.hub.of_user(user))],
            None => self.hub.users(),
        };
        let mut found = self.rows(here.into_iter().take(limit));
        found.truncate(limit);
        let directory = &self.directory;
        if let Some(redis) = &directory.redis {
            let left = limit - found.len();
            found.extend(within(redis.connected_elsewhere(user, directory.me, left)).await?);
        }
        Ok(found)
    }

    fn rows(&self, users: impl Iterator<Item = (Arc<str>, Vec<Uuid>)>) -> Vec<(Uuid, Connected)> {
        let users: Vec<_> = users.collect();
        let ids: HashSet<_> = users.iter().flat_map(|(_, ids)| ids).copied().collect();
        let mut places = self.rooms.of_connections(&ids);
        let mut rows = Vec::with_capacity(ids.len());
        for (user, ids) in users {
            for id in ids {
                let mut places = places.remove(&id).unwrap_or_default();
                places.sort_unstable();
                let of = |kind: PlaceKind| {
                    let places = places.iter().filter(|place: &&Place| place.kind == kind);
                    places.map(|place| place.id.to_string()).collect()
                };
                let connected = Connected {
                    user_id: user.to_string(),
                    since: made_at(id),
                    instance: self.instance.clone(),
                    rooms: of(PlaceKind::Room),
                    chats: of(PlaceKind::Chat),
                };
                rows.push((id, connected));
            }
        }
        rows
    }

    fn all_connections(&self) -> Connections {
        let users = self.hub.users();
        let named = users
            .iter()
            .map(|(user, ids)| (user.to_string(), ids.clone()));
        Connections {
            users: named.collect(),
            connections: self.rows(users.into_iter()),
            gone: Vec::new(),
        }
    }

    /// How it is now with what has changed.
    fn changed_connections(&self, changed: &HashMap<Uuid, Arc<str>>) -> Connections {
        let users: HashSet<&Arc<str>> = changed.values().collect();
        let users = users
            .into_iter()
            .map(|user| (Arc::clone(user), self.hub.of_user(user)));
        let users: Vec<_> = users.collect();
        let here: HashSet<_> = users.iter().flat_map(|(_, ids)| ids).copied().collect();
        let with_changes = users.iter().map(|(user, ids)| {
            let ids = ids.iter().filter(|id| changed.contains_key(id));
            (Arc::clone(user), ids.copied().collect())
        });
        Connections {
            connections: self.rows(with_changes),
            gone: changed
                .keys()
                .filter(|id| !here.contains(id))
                .copied()
                .collect(),
            users: users
                .iter()
                .map(|(user, ids)| (user.to_string(), ids.clone()))
                .collect(),
        }
    }
}

/// A connection's id says when it was made.
fn made_at(id: Uuid) -> Timestamp {
    let made_at = id.get_timestamp().and_then(|time| {
        let (seconds, nanos) = time.to_unix();
        Timestamp::new(seconds.try_into().ok()?, nanos.try_into().ok()?).ok()
    });
    made_at.unwrap_or_default()
}

/// Writes this instance's connections until `stop`, and then that there are none. Without a sign of
/// life they are forgotten after `store.forget_after`.
pub(crate) async fn keep(gateway: Arc<Gateway>, stop: CancellationToken) {
    let directory = &gateway.directory;
    let stays = gateway.config.store.forget_after.0;
    let Some(redis) = &directory.redis else {
        return;
    };
    let mut beat = interval(stays / 3);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut beats, mut pause) = (0, GATHER);
    loop {
        tokio::select! {
            () = directory.changed.notified() => {
                tokio::select! {
                    () = sleep(pause) => {}
                    () = stop.cancelled() => break,
                }
            }
            _ = beat.tick() => {
                // The first comes at once.
                directory.lock().all |= beats % ALL_EVERY == 0;
                beats += 1;
            }
            () = stop.cancelled() => break,
        }
        let is_written = write(&gateway, redis, stays).await;
        pause = if is_written { GATHER } else { RETRY };
        if !is_written {
            directory.lock().all = true;
            directory.changed.notify_one();
        }
    }
    drop(timeout(LAST, redis.forget_connections(directory.me)).await);
}

/// Whether it is written.
async fn write(gateway: &Gateway, redis: &Redis, stays: Duration) -> bool {
    let directory = &gateway.directory;
    // What changes from here on is written the next time.
    let pending = std::mem::take(&mut *directory.lock());
    let now = Timestamp::now();
    let written = if pending.all {
        let all = gateway.all_connections();
        redis
            .put_all_connections(directory.me, all, now, stays)
            .await
    } else {
        let changes = gateway.changed_connections(&pending.connections);
        redis
            .put_connections(directory.me, &changes, now, stays)
            .await
    };
    if let Err(error) = &written {
        warn!(%error, "the other instances do not know yet who is connected here");
    }
    written.is_ok()
}
