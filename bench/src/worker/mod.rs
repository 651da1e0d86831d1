//! Scenario `worker`: no-op jobs a second and memory, against a bare lapin loop and Celery.

mod bare;
mod celery;
mod load;
mod memory;
mod ours;
mod sample;
mod scene;
mod throughput;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bellhop_common::cli::complain;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::broker::Broker;
use crate::machine::Machine;
use crate::report::{Bar, Report};
use crate::scratch::Scratch;
use throughput::{Side, Turns};

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// How many jobs are queued before each side starts
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
    /// How often each side has its turn
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How many jobs are queued to see whether a backlog costs memory; the bar means 1000000
    #[arg(long, default_value_t = 200_000)]
    backlog: u32,
    /// Where Celery is installed, once
    #[arg(long, value_name = "DIR",
          default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-peers"))]
    peers: PathBuf,
    /// How many jobs our worker and the bare loop hold at once
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=2000))]
    prefetch: u16,
    /// Celery's `worker_prefetch_multiplier`
    #[arg(long, default_value_t = 64)]
    celery_prefetch: u16,
    /// The longest that one turn is measured, in seconds
    #[arg(long, default_value_t = 30)]
    window: u64,
    /// Our worker's `log.level`
    #[arg(long, default_value = "warn")]
    log: String,
    /// Leave a part out; may be repeated
    #[arg(long, value_enum, value_name = "PART")]
    without: Vec<Leave>,
}

/// A part that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Leave {
    Bare,
    Celery,
    Rates,
    Memory,
}

/// What runs as a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Our worker
    Ours(ours::Ours),
    /// The bare lapin loop
    Bare(bare::Bare),
}

/// Does a part's work until SIGTERM.
pub(crate) async fn act(part: Part) -> anyhow::Result<()> {
    match part {
        Part::Ours(ours) => ours.run().await,
        Part::Bare(bare) => bare.run().await,
    }
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let mut sides = vec![Side::Ours];
    if !options.leaves(Leave::Bare) {
        sides.push(Side::Bare);
    }
    let mut celery = None;
    if !options.leaves(Leave::Celery) && !options.leaves(Leave::Rates) {
        celery = Some(celery::Celery::install(&options.peers).await?);
        sides.push(Side::Celery);
    }
    let scratch = Scratch::new()?;
    let broker = Broker::start(scratch.path()).await?;
    let machine = Machine::here(broker.version().await?);
    progress(&format!("measuring on {machine}"));
    let stage = scene::Stage {
        options,
        url: &broker.url,
        folder: scratch.path(),
        celery: celery.as_ref(),
    };
    let mut report = Report {
        scenario: "worker",
        machine,
        ours: describe_ours(options),
        peers: BTreeMap::new(),
        bars: Vec::new(),
    };
    if !options.leaves(Leave::Rates) {
        let turns = throughput::take_turns(&stage, &sides).await?;
        add_rates(&mut report, &turns, celery.as_ref());
    }
    if !options.leaves(Leave::Memory) {
        let memory = memory::measure(&stage).await?;
        memory.add_to(&mut report);
    }
    Ok(report)
}

impl Options {
    fn leaves(&self, part: Leave) -> bool {
        self.without.contains(&part)
    }
}

/// Says on standard error how far it is; standard output is for the result.
fn progress(line: &str) {
    complain("bellhop-bench", &line);
}

fn describe_ours(options: &Options) -> Map<String, Value> {
    Map::from_iter([
        ("version".into(), json!(env!("CARGO_PKG_VERSION"))),
        ("concurrency".into(), json!(options.prefetch)),
        ("log level".into(), json!(options.log)),
    ])
}

fn add_rates(report: &mut Report, turns: &Turns, celery: Option<&celery::Celery>) {
    turns.add_to(Side::Ours, &mut report.ours);
    let mut bare = Map::from_iter([("version".into(), json!(format!("lapin {}", bare::LAPIN)))]);
    if turns.add_to(Side::Bare, &mut bare) {
        report.peers.insert("bare lapin loop", bare);
    }
    if let Some(celery) = celery {
        let mut figures = celery.describe();
        turns.add_to(Side::Celery, &mut figures);
        report.peers.insert("celery", figures);
    }
    for (what, peer, bar) in [
        ("jobs/s, times the bare lapin loop's", Side::Bare, 0.8),
        ("jobs/s, times Celery's", Side::Celery, 10.0),
    ] {
        if let Some(ratio) = turns.ratio(Side::Ours, peer) {
            report.bars.push(Bar::at_least(what, ratio, bar));
        }
    }
}
