//! Clusters that go with their test.

use std::net::TcpListener;
use std::sync::{Arc, Weak};

use redis::FromRedisValue;
use redis::cluster_routing::Slot as HashSlot;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::server::{Server, store_at};
use crate::store::redis::Redis;

/// A cluster takes two seconds before it begins, so there is one for all cases that leave it as it is.
static SHARED: Mutex<Weak<Cluster>> = Mutex::const_new(Weak::new());

/// How many slots a cluster has.
const SLOTS: usize = 16_384;

/// A server of a cluster, and where others reach it.
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) port: u16,
    pub(super) id: String,
}

/// Primaries that share the slots, and perhaps replicas after them.
pub(super) struct Cluster {
    pub(super) nodes: Vec<Node>,
    primaries: usize,
}

impl Node {
    async fn start(options: &[&str]) -> Self {
        let port = free_port().to_string();
        let own = ["--port", &port, "--cluster-enabled", "yes"];
        let server = Server::start(&[&own, options].concat()).await;
        let id = server.ask("CLUSTER MYID").await.unwrap();
        let port = port.parse().unwrap();
        Self { server, port, id }
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &str) -> T {
        self.server.ask(command).await.unwrap()
    }

    /// Waits until a script that is called is not done here: it shall be tried again, or elsewhere.
    pub(super) async fn sends_scripts_away(&self) {
        self.ask::<()>("CONFIG RESETSTAT").await;
        let is_away = |line: &str| {
            line.starts_with("cmdstat_evalsha:") && !line.contains("rejected_calls=0,")
        };
        let are_sent = |answer: &str| answer.lines().any(is_away);
        self.server.until("INFO commandstats", are_sent).await;
    }
}

impl Cluster {
    pub(super) async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(cluster) = shared.upgrade() {
            return cluster;
        }
        let cluster = Arc::new(Self::start(3, &[]).await);
        *shared = Arc::downgrade(&cluster);
        cluster
    }

    pub(super) async fn start(primaries: usize, options: &[&str]) -> Self {
        let mut cluster = Self {
            nodes: Vec::new(),
            primaries,
        };
        for number in 0..primaries {
            cluster.join(options).await;
            // One by one: `ADDSLOTSRANGE` is of Redis 7.
            let slots = SLOTS * number / primaries..SLOTS * (number + 1) / primaries;
            let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
            let add = format!("CLUSTER ADDSLOTS {}", slots.join(" "));
            cluster.nodes[number].ask::<()>(&add).await;
        }
        cluster.is_complete().await;
        cluster
    }

    /// Adds a replica of a primary, and waits until it has all that the primary has.
    pub(super) async fn add_replica(&mut self, of: usize, options: &[&str]) {
        self.join(options).await;
        self.is_complete().await;
        let replicate = format!("CLUSTER REPLICATE {}", self.nodes[of].id);
        let replica = &self.nodes[self.nodes.len() - 1];
        replica.ask::<()>(&replicate).await;
        let link = "master_link_status:up";
        replica.server.says("INFO replication", link).await;
        for node in &self.nodes {
            // Those who vote have to know whose it is.
            let place = format!("slave {}", self.nodes[of].id);
            node.server.says("CLUSTER NODES", &place).await;
        }
    }

    async fn join(&mut self, options: &[&str]) {
        let node = Node::start(options).await;
        let epoch = format!("CLUSTER SET-CONFIG-EPOCH {}", self.nodes.len() + 1);
        node.ask::<()>(&epoch).await;
        if let Some(first) = self.nodes.first() {
            let meet = format!("CLUSTER MEET 127.0.0.1 {}", first.port);
            node.ask::<()>(&meet).await;
        }
        self.nodes.push(node);
    }

    async fn is_complete(&self) {
        for node in &self.nodes {
            for (what, wants) in [
                ("state", "ok"),
                ("size", &self.primaries.to_string()),
                ("known_nodes", &self.nodes.len().to_string()),
            ] {
                let wanted = format!("cluster_{what}:{wants}\r");
                node.server.says("CLUSTER INFO", &wanted).await;
            }
        }
    }

    /// The addresses of all.
    pub(super) fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(Node::url).collect();
        urls.join(",")
    }

    /// A store with a prefix of its own.
    pub(super) fn store(&self) -> Redis {
        store_at(&self.urls())
    }

    /// Which primary had a key at the start.
    pub(super) fn place_of(&self, key: &str) -> usize {
        slot_of(key) * self.primaries / SLOTS
    }
}

/// The number of a key's slot.
pub(super) fn slot_of(key: &str) -> usize {
    let slot = HashSlot::for_key(key);
    let is_it = |number: &usize| HashSlot::new(u16::try_from(*number).unwrap()) == Some(slot);
    (0..SLOTS).find(is_it).unwrap()
}

/// Nodes talk to each other at a port that is 10,000 above; only Redis 7 takes another.
pub(super) fn free_port() -> u16 {
    loop {
        // Both below those from which outgoing connections take theirs.
        let port = 15_000 + Uuid::new_v4().as_fields().1 % 7_000;
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}
