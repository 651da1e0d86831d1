//! A cluster: each command goes to the server that has its slot, wherever that is now.
//!
//! The connection knows who has which slots, learns of changes from what servers answer (`MOVED`,
//! `ASK`), and tries again what was not answered. So a command may be done twice: all that we send are
//! such that this does no harm.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::ConnectionLike;
use redis::cluster::{ClusterClient, NodeAddress};
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{
    MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, Slot, SlotAddr,
};
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue as _, InfoDict, Pipeline,
    RedisError, RedisFuture, ServerErrorKind, Value,
};

use super::{fitness, keys};
use crate::store::StoreError;

/// How long a server may take to be connected to. The others are not asked meanwhile, and it comes more
/// than once while one is away, so this is a fraction of what an answer may take.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a server may take to answer one try: shorter than we wait for the answer, so that one which
/// hangs is found out in time.
const ANSWER: Duration = Duration::from_secs(2);

/// Between tries, in milliseconds; 16 tries take about 2.5 s.
const PAUSE: (u64, u64) = (10, 400);

#[derive(Clone)]
pub(super) struct Cluster {
    connection: ClusterConnection,
}

/// A command, and its place in the question.
type Placed<'a> = (usize, &'a Cmd);

impl Cluster {
    /// Connects to all servers of a cluster that some of them name; where they are.
    pub(super) async fn connect(
        named: &[ConnectionInfo],
        known: &[ConnectionInfo],
    ) -> Result<(Self, Vec<ConnectionInfo>), StoreError> {
        let is_socket = |server: &&ConnectionInfo| matches!(server.addr(), ConnectionAddr::Unix(_));
        if let Some(server) = named.iter().find(is_socket) {
            let what = format!(
                "{} leads to a server of a cluster, and not to the others; name some of them in store.url, \
                 such as redis://10.0.0.1:7000,redis://10.0.0.2:7000",
                server.addr()
            );
            return Err(StoreError::Unfit(what));
        }
        let client = ClusterClient::builder(named.iter().chain(known).cloned())
            .connection_timeout(CONNECT)
            .response_timeout(ANSWER)
            .overall_response_timeout(None)
            .min_retry_wait(PAUSE.0)
            .max_retry_wait(PAUSE.1)
            .build()?;
        let connecting = client.get_async_connection().await;
        let mut connection = connecting.map_err(|error| no_cluster(error, named))?;
        let everywhere = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllNodes, None));
        let infos = connection.route_command(redis::cmd("INFO"), everywhere);
        let infos = HashMap::<String, InfoDict>::from_redis_value(infos.await?.extract_error()?);
        let infos = infos.map_err(RedisError::from)?;
        for (place, info) in &infos {
            fitness::check(info, place)?;
        }
        let nodes = infos.keys().filter_map(|place| at(place, named.first()?));
        Ok((Self { connection }, nodes.collect()))
    }

    /// Asks the slots of some commands, each for itself.
    async fn ask_slots(&self, commands: &[Placed<'_>]) -> Result<Vec<(usize, Value)>, RedisError> {
        let mut slots: HashMap<Slot, Vec<Placed<'_>>> = HashMap::new();
        for &(place, command) in commands {
            let key = keys::key_of(command).unwrap_or_default();
            let slot = slots.entry(Slot::for_key(key)).or_default();
            slot.push((place, command));
        }
        let asked = slots.into_iter().map(|(slot, commands)| async move {
            let mut connection = self.connection.clone();
            let mut answers = Vec::with_capacity(commands.len());
            for (place, command) in commands {
                answers.push((place, ask(&mut connection, slot, command).await?));
            }
            Ok(answers)
        });
        // Those that can be done are done, although another fails.
        let answers = join_all(asked).await.into_iter();
        let answers = answers.collect::<Result<Vec<_>, RedisError>>()?;
        Ok(answers.into_iter().flatten().collect())
    }
}

/// Alone, because after `ASK` a server takes one command and no more, and so that of several only what
/// was not answered is sent again.
async fn ask(
    connection: &mut ClusterConnection,
    slot: Slot,
    command: &Cmd,
) -> Result<Value, RedisError> {
    let server = Route::with_slot(slot, SlotAddr::Master);
    let server = || RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(server));
    let mut answer = connection.route_command(command.clone(), server()).await?;
    if let Value::ServerError(error) = &answer
        && error.kind() == Some(ServerErrorKind::NoScript)
        && let Some(in_full) = keys::in_full(command)
    {
        answer = connection.route_command(in_full, server()).await?;
    }
    answer.extract_error()
}

/// Commands of one slot are done in their order, those of several at the same time. Only what lists
/// streams or instances waits for all others, as it has to come after what it lists.
impl ConnectionLike for Cluster {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answers = self.ask_slots(&[(0, command)]).await?;
            let answer = answers.into_iter().next();
            Ok(answer.map_or(Value::Nil, |(_, answer)| answer))
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        _offset: usize,
        _count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        let is_list = |(_, command): &Placed<'_>| keys::is_list(command);
        let commands = pipeline.cmd_iter().enumerate();
        let (lists, others): (Vec<_>, Vec<_>) = commands.partition(is_list);
        Box::pin(async move {
            let mut answers = self.ask_slots(&others).await?;
            answers.extend(self.ask_slots(&lists).await?);
            answers.sort_unstable_by_key(|(place, _)| *place);
            Ok(answers.into_iter().map(|(_, answer)| answer).collect())
        })
    }

    fn get_db(&self) -> i64 {
        0
    }
}

/// Another server of the cluster: with the user, the password and the TLS of one that is named.
fn at(place: &str, named: &ConnectionInfo) -> Option<ConnectionInfo> {
    let place = NodeAddress::try_from(place).ok()?;
    let mut address = named.addr().clone();
    match &mut address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            place.host().clone_into(host);
            *port = place.port();
        }
        _ => return None,
    }
    Some(named.clone().set_addr(address))
}

/// Where several are named, nobody has asked yet whether they are a cluster.
fn no_cluster(error: RedisError, named: &[ConnectionInfo]) -> StoreError {
    let is_response = error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError);
    let says_so = |detail: &str| detail.contains("cluster support disabled");
    if is_response && error.detail().is_some_and(says_so) {
        let named: Vec<_> = named
            .iter()
            .map(|server| server.addr().to_string())
            .collect();
        let what = format!(
            "store.url names several ({}), and they are no cluster: name one",
            named.join(", ")
        );
        return StoreError::Unfit(what);
    }
    error.into()
}
