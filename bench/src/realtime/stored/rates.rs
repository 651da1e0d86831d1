//! From the publisher through broker, notifier and store to the clients.

use std::time::Duration;

use super::Options;
use super::bare::Bare;
use crate::realtime::client::{Count, now};
use crate::realtime::confirmed::Confirmed;
use crate::realtime::figures::Figures;
use crate::realtime::scene::Member;
use crate::realtime::servers::{Server, Side};
use crate::realtime::storage::{Kind, Storage};
use crate::realtime::{Stage, progress};
use crate::report::Bar;

/// The side without notifier and store.
pub(crate) const BARE: &str = "bare lapin loop";
const RATE: &str = "events/s";
const PATIENCE: Duration = Duration::from_mins(5);

fn rate_of(kind: Kind) -> String {
    format!("{RATE}, {}", kind.name())
}

/// The sides take turns, round by round.
pub(super) async fn measure(
    stage: &Stage<'_>,
    options: &Options,
    kinds: &[Kind],
    figures: &mut Figures,
) -> anyhow::Result<()> {
    for round in 1..=options.common.rounds {
        let rate = to_bare(stage, options, figures).await?;
        progress(&format!("round {round}, {BARE}: {rate:.0} events/s"));
        for &kind in kinds {
            let rate = to_clients(stage, options, kind, figures).await?;
            let name = kind.name();
            progress(&format!("round {round}, ours, {name}: {rate:.0} events/s"));
        }
    }
    Ok(())
}

pub(super) fn bars(kinds: &[Kind], figures: &Figures) -> Vec<Bar> {
    let Some(bare) = figures.median(BARE, RATE) else {
        return Vec::new();
    };
    let bar = |&kind: &Kind| {
        let ours = figures.median(Side::Ours.name(), &rate_of(kind))?;
        let what = format!(
            "stored events/s to clients with {}, times the broker alone",
            kind.name()
        );
        Some(Bar::at_least(&what, ours / bare, 0.8))
    };
    kinds.iter().filter_map(bar).collect()
}

/// Publishes everything at full speed, to one user after the other; answers when that began.
async fn publish(sender: &mut Confirmed, options: &Options) -> anyhow::Result<u64> {
    let members = Member::alone(options.users);
    let began = now();
    for (number, member) in (0..options.messages).zip(members.iter().cycle()) {
        sender.publish(&member.user, number).await?;
    }
    sender.all().await?;
    Ok(began)
}

/// A second's share of all events.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of some minutes")]
fn rate(options: &Options, began: u64, ended: u64) -> f64 {
    f64::from(options.messages) * 1e9 / ended.saturating_sub(began) as f64
}

async fn to_bare(
    stage: &Stage<'_>,
    options: &Options,
    figures: &mut Figures,
) -> anyhow::Result<f64> {
    let scene = stage.scene();
    let mut bare = Bare::start(&scene, options.messages).await?;
    let mut sender = Confirmed::connect(&scene.amqp).await?;
    let before = scene.mark(&bare.group);
    let began = publish(&mut sender, options).await?;
    let all_sent = now();
    let ended = bare.end(PATIENCE).await?;
    let spent = before.until(&scene.mark(&bare.group));
    bare.group.stop().await?;
    let rate_to_end = rate(options, began, ended);
    figures.note(BARE, RATE, rate_to_end);
    figures.note(BARE, "published/s", rate(options, began, all_sent));
    figures.note_shares(BARE, "meanwhile", &spent);
    Ok(rate_to_end)
}

async fn to_clients(
    stage: &Stage<'_>,
    options: &Options,
    kind: Kind,
    figures: &mut Figures,
) -> anyhow::Result<f64> {
    let scene = stage.scene();
    let storage = Storage::start(scene.folder, kind).await?;
    let server = Server::keeping(&scene, &storage).await?;
    let members = Member::alone(options.users);
    let swarm = scene.connect(&server, &members, Count::Messages).await?;
    let mut sender = Confirmed::connect(&scene.amqp).await?;
    let before = scene.mark(&server.group);
    let began = publish(&mut sender, options).await?;
    let all_sent = now();
    swarm.until(options.messages.into(), PATIENCE).await?;
    let rate_to_end = rate(options, began, now());
    let spent = before.until(&scene.mark(&server.group));
    swarm.leave()?;
    server.group.stop().await?;
    storage.stop().await?;
    let (ours, name) = (Side::Ours.name(), kind.name());
    figures.note(ours, &rate_of(kind), rate_to_end);
    let what = format!("published/s, {name}");
    figures.note(ours, &what, rate(options, began, all_sent));
    figures.note_shares(ours, name, &spent);
    Ok(rate_to_end)
}
