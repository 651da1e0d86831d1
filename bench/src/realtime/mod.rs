//! The realtime scenarios: our notifier against other servers that push to WebSockets.

mod accept;
mod bare;
mod client;
pub(crate) mod confirmed;
mod fanout;
pub(crate) mod figures;
mod idle;
mod latency;
mod limits;
mod peers;
mod publish;
mod pump;
mod resume;
mod scene;
pub(crate) mod servers;
mod storage;
mod stored;
pub(crate) mod token;

use std::path::PathBuf;

use bellhop_common::cli::complain;
use clap::{Args, Subcommand};

use crate::broker::Broker;
use crate::machine::Machine;
use crate::place;
use crate::scratch::Scratch;
use figures::Figures;
use peers::Peers;
use scene::Scene;
use servers::Side;

pub(crate) use accept::Options as AcceptOptions;
pub(crate) use fanout::Options as FanoutOptions;
pub(crate) use idle::Options as IdleOptions;
pub(crate) use latency::Options as LatencyOptions;
pub(crate) use resume::Options as ResumeOptions;
pub(crate) use stored::Options as StoredOptions;

pub(crate) use accept::measure as accept;
pub(crate) use fanout::measure as fanout;
pub(crate) use idle::measure as idle;
pub(crate) use latency::measure as latency;
pub(crate) use resume::measure as resume;
pub(crate) use stored::measure as stored;

/// What every scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// How often each side has its turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Where peers are built, once
    #[arg(long, value_name = "DIR",
          default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-peers"))]
    peers: PathBuf,
    /// How often every side pings its clients, in seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ping_interval: u64,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    client_threads: u8,
    /// Leave a peer out; may be repeated
    #[arg(long, value_enum, value_name = "PEER")]
    without: Vec<Side>,
}

/// What runs as a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Our notifier
    Notifier(servers::ours::Notifier),
    /// The bare lapin consumer
    BareConsumer(bare::BareConsumer),
    /// The bare lapin loop through the inbox
    BareInbox(stored::bare::BareInbox),
}

/// Does a part's work until SIGTERM.
pub(crate) async fn act(part: Part) -> anyhow::Result<()> {
    match part {
        Part::Notifier(notifier) => notifier.run().await,
        Part::BareConsumer(consumer) => consumer.run().await,
        Part::BareInbox(inbox) => inbox.run().await,
    }
}

/// Where a scenario runs from its beginning to its end.
struct Stage<'a> {
    common: &'a Common,
    sides: Vec<Side>,
    peers: Peers,
    // Before the folder that it writes to.
    broker: Broker,
    scratch: Scratch,
    machine: Machine,
}

impl<'a> Stage<'a> {
    /// Starts the broker and finds the peers.
    async fn set(common: &'a Common, peers: &[Side], connections: u32) -> anyhow::Result<Self> {
        limits::raise(connections.into())?;
        let wanted = |side: &&Side| !common.without.contains(side);
        let sides: Vec<_> = std::iter::once(Side::Ours)
            .chain(peers.iter().filter(wanted).copied())
            .collect();
        let peers = Peers::find(&common.peers, &sides).await?;
        let scratch = Scratch::new()?;
        let broker = Broker::start(scratch.path()).await?;
        let machine = Machine::here(broker.version().await?);
        progress(&format!("measuring on {machine}"));
        Ok(Self {
            common,
            sides,
            peers,
            broker,
            scratch,
            machine,
        })
    }

    /// A turn's surroundings: a prefix of its own on the broker.
    fn scene(&self) -> Scene<'_> {
        Scene {
            amqp: place::fresh(&self.broker.url),
            folder: self.scratch.path(),
            peers: &self.peers,
            ping_s: self.common.ping_interval,
            broker: self.broker.pid(),
            threads: self.common.client_threads.into(),
        }
    }

    /// Every turn: the sides one after the other, round by round.
    fn turns(&self) -> impl Iterator<Item = (u32, Side)> {
        let round = |round| self.sides.iter().map(move |&side| (round, side));
        (1..=self.common.rounds).flat_map(round)
    }

    /// The result; what the sides are is added to what they showed.
    fn report(self, scenario: &'static str, figures: &Figures) -> crate::report::Report {
        let mut report = crate::report::Report {
            scenario,
            machine: self.machine,
            ours: serde_json::Map::from_iter([(
                "version".to_owned(),
                serde_json::json!(env!("CARGO_PKG_VERSION")),
            )]),
            peers: self
                .sides
                .iter()
                .skip(1)
                .map(|&side| (side.name(), self.peers.describe(side)))
                .collect(),
            bars: Vec::new(),
        };
        figures.add_to(&mut report);
        report
    }
}

/// Says on standard error how far it is; standard output is for the result.
fn progress(line: &str) {
    complain("bellhop-bench", &line);
}
