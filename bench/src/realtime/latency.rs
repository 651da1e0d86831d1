//! Scenario `latency`: from a publication to the frame, at a steady rate.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::bare::Bare;
use super::client::Count;
use super::figures::Figures;
use super::publish::Publisher;
use super::scene::Member;
use super::servers::{Server, Side};
use super::{Common, Stage, progress};
use crate::report::{Bar, Report};
use crate::series::percentile;

/// The side without a notifier.
pub(crate) const BARE: &str = "bare lapin consumer";
const P50: &str = "ms from publication, p50";
const P99: &str = "ms from publication, p99";
/// Not counted, at the beginning of each turn.
const WARM_UP_S: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(30);

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many users there are, each with one connection
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    users: u32,
    /// How many events a second, in all
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// How long each turn is measured, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let stage = Stage::set(&options.common, &[Side::Centrifuge], options.users).await?;
    let mut figures = Figures::default();
    for (round, side) in stage.turns() {
        let mut all = vec![(
            side.name(),
            to_frames(&stage, options, side, &mut figures).await?,
        )];
        if side == Side::Ours {
            all.push((BARE, to_bare(&stage, options, &mut figures).await?));
        }
        for (name, ages) in all {
            let (p50, p99) = note(&mut figures, name, &ages);
            progress(&format!(
                "round {round}, {name}: p50 {p50:.3} ms, p99 {p99:.3} ms"
            ));
        }
    }
    let mut report = stage.report("latency", &figures);
    let p99 = |side| figures.median(side, P99);
    if let (Some(ours), Some(bare)) = (p99(Side::Ours.name()), p99(BARE)) {
        let what = "p99 from AMQP publication to frame, times that to a bare consumer";
        report.bars.push(Bar::at_most(what, ours / bare, 1.5));
    }
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of some seconds")]
fn note(figures: &mut Figures, name: &'static str, ages: &[u64]) -> (f64, f64) {
    let mut millis: Vec<_> = ages.iter().map(|&age| age as f64 / 1e6).collect();
    let (p50, p99) = (percentile(&mut millis, 50.0), percentile(&mut millis, 99.0));
    figures.note(name, P50, p50);
    figures.note(name, P99, p99);
    (p50, p99)
}

/// The ages of what came, without those of the warm-up.
fn counted(options: &Options, mut ages: Vec<u64>) -> anyhow::Result<Vec<u64>> {
    let (sent, before) = (
        options.rate * (options.seconds + WARM_UP_S),
        options.rate * WARM_UP_S,
    );
    ensure!(
        ages.len() == sent as usize,
        "of {sent} events only {} came",
        ages.len()
    );
    Ok(ages.split_off(before as usize))
}

async fn to_frames(
    stage: &Stage<'_>,
    options: &Options,
    side: Side,
    figures: &mut Figures,
) -> anyhow::Result<Vec<u64>> {
    let scene = stage.scene();
    let server = Server::start(&scene, side).await?;
    let members = Member::alone(options.users);
    let swarm = scene.connect(&server, &members, Count::Ages).await?;
    let mut publisher = server.publisher(&scene).await?;
    let begin = scene.mark(&server.group);
    let sent = publish(&mut publisher, &members, options).await?;
    swarm.until(sent, PATIENCE).await?;
    let used = begin.until(&scene.mark(&server.group));
    figures.note_shares(side.name(), "meanwhile", &used);
    let ages = swarm.leave()?;
    server.group.stop().await?;
    counted(options, ages)
}

async fn to_bare(
    stage: &Stage<'_>,
    options: &Options,
    figures: &mut Figures,
) -> anyhow::Result<Vec<u64>> {
    let scene = stage.scene();
    let bare = Bare::start(&scene).await?;
    let mut publisher = Publisher::amqp(&scene.amqp).await?;
    let begin = scene.mark(&bare.group);
    publish(&mut publisher, &Member::alone(options.users), options).await?;
    let spent = begin.until(&scene.mark(&bare.group));
    figures.note_shares(BARE, "meanwhile", &spent);
    // What is on its way.
    sleep(Duration::from_secs(1)).await;
    counted(options, bare.stop().await?)
}

/// Publishes at the rate, to one user after the other; answers how many events.
async fn publish(
    publisher: &mut Publisher,
    members: &[Member],
    options: &Options,
) -> anyhow::Result<u64> {
    let mut beat = interval(Duration::from_secs(1) / options.rate);
    // After a hiccup the rate is made good for, as by many publishers who know nothing of it.
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = options.rate * (options.seconds + WARM_UP_S);
    for (_, member) in (0..count).zip(members.iter().cycle()) {
        beat.tick().await;
        publisher.publish(member).await?;
    }
    Ok(count.into())
}
