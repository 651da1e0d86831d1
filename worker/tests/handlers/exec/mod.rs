//! `exec`, with real programs.

mod ending;
mod limits;
mod protocol;
mod resources;

use std::path::Path;
use std::time::Duration;

use bellhop_common::wire::{Progress, TaskError};
use bellhop_worker::tasks::{Exec, ExecConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// No test waits longer; it is far above what any of them takes.
const LONG: Duration = Duration::from_secs(30);

fn sh(script: &str) -> ExecConfig {
    ExecConfig::new(["sh", "-c", script])
}

fn python(script: &str) -> ExecConfig {
    ExecConfig::new(["python3", "-c", script])
}

/// Runs a job to its end.
async fn run(config: ExecConfig, args: Value) -> Outcome {
    let running = start(config, args);
    timeout(LONG, running.task).await.unwrap().unwrap()
}

/// The result of a job that is done.
async fn result(config: ExecConfig, args: Value) -> Value {
    match run(config, args).await {
        Outcome::Done(result) => result,
        other => panic!("{other:?}"),
    }
}

/// How a job fails for good.
async fn failure(config: ExecConfig) -> TaskError {
    match run(config, json!({})).await {
        Outcome::Fail(error) => error,
        other => panic!("{other:?}"),
    }
}

/// A job that runs.
struct Running {
    task: JoinHandle<Outcome>,
    seen: Receiver<Option<Progress>>,
    cancel: CancellationToken,
}

fn start(config: ExecConfig, args: Value) -> Running {
    let (ctx, seen) = TaskContext::detached();
    let cancel = ctx.cancelled().clone();
    let exec = Exec::new("test.kind", config).unwrap();
    Running {
        task: tokio::spawn(async move { exec.run(ctx, args).await }),
        seen,
        cancel,
    }
}

impl Running {
    /// Waits for a progress message, and returns its words as process ids.
    async fn pids(&mut self) -> Vec<u32> {
        let said = |progress: &Option<Progress>| {
            progress
                .as_ref()
                .is_some_and(|progress| progress.message.is_some())
        };
        let progress = timeout(LONG, self.seen.wait_for(said))
            .await
            .unwrap()
            .unwrap()
            .clone();
        let message = progress.unwrap().message.unwrap();
        message
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect()
    }

    async fn outcome(self) -> Outcome {
        timeout(LONG, self.task).await.unwrap().unwrap()
    }
}

/// Whether a process runs; one that only waits to be reaped does not.
fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Whether the system knows a process at all.
fn known(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Whether a process runs with that word in its command line.
fn any_with(word: &str) -> bool {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        entry
            .unwrap()
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
    });
    pids.filter(|pid| *pid != std::process::id()).any(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(word)
    })
}

/// Waits for what only the system knows, and says of nothing when it happens.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < LONG, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
