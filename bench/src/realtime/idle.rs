//! Scenario `idle`: what connections cost that do nothing, in memory and in heartbeats.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::client::Count;
use super::figures::Figures;
use super::scene::Member;
use super::servers::{Server, Side};
use super::{Common, Stage, progress};
use crate::report::{Bar, Report};

const KIB: &str = "KiB a connection";
const CPU: &str = "% core of server, idle";
/// So many come and go before, so that what is allocated once is not counted.
const WARM_UP: u32 = 500;

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many connections, all in one room
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How long the heartbeats are watched, in seconds; a multiple of the ping interval
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    window: u64,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let peers = [Side::Centrifuge, Side::Nchan];
    let stage = Stage::set(&options.common, &peers, options.connections).await?;
    let mut figures = Figures::default();
    for (round, side) in stage.turns() {
        let (kib, percent) = take_turn(&stage, options, side, &mut figures).await?;
        progress(&format!(
            "round {round}, {}: {kib:.2} KiB a connection, {percent:.2} % of a core",
            side.name()
        ));
    }
    let mut report = stage.report("idle", &figures);
    let name = Side::Ours.name();
    for (what, figure, bar) in [
        ("KiB resident for each idle connection", KIB, 6.0),
        ("% of a core for the heartbeats of all", CPU, 1.0),
    ] {
        if let Some(median) = figures.median(name, figure) {
            report.bars.push(Bar::at_most(what, median, bar));
        }
    }
    Ok(report)
}

async fn take_turn(
    stage: &Stage<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<(f64, f64)> {
    let (scene, name) = (stage.scene(), side.name());
    let mut server = Server::start(&scene, side).await?;
    let members = Member::in_rooms(WARM_UP, 1);
    scene
        .connect(&server, &members, Count::Messages)
        .await?
        .leave()?;
    let before = server.group.settled_kib().await?;
    let members = Member::in_rooms(options.connections, 1);
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    let with = server.group.settled_kib().await?;
    // The first beat of each is over: from now on all beats are alike.
    sleep(Duration::from_secs(options.common.ping_interval)).await;
    let begin = scene.mark(&server.group);
    sleep(Duration::from_secs(options.window)).await;
    let spent = begin.until(&scene.mark(&server.group));
    let at_the_end = server.group.usage().resident_kib;
    swarm.leave()?;
    server.group.stop().await?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "memory of a process is far below 2^52 KiB"
    )]
    let each = |kib: u64| kib.saturating_sub(before) as f64 / f64::from(options.connections);
    figures.note(name, KIB, each(with));
    figures.note(name, "KiB a connection, after beats", each(at_the_end));
    figures.note_shares(name, "idle", &spent);
    Ok((each(with), spent.shares()[0]))
}
