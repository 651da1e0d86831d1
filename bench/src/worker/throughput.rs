//! Jobs a second, turn by turn.
//!
//! Each side finds a full queue. What is measured is how fast the broker sees it shrink between
//! the first and the last twentieth, so that neither a side's start nor its end counts.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Map, Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::ours::NOOP;
use super::scene::{Scene, Stage};
use super::{bare, celery, ours, progress, sample};
use crate::process::{Group, Usage};
use crate::series::Series;

/// How often the queue is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// No job for so long: it is not going to come.
const STALLED: Duration = Duration::from_secs(30);
/// The short name of the queue.
const QUEUE: &str = "bench";

/// Who has a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Ours,
    Bare,
    Celery,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Bare => "bare lapin loop",
            Self::Celery => "celery",
        }
    }
}

/// What one turn showed.
#[derive(Debug, Clone, Copy)]
struct Turn {
    side: Side,
    jobs_per_s: f64,
    cpu_us_per_job: f64,
    resident_mib: f64,
}

/// What all turns showed.
#[derive(Debug)]
pub(crate) struct Turns(Vec<Turn>);

impl Turns {
    fn series(&self, side: Side, figure: impl Fn(&Turn) -> f64) -> Series {
        let turns = self.0.iter().filter(|turn| turn.side == side);
        Series::of(turns.map(figure).collect())
    }

    /// Adds a side's figures; answers whether there are any.
    pub(crate) fn add_to(&self, side: Side, figures: &mut Map<String, Value>) -> bool {
        let rates = self.series(side, |turn| turn.jobs_per_s);
        if rates.rounds.is_empty() {
            return false;
        }
        let cpu = self.series(side, |turn| turn.cpu_us_per_job);
        let resident = self.series(side, |turn| turn.resident_mib);
        figures.insert("jobs/s".into(), json!(rates));
        figures.insert("processor µs a job".into(), json!(cpu));
        figures.insert("MiB resident at work".into(), json!(resident));
        true
    }

    /// The median of one side's rates in medians of another's.
    pub(crate) fn ratio(&self, side: Side, to: Side) -> Option<f64> {
        let rate = |side| self.series(side, |turn| turn.jobs_per_s).median;
        let ratio = rate(side) / rate(to);
        ratio.is_finite().then_some(ratio)
    }
}

/// Lets the sides have their turns, one after the other, round by round.
pub(crate) async fn take_turns(stage: &Stage<'_>, sides: &[Side]) -> anyhow::Result<Turns> {
    let mut turns = Vec::new();
    for round in 1..=stage.options.rounds {
        for &side in sides {
            let turn = take_turn(stage, side).await?;
            progress(&format!(
                "round {round}, {}: {:.0} jobs/s, {:.0} µs of processor a job, {:.1} MiB",
                side.name(),
                turn.jobs_per_s,
                turn.cpu_us_per_job,
                turn.resident_mib
            ));
            turns.push(turn);
        }
    }
    Ok(Turns(turns))
}

async fn take_turn(stage: &Stage<'_>, side: Side) -> anyhow::Result<Turn> {
    let scene = Scene::new(*stage).await?;
    let (jobs, names) = (stage.options.jobs, &scene.names);
    let queue = names.job_queue(QUEUE);
    let watch = |group| watch(&scene, &queue, group);
    let (group, (from, to)) = match (side, stage.celery) {
        (Side::Celery, Some(celery)) => {
            celery::enqueue(&scene, &queue, jobs).await?;
            watch(celery.start(&scene, &queue)?).await?
        }
        (Side::Bare, _) => {
            let samples = sample::take(&scene, QUEUE).await?;
            ours::enqueue(&scene, QUEUE, NOOP, jobs).await?;
            watch(bare::start(&scene, QUEUE, &samples)?).await?
        }
        _ => {
            sample::take(&scene, QUEUE).await?;
            ours::enqueue(&scene, QUEUE, NOOP, jobs).await?;
            let queues = [QUEUE.to_owned()];
            watch(ours::start(&scene, &queues, stage.options.prefetch).await?).await?
        }
    };
    let mut leftovers = vec![queue];
    if side == Side::Celery {
        // Asked to end, it may wait long for tasks that it holds; nothing of it is needed any more.
        drop(group);
    } else {
        group.stop().await?;
        all_told(&scene, jobs).await?;
        leftovers.extend([names.inbox(), names.dead()]);
    }
    scene.clear(&leftovers).await?;
    let jobs = f64::from(from.ready - to.ready);
    let seconds = (to.at - from.at).as_secs_f64();
    Ok(Turn {
        side,
        jobs_per_s: jobs / seconds,
        cpu_us_per_job: (to.usage.cpu.saturating_sub(from.usage.cpu)).as_secs_f64() * 1e6 / jobs,
        resident_mib: mib(to.usage.resident_kib),
    })
}

/// Makes sure that each job is still there or that its end was told. What was in hand returns to
/// its queue a moment after its consumer has gone.
async fn all_told(scene: &Scene<'_>, jobs: u32) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let left = scene.probe.ready(&scene.names.job_queue(QUEUE)).await?;
        let told = scene.probe.ready(&scene.names.inbox()).await?;
        if told + left >= jobs {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "of {jobs} jobs {left} are left, but only {told} ends were told"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// KiB as MiB.
#[expect(
    clippy::cast_precision_loss,
    reason = "memory of a process is far below 2^52 KiB"
)]
pub(crate) fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

/// What there was at one moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    ready: u32,
    usage: Usage,
}

/// Watches the queue shrink; answers the marks at the beginning and the end of what counts.
async fn watch(
    scene: &Scene<'_>,
    queue: &str,
    mut group: Group,
) -> anyhow::Result<(Group, (Mark, Mark))> {
    let options = scene.stage.options;
    let twentieth = options.jobs / 20;
    let window = Duration::from_secs(options.window);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut begin, mut last) = (None::<Mark>, (options.jobs, Instant::now()));
    loop {
        looks.tick().await;
        let ready = scene.probe.ready(queue).await?;
        let at = Instant::now();
        group.check()?;
        if ready < last.0 {
            last = (ready, at);
        }
        ensure!(
            at - last.1 < STALLED,
            "no job was taken for {STALLED:?}, {ready} are left"
        );
        let mark = |group: &Group| Mark {
            at,
            ready,
            usage: group.usage(),
        };
        match begin {
            None if ready <= options.jobs - twentieth => begin = Some(mark(&group)),
            Some(begin) if ready <= twentieth || at - begin.at >= window => {
                let end = mark(&group);
                return Ok((group, (begin, end)));
            }
            _ => {}
        }
    }
}
