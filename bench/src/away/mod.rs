//! The scenarios of what reaches people outside: pushes and mails to those who are away, and posts to
//! a team. There is no peer: what is measured is held against what an operator would accept.

mod alerts;
mod deliver;
mod service;

use bellhop_common::cli::complain;
use clap::Subcommand;
use serde_json::json;

use crate::broker::Broker;
use crate::machine::Machine;
use crate::realtime::figures::Figures;
use crate::report::{Bar, Report};
use crate::scratch::Scratch;

pub(crate) use alerts::Options as AlertsOptions;
pub(crate) use alerts::measure as alerts;
pub(crate) use deliver::Options as DeliverOptions;
pub(crate) use deliver::measure as deliver;

/// What runs as a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Our notifier with settings from a file
    NotifierOf(service::Notifier),
}

/// Does a part's work until SIGTERM.
pub(crate) async fn act(part: Part) -> anyhow::Result<()> {
    match part {
        Part::NotifierOf(notifier) => notifier.run().await,
    }
}

const OURS: &str = "ours";

/// Where a scenario runs from its beginning to its end.
struct Stage {
    // Before the folder that it writes to.
    broker: Broker,
    scratch: Scratch,
    machine: Machine,
}

impl Stage {
    async fn set() -> anyhow::Result<Self> {
        // For the HTTP clients and the doubles, which run in this process.
        bellhop_common::tls::install_provider();
        let scratch = Scratch::new()?;
        let broker = Broker::start(scratch.path()).await?;
        let machine = Machine::here(broker.version().await?);
        progress(&format!("measuring on {machine}"));
        Ok(Self {
            broker,
            scratch,
            machine,
        })
    }

    fn report(self, scenario: &'static str, figures: &Figures, bars: Vec<Bar>) -> Report {
        let version = ("version".to_owned(), json!(env!("CARGO_PKG_VERSION")));
        let mut report = Report {
            scenario,
            machine: self.machine,
            ours: serde_json::Map::from_iter([version]),
            peers: std::collections::BTreeMap::new(),
            bars,
        };
        figures.add_to(&mut report);
        report
    }
}

/// Says on standard error how far it is; standard output is for the result.
fn progress(line: &str) {
    complain("bellhop-bench", &line);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "memory of a process is far below 2^52 KiB"
)]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
