//! The connection: made when it is first needed, made anew when it is lost, and never waited for
//! longer than [`PATIENCE`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, InfoDict, Pipeline, RedisError,
    ServerErrorKind,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::keys::routines;
use crate::store::StoreError;

/// How long an answer may take, with the connection that it may need first.
const PATIENCE: Duration = Duration::from_secs(5);

/// The first version with all that we use.
const OLDEST: (u32, u32) = (6, 2);

/// What a server does that must not throw keys away.
const KEEPS_ALL: &str = "noeviction";

pub(super) struct Link {
    client: Client,
    current: Mutex<Option<Connection>>,
    pub(super) patience: Duration,
}

#[derive(Clone)]
struct Connection {
    inner: MultiplexedConnection,
    is_lost: Arc<AtomicBool>,
}

/// The URL may hold a password.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Does not connect yet.
    pub(super) fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self {
            client: Client::open(url).map_err(StoreError::Url)?,
            current: Mutex::new(None),
            patience: PATIENCE,
        })
    }

    /// Sends commands together; their answers. One that fails does not stop those after it.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.patience;
        let late = |_| StoreError::Timeout(self.patience);
        let connecting = timeout_at(deadline, self.connection());
        let connection = connecting.await.map_err(late)??;
        let asked = timeout_at(deadline, ask(connection.inner, commands)).await;
        let is_lost = asked
            .as_ref()
            .map_or(true, |answer| answer.as_ref().is_err_and(is_lost));
        if is_lost {
            connection.is_lost.store(true, Ordering::Relaxed);
        }
        Ok(asked.map_err(late)??)
    }

    /// The one there is, or a new one.
    async fn connection(&self) -> Result<Connection, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &*current
            && !connection.is_lost.load(Ordering::Relaxed)
        {
            return Ok(connection.clone());
        }
        *current = None;
        // Who asks has a deadline already.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None);
        let connecting = self
            .client
            .get_multiplexed_async_connection_with_config(&config);
        let mut inner = connecting.await?;
        check(&mut inner).await?;
        load(&mut inner).await?;
        let connection = Connection {
            inner,
            is_lost: Arc::default(),
        };
        *current = Some(connection.clone());
        Ok(connection)
    }
}

async fn ask<T: FromRedisValue>(
    mut connection: MultiplexedConnection,
    commands: &Pipeline,
) -> Result<T, RedisError> {
    match commands.query_async(&mut connection).await {
        // Somebody flushed the scripts, or there is another server behind the same address.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
            load(&mut connection).await?;
            commands.query_async(&mut connection).await
        }
        answer => answer,
    }
}

async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    for routine in routines() {
        routine.script().load_async(connection).await?;
    }
    Ok(())
}

/// Whether another connection may do better: also where this one leads to a server that has become
/// a replica.
fn is_lost(error: &RedisError) -> bool {
    let is_replica = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
    error.is_io_error() || error.is_unrecoverable_error() || is_replica
}

/// Refuses a server that cannot be the store, and warns of one that may lose what it holds.
async fn check(connection: &mut MultiplexedConnection) -> Result<(), StoreError> {
    let info: InfoDict = redis::cmd("INFO").query_async(connection).await?;
    let text = |name| info.get::<String>(name).unwrap_or_default();
    let version = text("redis_version");
    if !is_new_enough(&version) {
        let (major, minor) = OLDEST;
        let what =
            format!("it has version {version}, and {major}.{minor} is the oldest that can be");
        return Err(StoreError::Unfit(what));
    }
    if text("cluster_enabled") == "1" {
        let mut cluster = redis::cmd("CLUSTER");
        let state: InfoDict = cluster.arg("INFO").query_async(connection).await?;
        let size: u32 = state.get("cluster_size").unwrap_or_default();
        if size > 1 {
            let what =
                format!("it is one of {size} primaries of a cluster, and all keys must be in one");
            return Err(StoreError::Unfit(what));
        }
    }
    let policy = text("maxmemory_policy");
    if policy != KEEPS_ALL {
        tracing::warn!(
            policy,
            "Redis may throw events away when its memory is full; set its maxmemory-policy to {KEEPS_ALL}"
        );
    }
    Ok(())
}

/// A version that is not understood is none that was released.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_told_by_their_version() {
        for version in ["6.2.0", "6.10.1", "7.0.15", "7.2.4", "8.0-rc1.1", "10.0.0"] {
            assert!(
                is_new_enough(version) || version.contains("rc"),
                "{version}"
            );
        }
        for version in ["", "6", "6.0.9", "5.9.9", "redis"] {
            assert!(!is_new_enough(version), "{version}");
        }
    }
}
