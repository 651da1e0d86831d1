//! A worker whose tasks cost next to nothing, for tests that kill it: see `support/chaos.rs`.
#![allow(clippy::unwrap_used, reason = "test code: a panic is how it reports")]

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bellhop_common::config::{ConfigFlags, Sources};
use bellhop_common::shutdown;
use bellhop_common::telemetry::init_logs;
use bellhop_tests::chaos::{does_fail, nap};
use bellhop_worker::{Outcome, Registry, Task, TaskContext, WorkerConfig};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::time::sleep;

#[derive(Deserialize)]
struct Args {
    /// Where to note that an attempt began. A short append is one write, which outlives us.
    log: PathBuf,
}

impl Args {
    fn note(&self, ctx: &TaskContext) {
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        let line = format!("{} {}\n", ctx.task_id, ctx.attempt);
        log.unwrap().write_all(line.as_bytes()).unwrap();
    }
}

struct Noop;

impl Task for Noop {
    const KIND: &'static str = "noop";
    type Args = Args;

    async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
        args.note(&ctx);
        Outcome::done(&ctx.attempt)
    }
}

struct Flaky;

impl Task for Flaky {
    const KIND: &'static str = "flaky";
    type Args = Args;

    async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
        args.note(&ctx);
        if does_fail(&ctx.task_id, ctx.attempt) {
            return Outcome::retry("flaky", "not this time");
        }
        Outcome::done(&ctx.attempt)
    }
}

struct Slow;

impl Task for Slow {
    const KIND: &'static str = "slow";
    type Args = Args;

    async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
        args.note(&ctx);
        tokio::select! {
            () = sleep(nap(&ctx.task_id)) => Outcome::done(&ctx.attempt),
            () = ctx.cancelled().cancelled() => Outcome::Cancelled,
        }
    }
}

/// Takes the whole worker with it, after a moment in which its neighbours begin.
struct Poison;

impl Task for Poison {
    const KIND: &'static str = "poison";
    type Args = Args;

    async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
        args.note(&ctx);
        sleep(Duration::from_millis(50)).await;
        std::process::abort()
    }
}

#[tokio::main]
async fn main() {
    // `run --set KEY=VALUE …`, as the programs take it.
    let mut flags = ConfigFlags::default();
    let mut arguments = std::env::args().skip(2);
    while let (Some(_), Some(setting)) = (arguments.next(), arguments.next()) {
        flags.set.push(setting);
    }
    let config: WorkerConfig = Sources::of_process(&flags).load().unwrap();
    init_logs(&config.log).unwrap();
    let listener = TcpListener::bind(config.http.listen).await.unwrap();
    let shutdown = shutdown::on_signal(|| {}).unwrap();
    let registry = Registry::new()
        .with(Noop)
        .with(Flaky)
        .with(Slow)
        .with(Poison);
    bellhop_worker::run(listener, config, registry, shutdown)
        .await
        .unwrap();
}
