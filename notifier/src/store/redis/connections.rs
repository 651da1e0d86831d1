//! Who is connected to which instance. An instance says so again and again, or is forgotten.
//!
//! Here a part of it may be lost: the instance writes all again once a minute.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use redis::Pipeline;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::keys::{self, Slot};
use super::{Redis, StoreError};

/// How many connections, or users, go into one command.
const PART: usize = 500;

/// How long the name of an instance that is gone may stay.
const NAMES_STAY: Duration = Duration::from_hours(1);

/// A connection, as it is known everywhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connected {
    /// Whose it is.
    pub user_id: String,
    /// Since when.
    pub since: Timestamp,
    /// The name of its instance.
    pub instance: String,
    /// The rooms it is in.
    pub rooms: Vec<String>,
    /// The chats it is in.
    pub chats: Vec<String>,
}

/// What an instance has of some users, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Connections {
    /// Connections.
    pub connections: Vec<(Uuid, Connected)>,
    /// Those that are gone.
    pub gone: Vec<Uuid>,
    /// Users with all of their connections; none for a user who is gone.
    pub users: Vec<(String, Vec<Uuid>)>,
}

/// The keys of one run of an instance.
struct Keys {
    name: String,
    connections: String,
    users: String,
}

impl Redis {
    /// Takes in what has changed on an instance, and knows all it has for so long.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not do it; a part may be done.
    pub async fn put_connections(
        &self,
        instance: Uuid,
        changes: &Connections,
        now: Timestamp,
        stays: Duration,
    ) -> Result<(), StoreError> {
        let keys = self.keys_of(instance);
        for part in changes.connections.chunks(PART) {
            let mut set = redis::cmd("HSET");
            set.arg(&keys.connections);
            for (id, connected) in part {
                let row = serde_json::to_string(connected).unwrap_or_default();
                set.arg(id.to_string()).arg(row);
            }
            self.ask::<u64>(set).await?;
        }
        self.remove(&keys.connections, changes.gone.iter().map(Uuid::to_string))
            .await?;
        let (here, gone): (Vec<_>, Vec<_>) =
            changes.users.iter().partition(|(_, ids)| !ids.is_empty());
        for part in here.chunks(PART) {
            let mut set = redis::cmd("HSET");
            set.arg(&keys.users);
            for (user, ids) in part {
                let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
                set.arg(user).arg(ids.join(" "));
            }
            self.ask::<u64>(set).await?;
        }
        self.remove(&keys.users, gone.into_iter().map(|(user, _)| user.clone()))
            .await?;
        self.keep_known(&keys, now, stays).await
    }

    /// The same with all that the instance has; what else was known of it is forgotten.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not do it; a part may be done.
    pub async fn put_all_connections(
        &self,
        instance: Uuid,
        mut all: Connections,
        now: Timestamp,
        stays: Duration,
    ) -> Result<(), StoreError> {
        let keys = self.keys_of(instance);
        let here: HashSet<Uuid> = all.connections.iter().map(|(id, _)| *id).collect();
        let known = self.fields(&keys.connections).await?;
        let known = known.iter().filter_map(|id| id.parse().ok());
        all.gone = known.filter(|id| !here.contains(id)).collect();
        let here: HashSet<&str> = all.users.iter().map(|(user, _)| &**user).collect();
        let mut gone = self.fields(&keys.users).await?;
        gone.retain(|user| !here.contains(&**user));
        all.users
            .extend(gone.into_iter().map(|user| (user, Vec::new())));
        let oldest = now.as_millisecond() - millis(NAMES_STAY);
        let mut forget = redis::cmd("ZREMRANGEBYSCORE");
        forget
            .arg(keys::instances(&self.prefix))
            .arg("-inf")
            .arg(oldest);
        self.ask::<u64>(forget).await?;
        self.put_connections(instance, &all, now, stays).await
    }

    /// Forgets an instance that stops.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not do it.
    pub async fn forget_connections(&self, instance: Uuid) -> Result<(), StoreError> {
        let keys = self.keys_of(instance);
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DEL").arg(&keys.connections).arg(&keys.users);
        pipeline
            .cmd("ZREM")
            .arg(keys::instances(&self.prefix))
            .arg(&keys.name);
        let (_, _): (u64, u64) = self.link.ask(&pipeline).await?;
        Ok(())
    }

    /// How many connections a user has on all instances but one.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not answer.
    pub async fn connections_elsewhere(&self, user: &str, but: Uuid) -> Result<usize, StoreError> {
        let found = self.ids_elsewhere(user, but).await?;
        Ok(found.iter().map(|(_, ids)| ids.len()).sum())
    }

    /// A user's connections, or everybody's, on all instances but one; at most so many.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not answer.
    pub async fn connected_elsewhere(
        &self,
        user: Option<&str>,
        but: Uuid,
        limit: usize,
    ) -> Result<Vec<(Uuid, Connected)>, StoreError> {
        let mut rows = BTreeMap::new();
        if let Some(user) = user {
            for (keys, ids) in self.ids_elsewhere(user, but).await? {
                let mut get = redis::cmd("HMGET");
                get.arg(&keys.connections).arg(&ids);
                let found: Vec<Option<String>> = self.ask(get).await?;
                let found = ids.into_iter().zip(found);
                rows.extend(found.filter_map(|(id, row)| Some((id, row?))));
            }
        } else {
            for keys in self.instances_but(but).await? {
                self.scan(&keys.connections, limit, &mut rows).await?;
            }
        }
        // What another version writes may not be understood.
        let read = |(id, row): (String, String)| {
            Some((id.parse().ok()?, serde_json::from_str(&row).ok()?))
        };
        Ok(rows.into_iter().filter_map(read).take(limit).collect())
    }

    /// Adds rows of a hash until there are so many. Redis may show one twice.
    async fn scan(
        &self,
        key: &str,
        limit: usize,
        rows: &mut BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        let mut cursor = 0;
        while rows.len() < limit {
            let mut scan = redis::cmd("HSCAN");
            scan.arg(key).arg(cursor).arg("COUNT").arg(PART);
            let (next, found): (u64, Vec<(String, String)>) = self.ask(scan).await?;
            rows.extend(found);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The ids of a user's connections on each other instance that has some.
    async fn ids_elsewhere(
        &self,
        user: &str,
        but: Uuid,
    ) -> Result<Vec<(Keys, Vec<String>)>, StoreError> {
        let instances = self.instances_but(but).await?;
        let calls = instances.iter().map(|keys| {
            let mut get = redis::cmd("HGET");
            get.arg(&keys.users).arg(user);
            get
        });
        let found: Vec<Option<String>> = self.ask_each(calls).await?;
        let found = instances.into_iter().zip(found);
        let found = found.filter_map(|(keys, ids)| {
            let ids = ids?.split(' ').map(str::to_owned).collect();
            Some((keys, ids))
        });
        Ok(found.collect())
    }

    async fn instances_but(&self, but: Uuid) -> Result<Vec<Keys>, StoreError> {
        let mut all = redis::cmd("ZRANGE");
        all.arg(keys::instances(&self.prefix)).arg(0).arg(-1);
        let names: Vec<String> = self.ask(all).await?;
        let ids = names.iter().filter_map(|name| name.parse().ok());
        let ids = ids.filter(|id| *id != but);
        Ok(ids.map(|id| self.keys_of(id)).collect())
    }

    /// Whether it is forgotten is for Redis's clock to say, so that those of the instances need not
    /// agree.
    async fn keep_known(
        &self,
        keys: &Keys,
        now: Timestamp,
        stays: Duration,
    ) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        for key in [&keys.connections, &keys.users] {
            pipeline.cmd("PEXPIRE").arg(key).arg(millis(stays));
        }
        pipeline.cmd("ZADD").arg(keys::instances(&self.prefix));
        pipeline.arg(now.as_millisecond()).arg(&keys.name);
        let (_, _, _): (u64, u64, u64) = self.link.ask(&pipeline).await?;
        Ok(())
    }

    async fn remove(
        &self,
        key: &str,
        fields: impl Iterator<Item = String>,
    ) -> Result<(), StoreError> {
        let fields: Vec<_> = fields.collect();
        for part in fields.chunks(PART) {
            let mut remove = redis::cmd("HDEL");
            remove.arg(key).arg(part);
            self.ask::<u64>(remove).await?;
        }
        Ok(())
    }

    async fn fields(&self, key: &str) -> Result<Vec<String>, StoreError> {
        let mut all = redis::cmd("HKEYS");
        all.arg(key);
        self.ask(all).await
    }

    fn keys_of(&self, instance: Uuid) -> Keys {
        let slot = Slot::new(&self.prefix, &format!("instance:{instance}"));
        Keys {
            name: instance.to_string(),
            connections: slot.key("connections"),
            users: slot.key("users"),
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
