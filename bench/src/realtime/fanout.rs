//! Scenario `fanout`: deliveries a second to one room, one broadcast to a larger one, and many
//! small rooms.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::client::Count;
use super::figures::Figures;
use super::pump::Pump;
use super::scene::{Member, Scene};
use super::servers::{Server, Side};
use super::{Common, Stage, progress};
use crate::report::{Bar, Report};
use crate::series::percentile;

/// Between two single broadcasts, so that each finds everything at rest.
const REST: Duration = Duration::from_millis(20);
const P99: &str = "ms to the last of a broadcast, p99";
const ROOMS_COST: &str = "server µs a delivery, many rooms";

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many are in the room
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many publications may be on their way at once; several, with commas
    #[arg(long, value_delimiter = ',', default_value = "1,16,64",
          value_parser = clap::value_parser!(u64).range(1..=4096))]
    windows: Vec<u64>,
    /// How long each window is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many are in the room of the single broadcasts
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    broadcast_connections: u32,
    /// How many single broadcasts a turn has
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    broadcasts: u32,
    /// How many rooms of ten there are in the last part
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rooms: u32,
    /// Leave a part out; may be repeated
    #[arg(long, value_enum, value_name = "PART")]
    leave_out: Vec<Leave>,
}

/// A part that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Leave {
    Rates,
    Broadcast,
    Rooms,
}

fn rate_at(window: u64) -> String {
    format!("deliveries/s, window {window}")
}

fn cost_at(window: u64) -> String {
    format!("server µs a delivery, window {window}")
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let peers = [Side::Centrifuge, Side::Nchan];
    let rooms = options.rooms * 10;
    let most = options
        .connections
        .max(options.broadcast_connections)
        .max(rooms);
    let stage = Stage::set(&options.common, &peers, most).await?;
    let mut figures = Figures::default();
    for (round, side) in stage.turns() {
        if !options.leave_out.contains(&Leave::Rates) {
            rates(&stage.scene(), options, side, &mut figures).await?;
        }
        if !options.leave_out.contains(&Leave::Broadcast) {
            broadcasts(&stage.scene(), options, side, &mut figures).await?;
        }
        if !options.leave_out.contains(&Leave::Rooms) {
            many_rooms(&stage.scene(), options, side, &mut figures).await?;
        }
        progress(&format!(
            "round {round}, {}: {}",
            side.name(),
            figures.last_of(side.name())
        ));
    }
    let mut report = stage.report("fanout", &figures);
    report.bars = bars(options, &figures);
    Ok(report)
}

/// One room, several windows.
async fn rates(
    scene: &Scene<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let server = Server::start(scene, side).await?;
    let members = Member::in_rooms(options.connections, 1);
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    let mut pump = Pump::new(scene, &server, &swarm, swarm.size()).await?;
    let Some(member) = members.first() else {
        return Ok(());
    };
    for &window in &options.windows {
        let time = Duration::from_secs(options.seconds);
        let (deliveries, spent) = pump.run(|| member, window, time).await?;
        let name = side.name();
        figures.note(name, &rate_at(window), deliveries / spent.seconds);
        figures.note(name, &cost_at(window), spent.server * 1e6 / deliveries);
        figures.note_shares(name, &format!("window {window}"), &spent);
    }
    drop(pump);
    swarm.leave()?;
    server.group.stop().await
}

/// Single broadcasts to a larger room.
async fn broadcasts(
    scene: &Scene<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let server = Server::start(scene, side).await?;
    let members = Member::in_rooms(options.broadcast_connections, 1);
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    let mut pump = Pump::new(scene, &server, &swarm, swarm.size()).await?;
    let Some(member) = members.first() else {
        return Ok(());
    };
    // The first finds sockets that have never sent.
    pump.one(member).await?;
    let mut took = Vec::new();
    for _ in 0..options.broadcasts {
        sleep(REST).await;
        took.push(pump.one(member).await?.as_secs_f64() * 1e3);
    }
    figures.note(
        side.name(),
        "ms to the last of a broadcast, p50",
        percentile(&mut took, 50.0),
    );
    figures.note(side.name(), P99, percentile(&mut took, 99.0));
    drop(pump);
    swarm.leave()?;
    server.group.stop().await
}

/// Many rooms of ten, at random.
async fn many_rooms(
    scene: &Scene<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let server = Server::start(scene, side).await?;
    let members = Member::in_rooms(options.rooms * 10, options.rooms);
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    let mut pump = Pump::new(scene, &server, &swarm, 10).await?;
    let (rooms, mut random) = (
        members.get(..options.rooms as usize).unwrap_or_default(),
        1_u64,
    );
    let Some(first) = rooms.first() else {
        return Ok(());
    };
    let next = || {
        // xorshift, with the same rooms for every side.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let index = usize::try_from(random % u64::from(options.rooms)).unwrap_or(0);
        rooms.get(index).unwrap_or(first)
    };
    let window = options.windows.iter().copied().max().unwrap_or(1);
    let time = Duration::from_secs(options.seconds);
    let (deliveries, spent) = pump.run(next, window, time).await?;
    let name = side.name();
    figures.note(name, "deliveries/s, many rooms", deliveries / spent.seconds);
    figures.note(name, ROOMS_COST, spent.server * 1e6 / deliveries);
    figures.note_shares(name, "many rooms", &spent);
    drop(pump);
    swarm.leave()?;
    server.group.stop().await
}

fn bars(options: &Options, figures: &Figures) -> Vec<Bar> {
    let (ours, mut bars) = (Side::Ours.name(), Vec::new());
    let best = |side: Side| {
        let rates = options.windows.iter();
        rates
            .filter_map(|&window| figures.median(side.name(), &rate_at(window)))
            .reduce(f64::max)
    };
    if let (Some(ours), Some(theirs)) = (best(Side::Ours), best(Side::Centrifuge)) {
        let what = "deliveries/s to one room, each side at its best window, times centrifuge's";
        bars.push(Bar::at_least(what, ours / theirs, 3.0));
    }
    if let Some(p99) = figures.median(ours, P99) {
        let what = format!(
            "ms until the last of {} has a single broadcast, p99",
            options.broadcast_connections
        );
        bars.push(Bar::at_most(&what, p99, 100.0));
    }
    let single = options.windows.iter().min().map(|&window| cost_at(window));
    let single = single.and_then(|figure| figures.median(ours, &figure));
    if let (Some(many), Some(single)) = (figures.median(ours, ROOMS_COST), single) {
        let what = "server's processor for a delivery to one of many rooms, times that of one room";
        bars.push(Bar::at_most(what, many / single, 2.0));
    }
    bars
}
