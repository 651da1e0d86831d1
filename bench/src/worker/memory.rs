//! What our worker keeps resident: idle, with tasks in flight, and beside a backlog.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::json;
use tokio::time::sleep;

use super::ours::{self, NOOP, WAIT};
use super::progress;
use super::scene::{Scene, Stage};
use super::throughput::mib;
use crate::process::Group;
use crate::report::{Bar, Report};

/// How many tasks the two bars speak of.
const SOME: u32 = 1000;
const MANY: u32 = 10_000;
/// The largest prefetch of a quorum queue.
const PER_QUEUE: u16 = 2000;
/// So many jobs are run beside each backlog: more than the worker remembers of ended ones.
const DRAINED: u32 = 20_000;
/// A backlog may cost so much of what the worker has without one: less is noise.
const NOISE: f64 = 1.1;
const PATIENCE: Duration = Duration::from_mins(2);

/// What was found, in KiB.
#[derive(Debug)]
pub(crate) struct Memory {
    idle: u64,
    some: u64,
    idle_of_many: u64,
    many: u64,
    small_backlog: u64,
    backlog: u32,
    large_backlog: u64,
}

/// Measures everything about memory.
pub(crate) async fn measure(stage: &Stage<'_>) -> anyhow::Result<Memory> {
    let (idle, some) = in_flight(stage, SOME, 1000).await?;
    progress(&format!(
        "memory: {idle} KiB idle, {some} KiB with {SOME} tasks in flight"
    ));
    let (idle_of_many, many) = in_flight(stage, MANY, PER_QUEUE).await?;
    progress(&format!(
        "memory: {idle_of_many} KiB idle, {many} KiB with {MANY} tasks waiting"
    ));
    let backlog = stage.options.backlog;
    let small_backlog = peak_beside(stage, 0).await?;
    let large_backlog = peak_beside(stage, backlog).await?;
    progress(&format!(
        "memory: at most {small_backlog} KiB over {DRAINED} jobs, {large_backlog} KiB beside {backlog} more"
    ));
    Ok(Memory {
        idle,
        some,
        idle_of_many,
        many,
        small_backlog,
        backlog,
        large_backlog,
    })
}

/// What is resident before and while `count` tasks wait.
async fn in_flight(stage: &Stage<'_>, count: u32, concurrency: u16) -> anyhow::Result<(u64, u64)> {
    let scene = Scene::new(*stage).await?;
    let queues: Vec<_> = (0..count.div_ceil(u32::from(concurrency)))
        .map(|n| format!("bench{n}"))
        .collect();
    let mut worker = ours::start(&scene, &queues, concurrency).await?;
    let idle = worker.settled_kib().await?;
    for queue in &queues {
        ours::enqueue(&scene, queue, WAIT, u32::from(concurrency)).await?;
    }
    for queue in &queues {
        until_ready(&scene, &mut worker, queue, 0).await?;
    }
    let busy = worker.settled_kib().await?;
    drop(worker);
    Ok((idle, busy))
}

/// The most that is resident while [`DRAINED`] jobs are run and `backlog` others wait.
async fn peak_beside(stage: &Stage<'_>, backlog: u32) -> anyhow::Result<u64> {
    let scene = Scene::new(*stage).await?;
    let queues = ["bench".to_owned()];
    // It declares the queue.
    ours::start(&scene, &queues, 1).await?.stop().await?;
    ours::enqueue(&scene, "bench", NOOP, DRAINED + backlog).await?;
    let mut worker = ours::start(&scene, &queues, stage.options.prefetch).await?;
    until_ready(&scene, &mut worker, "bench", backlog).await?;
    let peak = worker.peak_kib();
    drop(worker);
    let names = &scene.names;
    scene
        .clear(&[names.job_queue("bench"), names.inbox()])
        .await?;
    Ok(peak)
}

/// Waits until no more than `left` messages of a queue are not taken.
async fn until_ready(
    scene: &Scene<'_>,
    worker: &mut Group,
    queue: &str,
    left: u32,
) -> anyhow::Result<()> {
    let (queue, until) = (scene.names.job_queue(queue), Instant::now() + PATIENCE);
    loop {
        worker.check()?;
        let ready = scene.probe.ready(&queue).await?;
        if ready <= left {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{ready} jobs were not taken within {PATIENCE:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

impl Memory {
    /// Adds the figures and the bars.
    pub(crate) fn add_to(&self, report: &mut Report) {
        let each = (mib(self.many) - mib(self.idle_of_many)) * 1024.0 / f64::from(MANY);
        let growth = mib(self.large_backlog) / mib(self.small_backlog);
        for (what, value) in [
            ("MB idle", json!(mb(self.idle))),
            ("MB with 1000 in flight", json!(mb(self.some))),
            ("MB with 10000 waiting", json!(mb(self.many))),
            ("KiB a waiting task", json!(each)),
            ("backlog", json!(self.backlog)),
            ("MB at most, no backlog", json!(mb(self.small_backlog))),
            ("MB at most, with backlog", json!(mb(self.large_backlog))),
        ] {
            report.ours.insert(what.into(), value);
        }
        let beside = format!(
            "memory beside a backlog of {}, in memory without",
            self.backlog
        );
        report.bars.extend([
            Bar::at_most(
                "MB (10^6 bytes) resident with 1,000 tasks in flight",
                mb(self.some),
                20.0,
            ),
            Bar::at_most("KiB resident for each of 10,000 waiting tasks", each, 4.0),
            Bar::at_most(&beside, growth, NOISE),
        ]);
    }
}

/// Megabytes, from KiB.
fn mb(kib: u64) -> f64 {
    mib(kib) * 1.048_576
}
