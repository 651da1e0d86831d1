//! What all realtime scenarios share: where they run, whom they connect, and one server at a time.

use std::path::Path;
use std::time::{Duration, Instant};

use bellhop_common::config::AmqpConfig;
use tokio::time::sleep;

use super::client::{Count, Plan, Swarm};
use super::servers::{Server, Side};
use super::{peers::Peers, token};
use crate::process::{Group, cpu_time};

/// How long all clients may take to get in.
pub(super) const ENTRY: Duration = Duration::from_mins(3);

/// How long nchan may take to enter its clients into their channels.
const SUBSCRIBING: Duration = Duration::from_secs(1);
/// How many are on their way in at once, unless that is what is measured.
const AT_ONCE: usize = 64;

/// One client.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) user: String,
    pub(crate) room: Option<String>,
}

impl Member {
    /// So many, each a user of its own, spread over so many rooms.
    pub(crate) fn in_rooms(count: u32, rooms: u32) -> Vec<Self> {
        let member = |n| Self {
            user: format!("user-{n}"),
            room: Some(format!("room-{}", n % rooms.max(1))),
        };
        (0..count).map(member).collect()
    }

    /// So many that are in no room.
    pub(crate) fn alone(count: u32) -> Vec<Self> {
        let member = |n| Self {
            user: format!("user-{n}"),
            room: None,
        };
        (0..count).map(member).collect()
    }

    /// Where a peer that knows only channels finds them.
    pub(crate) fn channel(&self) -> &str {
        self.room.as_deref().unwrap_or(&self.user)
    }

    pub(crate) fn token(&self) -> anyhow::Result<String> {
        token::mint(&self.user, self.channel())
    }
}

/// One turn's surroundings.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) amqp: AmqpConfig,
    /// For logs.
    pub(crate) folder: &'a Path,
    pub(crate) peers: &'a Peers,
    pub(crate) ping_s: u64,
    pub(crate) broker: Option<i32>,
    pub(crate) threads: usize,
}

impl Scene<'_> {
    /// How the members get in, with their tokens.
    pub(crate) fn plan(
        &self,
        server: &Server,
        members: &[Member],
        at_once: usize,
        count: Count,
    ) -> anyhow::Result<Plan> {
        let entries = members.iter().map(|member| server.entry(member));
        Ok(Plan {
            address: server.address,
            entries: entries.collect::<anyhow::Result<_>>()?,
            at_once,
            count: match (server.side, count) {
                // It puts several publications into one message, each with a line's end.
                (Side::Centrifuge, Count::Messages) => Count::Lines,
                _ => count,
            },
            threads: self.threads,
        })
    }

    /// Connects the members, and returns when they are in.
    pub(crate) async fn connect(
        &self,
        server: &Server,
        members: &[Member],
        count: Count,
    ) -> anyhow::Result<Swarm> {
        let swarm = Swarm::start(self.plan(server, members, AT_ONCE, count)?)?;
        swarm.all_in(ENTRY).await?;
        if server.side == Side::Nchan {
            // It answers the handshake and enters the channel, which another process of it may own,
            // afterwards; what is published meanwhile would be missed.
            sleep(SUBSCRIBING).await;
        }
        Ok(swarm)
    }

    /// What has been used so far.
    pub(crate) fn mark(&self, server: &Group) -> Mark {
        let own = i32::try_from(std::process::id()).ok();
        Mark {
            at: Instant::now(),
            server: server.usage().cpu,
            clients: own.and_then(cpu_time).unwrap_or_default(),
            broker: self.broker.and_then(cpu_time).unwrap_or_default(),
        }
    }
}

/// Processor time at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    at: Instant,
    server: Duration,
    clients: Duration,
    broker: Duration,
}

/// What was used between two moments.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    pub(crate) seconds: f64,
    /// Seconds of processor.
    pub(crate) server: f64,
    pub(crate) clients: f64,
    pub(crate) broker: f64,
}

impl Mark {
    pub(crate) fn until(&self, later: &Self) -> Spent {
        let between = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        Spent {
            seconds: (later.at - self.at).as_secs_f64(),
            server: between(self.server, later.server),
            clients: between(self.clients, later.clients),
            broker: between(self.broker, later.broker),
        }
    }
}

impl Spent {
    /// In per cent of a core: the server, the load generator, the broker.
    pub(crate) fn shares(&self) -> [f64; 3] {
        [self.server, self.clients, self.broker].map(|spent| 100.0 * spent / self.seconds)
    }
}
