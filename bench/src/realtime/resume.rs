//! Scenario `resume`: everybody comes back at once, and is shown what happened meanwhile.

use std::time::Duration;

use anyhow::ensure;
use bellhop_notifier::store::{Head, Position, StreamName};
use clap::Args;

use super::client::{Count, Plan, Swarm};
use super::confirmed::Confirmed;
use super::figures::Figures;
use super::scene::{ENTRY, Member, Scene};
use super::servers::{Server, Side};
use super::storage::{Kind, Storage};
use super::{Common, Stage, progress};
use crate::report::{Bar, Report};
use crate::series::percentile;

const PATIENCE: Duration = Duration::from_mins(5);
/// Who sees that all is kept: the inbox is worked off in order, and this one's event comes last.
const WITNESS: &str = "witness";

/// What the scenario can be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How many clients, each a user of its own
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,
    /// How many events each misses
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    missed: u32,
}

/// Measures everything.
pub(crate) async fn measure(options: &Options) -> anyhow::Result<Report> {
    let stage = Stage::set(&options.common, &[], options.connections * 2).await?;
    let kinds = Kind::here();
    let mut figures = Figures::default();
    for round in 1..=options.common.rounds {
        for &kind in &kinds {
            let seconds = take_turn(&stage, options, kind, &mut figures).await?;
            progress(&format!(
                "round {round}, {}: all served after {seconds:.2} s",
                kind.name()
            ));
        }
    }
    let mut report = stage.report("resume", &figures);
    for kind in kinds {
        if let Some(median) = figures.median(Side::Ours.name(), &all_of(kind)) {
            let what = format!(
                "s until {} clients that come back at once have their {} events from {}",
                options.connections,
                options.missed,
                kind.name()
            );
            report.bars.push(Bar::at_most(&what, median, 10.0));
        }
    }
    Ok(report)
}

fn all_of(kind: Kind) -> String {
    format!("s until all are served, {}", kind.name())
}

async fn take_turn(
    stage: &Stage<'_>,
    options: &Options,
    kind: Kind,
    figures: &mut Figures,
) -> anyhow::Result<f64> {
    let scene = stage.scene();
    let storage = Storage::start(scene.folder, kind).await?;
    let members = Member::alone(options.connections);
    let positions = positions(&storage, &members).await?;
    let server = Server::keeping(&scene, &storage).await?;
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    // All are cut.
    swarm.leave()?;
    publish(&scene, &server, &members, options.missed).await?;
    let entries = members.iter().zip(&positions);
    let entries =
        entries.map(|(member, position)| server.return_of(member, *position, options.missed));
    let plan = Plan {
        address: server.address,
        entries: entries.collect::<anyhow::Result<_>>()?,
        at_once: members.len(),
        count: Count::Entries,
        threads: scene.threads,
    };
    let begin = scene.mark(&server.group);
    let swarm = Swarm::start(plan)?;
    let all = swarm.all_in(ENTRY).await?.as_secs_f64();
    let spent = begin.until(&scene.mark(&server.group));
    let ages = swarm.leave()?;
    server.group.stop().await?;
    storage.stop().await?;
    ensure!(ages.len() == members.len(), "not everybody was served");
    let (ours, name) = (Side::Ours.name(), kind.name());
    figures.note(ours, &all_of(kind), all);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes")]
    let mut seconds: Vec<_> = ages.iter().map(|&age| age as f64 / 1e9).collect();
    for percent in [50.0, 99.0] {
        let what = format!("s until a client is served, {name}, p{percent}");
        figures.note(ours, &what, percentile(&mut seconds, percent));
    }
    figures.note_shares(ours, name, &spent);
    Ok(all)
}

/// Where everybody's stream begins, which a client learns when it connects. The generator reads no
/// JSON, so the store is asked for it, before there is a notifier.
async fn positions(storage: &Storage, members: &[Member]) -> anyhow::Result<Vec<Position>> {
    let store = storage.open()?;
    let names = members.iter().map(|member| StreamName::user(&member.user));
    let heads = store.heads(names.collect()).await?;
    Ok(heads.iter().map(Head::position).collect())
}

/// Publishes what everybody misses, and waits until it is kept.
async fn publish(
    scene: &Scene<'_>,
    server: &Server,
    members: &[Member],
    missed: u32,
) -> anyhow::Result<()> {
    let witness = Member {
        user: WITNESS.to_owned(),
        room: None,
    };
    let watching = std::slice::from_ref(&witness);
    let swarm = scene.connect(server, watching, Count::Messages).await?;
    let mut publisher = Confirmed::connect(&scene.amqp).await?;
    for number in 1..=missed {
        for member in members {
            publisher.publish(&member.user, number).await?;
        }
    }
    publisher.all().await?;
    publisher.publish(WITNESS, 1).await?;
    swarm.until(1, PATIENCE).await?;
    swarm.leave()?;
    Ok(())
}
