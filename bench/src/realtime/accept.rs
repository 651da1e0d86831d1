//! Scenario `accept`: connections a second, each with a token of its own.

use clap::Args;

use super::client::{Count, Swarm};
use super::figures::Figures;
use super::scene::{ENTRY, Member};
use super::servers::{Server, Side};
use super::{Common, Stage, progress};
use crate::report::{Bar, Report};

const RATE: &str = "connections/s";

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many connect, and stay
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// How many are on their way in at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1000))]
    at_once: u16,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let peers = [Side::Centrifuge];
    let stage = Stage::set(&options.common, &peers, options.connections).await?;
    let mut figures = Figures::default();
    for (round, side) in stage.turns() {
        let rate = take_turn(&stage, options, side, &mut figures).await?;
        progress(&format!(
            "round {round}, {}: {rate:.0} connections/s",
            side.name()
        ));
    }
    let mut report = stage.report("accept", &figures);
    let rate = |side: Side| figures.median(side.name(), RATE);
    if let (Some(ours), Some(theirs)) = (rate(Side::Ours), rate(Side::Centrifuge)) {
        let what = "connections/s with a token each, times centrifuge's";
        report.bars.push(Bar::at_least(what, ours / theirs, 2.0));
    }
    Ok(report)
}

async fn take_turn(
    stage: &Stage<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<f64> {
    let (scene, name) = (stage.scene(), side.name());
    let server = Server::start(&scene, side).await?;
    // Some before, so that what happens only once is not counted.
    let first = scene
        .connect(&server, &Member::alone(500), Count::Messages)
        .await?;
    first.leave()?;
    let members = Member::alone(options.connections);
    let at_once = options.at_once.into();
    let plan = scene.plan(&server, &members, at_once, Count::Messages)?;
    let before = scene.mark(&server.group);
    let swarm = Swarm::start(plan)?;
    let took = swarm.all_in(ENTRY).await?;
    let spent = before.until(&scene.mark(&server.group));
    swarm.leave()?;
    server.group.stop().await?;
    let count = f64::from(options.connections);
    let rate = count / took.as_secs_f64();
    figures.note(name, RATE, rate);
    figures.note(
        name,
        "processor µs a connection",
        spent.server * 1e6 / count,
    );
    figures.note_shares(name, "meanwhile", &spent);
    Ok(rate)
}
