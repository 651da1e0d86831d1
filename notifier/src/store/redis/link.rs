//! The connection: made when it is first needed, made anew when it is lost, and never waited for
//! longer than [`PATIENCE`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, FromRedisValue, InfoDict, Pipeline,
    RedisError, ServerErrorKind,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};

use super::cluster::Cluster;
use super::fitness;
use super::keys::routines;
use crate::store::StoreError;

/// How long an answer may take, with the connection that it may need first.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Link {
    /// One server, or some of a cluster's.
    named: Vec<ConnectionInfo>,
    current: Mutex<Current>,
    pub(super) patience: Duration,
}

#[derive(Default)]
struct Current {
    connection: Option<Connection>,
    /// The servers of the cluster when we last saw it: it is found by them when those that are named
    /// are gone.
    nodes: Vec<ConnectionInfo>,
}

#[derive(Clone)]
struct Connection {
    way: Way,
    is_lost: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Way {
    Server(MultiplexedConnection),
    Cluster(Cluster),
}

/// The URLs may hold passwords.
impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Does not connect yet.
    pub(super) fn open(urls: &str) -> Result<Self, StoreError> {
        let named = each(urls).into_iter();
        let named = named.map(|url| Ok(Client::open(url)?.get_connection_info().clone()));
        let named: Vec<_> = named.collect::<Result<_, _>>().map_err(StoreError::Url)?;
        if named.len() > 1 {
            // They have to agree on the user, the password and TLS.
            ClusterClient::new(named.iter().cloned()).map_err(StoreError::Url)?;
        }
        Ok(Self {
            named,
            current: Mutex::default(),
            patience: PATIENCE,
        })
    }

    /// Sends commands together; their answers. One that fails does not stop those after it, but for
    /// those of the same slot in a [`Cluster`].
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        commands: &Pipeline,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.patience;
        let late = |_| StoreError::Timeout(self.patience);
        let connecting = timeout_at(deadline, self.connection());
        let connection = connecting.await.map_err(late)??;
        let asked = timeout_at(deadline, connection.way.ask(commands)).await;
        let is_lost = asked
            .as_ref()
            .map_or(true, |answer| answer.as_ref().is_err_and(is_lost));
        if is_lost {
            connection.is_lost.store(true, Ordering::Relaxed);
        }
        Ok(asked.map_err(late)??)
    }

    /// Whether only what is in one slot can be changed in one step.
    pub(super) async fn is_cluster(&self) -> Result<bool, StoreError> {
        let connecting = timeout(self.patience, self.connection()).await;
        let connection = connecting.map_err(|_| StoreError::Timeout(self.patience))??;
        Ok(matches!(connection.way, Way::Cluster(_)))
    }

    /// The one there is, or a new one.
    async fn connection(&self) -> Result<Connection, StoreError> {
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection
            && !connection.is_lost.load(Ordering::Relaxed)
        {
            return Ok(connection.clone());
        }
        current.connection = None;
        let connecting = self.connect(&current.nodes).await;
        if let Err(StoreError::Unfit(_)) = &connecting {
            // Where a cluster was, there may be a single server now.
            current.nodes.clear();
        }
        let (way, nodes) = connecting?;
        let connection = Connection {
            way,
            is_lost: Arc::default(),
        };
        *current = Current {
            connection: Some(connection.clone()),
            nodes,
        };
        Ok(connection)
    }

    /// Whether it is one server or a cluster is for the server to say.
    async fn connect(
        &self,
        nodes: &[ConnectionInfo],
    ) -> Result<(Way, Vec<ConnectionInfo>), StoreError> {
        if let ([server], []) = (&*self.named, nodes)
            && let Some(connection) = connect_to(server).await?
        {
            return Ok((Way::Server(connection), Vec::new()));
        }
        let (cluster, nodes) = Cluster::connect(&self.named, nodes).await?;
        Ok((Way::Cluster(cluster), nodes))
    }
}

/// The addresses in a list with commas between them. A password may have commas, too.
fn each(urls: &str) -> Vec<String> {
    let mut each: Vec<String> = Vec::new();
    for piece in urls.split(',') {
        match each.last_mut() {
            Some(url) if !piece.contains("://") => {
                url.push(',');
                url.push_str(piece);
            }
            _ => each.push(piece.trim().to_owned()),
        }
    }
    each
}

/// Connects to a server that has all keys; `None` if it is one of a cluster.
async fn connect_to(server: &ConnectionInfo) -> Result<Option<MultiplexedConnection>, StoreError> {
    // Who asks has a deadline already.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None);
    let client = Client::open(server.clone())?;
    let connecting = client.get_multiplexed_async_connection_with_config(&config);
    let mut connection = connecting.await?;
    let info: InfoDict = redis::cmd("INFO").query_async(&mut connection).await?;
    if fitness::is_in_cluster(&info) {
        return Ok(None);
    }
    fitness::check(&info, &server.addr().to_string())?;
    load(&mut connection).await?;
    Ok(Some(connection))
}

impl Way {
    async fn ask<T: FromRedisValue>(self, commands: &Pipeline) -> Result<T, RedisError> {
        let mut server = match self {
            Self::Cluster(mut cluster) => return commands.query_async(&mut cluster).await,
            Self::Server(server) => server,
        };
        match commands.query_async(&mut server).await {
            // Somebody flushed the scripts, or there is another server behind the same address.
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                load(&mut server).await?;
                commands.query_async(&mut server).await
            }
            answer => answer,
        }
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
