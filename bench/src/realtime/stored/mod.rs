//! Scenario `stored`: events that are kept, end to end and in the store alone.

pub(super) mod bare;
mod growth;
mod rates;

pub(super) use rates::BARE;

use clap::{Args, ValueEnum};

use super::figures::Figures;
use super::storage::Kind;
use super::{Common, Stage};
use crate::report::Report;

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many events are published in each turn
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,
    /// To how many users in turn, each with a connection
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    users: u32,
    /// How many events are kept in the store alone
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..))]
    events: u32,
    /// Measure only this
    #[arg(long, value_enum, value_name = "PART")]
    only: Option<Only>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    Rates,
    Growth,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let stage = Stage::set(&options.common, &[], options.users).await?;
    let kinds = Kind::here();
    let mut figures = Figures::default();
    let mut bars = Vec::new();
    if options.only != Some(Only::Growth) {
        rates::measure(&stage, options, &kinds, &mut figures).await?;
        bars.extend(rates::bars(&kinds, &figures));
    }
    if options.only != Some(Only::Rates) {
        for &kind in &kinds {
            growth::measure(&stage, options.events, kind, &mut figures).await?;
            bars.extend(growth::bars(kind, &figures));
        }
    }
    let mut report = stage.report("stored", &figures);
    report.bars = bars;
    Ok(report)
}
