//! Our side: the real worker, with tasks that do nothing.

use std::net::SocketAddr;

use bellhop_common::amqp::{Route, Topology};
use bellhop_common::config::{HumanDuration, LogConfig};
use bellhop_common::enqueue::message;
use bellhop_common::shutdown;
use bellhop_common::telemetry::init_logs;
use bellhop_common::wire::Job;
use bellhop_worker::{Outcome, QueueConfig, Registry, Task, TaskContext, WorkerConfig};
use clap::Args;
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::load::fill;
use super::scene::Scene;
use crate::place::{Place, free_address};
use crate::process::Group;

/// The worker as a process: `worker run` with these settings and the tasks below.
#[derive(Debug, Args)]
pub(crate) struct Ours {
    #[command(flatten)]
    place: Place,
    /// Where its status pages are
    #[arg(long)]
    listen: SocketAddr,
    /// How many jobs of each queue run at once
    #[arg(long)]
    concurrency: u16,
    /// What it logs
    #[arg(long)]
    log: String,
    /// Its queues
    #[arg(required = true)]
    queues: Vec<String>,
}

/// Ends at once.
struct NoOp;

impl Task for NoOp {
    const KIND: &'static str = "bench.noop";
    type Args = IgnoredAny;

    async fn run(&self, _: TaskContext, _: IgnoredAny) -> Outcome {
        Outcome::done(&())
    }
}

/// Waits until it is told to end.
struct Wait;

impl Task for Wait {
    const KIND: &'static str = "bench.wait";
    type Args = IgnoredAny;

    async fn run(&self, ctx: TaskContext, _: IgnoredAny) -> Outcome {
        ctx.cancelled().cancelled().await;
        Outcome::Cancelled
    }
}

/// The kind of the jobs that end at once.
pub(crate) const NOOP: &str = NoOp::KIND;
/// The kind of the jobs that wait.
pub(crate) const WAIT: &str = Wait::KIND;

impl Ours {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut config = WorkerConfig {
            amqp: self.place.config()?,
            ..WorkerConfig::default()
        };
        config.shutdown.deadline = HumanDuration::from_secs(5);
        let settings = QueueConfig {
            concurrency: self.concurrency,
            ..QueueConfig::default()
        };
        config.queues = self
            .queues
            .into_iter()
            .map(|queue| (queue, settings.clone()))
            .collect();
        init_logs(&LogConfig {
            level: self.log,
            ..LogConfig::default()
        })?;
        let listener = TcpListener::bind(self.listen).await?;
        let registry = Registry::new().with(NoOp).with(Wait);
        let stop = shutdown::on_signal(|| {})?;
        Ok(bellhop_worker::run(listener, config, registry, stop).await?)
    }
}

/// Starts it, and waits until it is ready.
pub(crate) async fn start(
    scene: &Scene<'_>,
    queues: &[String],
    concurrency: u16,
) -> anyhow::Result<Group> {
    let listen = free_address()?;
    let mut command = scene.itself("ours")?;
    command
        .args(["--listen", &listen.to_string()])
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--log", &scene.stage.options.log])
        .args(queues);
    let mut group = Group::start(command, "our worker", scene.stage.folder.join("ours.log"))?;
    group.until_ready(listen).await?;
    Ok(group)
}

/// Puts jobs of a kind into a queue that a worker has declared.
pub(crate) async fn enqueue(
    scene: &Scene<'_>,
    queue: &str,
    kind: &str,
    count: u32,
) -> anyhow::Result<()> {
    let exchange = scene.names.jobs();
    let route = Route {
        exchange: &exchange,
        key: queue,
        mandatory: false,
    };
    let topology = Topology::producer(&scene.names);
    fill(&scene.config, topology, route, count, || {
        let job = Job::new(Uuid::now_v7().to_string(), kind, json!({}), "bench");
        Ok(message(&job, Timestamp::now())?)
    })
    .await
}
