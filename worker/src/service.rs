//! The running worker: starts everything, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{Consumer, Names, Publisher, Source, Subscription, Topology};
use bellhop_common::http::{Limits, not_found, serve, status_routes};
use bellhop_common::telemetry::{Health, Metrics, MetricsError};
use bellhop_common::tls;
use bellhop_common::wire::Job;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use warp::Filter as _;

use crate::celery::{Bridge, Monitor};
use crate::config::WorkerConfig;
use crate::in_hand::InHand;
use crate::intake;
use crate::metric;
use crate::registry::Registry;

/// Why the worker cannot run.
#[derive(Debug, Error)]
pub enum RunError {
    /// Metrics.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
}

/// What every job needs.
pub(crate) struct Service {
    pub(crate) config: WorkerConfig,
    pub(crate) names: Names,
    pub(crate) publisher: Publisher,
    pub(crate) registry: Registry,
    pub(crate) in_hand: InHand,
    pub(crate) monitor: Monitor,
    /// Owns the tasks of all jobs.
    pub(crate) tracker: TaskTracker,
    /// Take no more.
    pub(crate) stop: CancellationToken,
    /// Give up what still runs.
    pub(crate) abandon: CancellationToken,
}

impl Service {
    /// How long an attempt may take: what the job says, then its kind, then the default.
    pub(crate) fn time_limit(&self, job: &Job) -> Duration {
        let of_kind = || {
            self.config
                .exec
                .get(&job.kind)
                .and_then(|exec| exec.timeout)
        };
        job.timeout_s
            .map(Duration::from_secs)
            .or_else(|| of_kind().map(Duration::from))
            .unwrap_or(self.config.jobs.timeout.0)
    }
}

/// Serves the configured queues until `shutdown`: then takes no more jobs, lets those in hand
/// finish until `shutdown.deadline`, and hands the rest back. The broker may be away at any time,
/// at the start too.
///
/// # Errors
/// [`RunError`] before anything is started.
pub async fn run(
    listener: TcpListener,
    config: WorkerConfig,
    registry: Registry,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    tls::install_provider();
    let metrics = Metrics::install()?;
    metric::describe();
    let health = Health::new();
    let names = Names::new(&config.amqp);
    let topology = config
        .queues
        .keys()
        .fold(Topology::base(&names), |topology, queue| {
            topology.with_job_queue(&names, queue)
        });
    let component = health.component("amqp.publisher");
    let (publisher, publisher_task) =
        Publisher::start(&config.amqp, "worker", topology.clone(), component);
    let (monitor, monitor_task) = Monitor::start(&config, &registry);
    let service = Arc::new(Service {
        names,
        publisher,
        registry,
        in_hand: InHand::default(),
        monitor,
        tracker: TaskTracker::new(),
        stop: shutdown.clone(),
        abandon: CancellationToken::new(),
        config,
    });
    let pages = TaskTracker::new();
    let routes = status_routes(health.clone(), metrics.clone());
    pages.spawn(metrics.upkeep(shutdown.clone()));
    pages.spawn(serve(
        listener,
        routes.recover(not_found),
        Limits::default(),
        shutdown.clone(),
    ));
    let consumer = start_queues(&service, topology, &health);
    let bridge = Bridge::start(&service, &health);
    info!(kinds = ?service.registry, queues = ?service.config.queues.keys(), "worker started");

    shutdown.cancelled().await;
    consumer.stop_intake();
    if let Some(bridge) = &bridge {
        bridge.stop_intake();
    }
    drain(&service).await;
    consumer.close().await;
    if let Some(bridge) = bridge {
        bridge.close().await;
    }
    if let Some(monitor) = monitor_task {
        monitor.close().await;
    }
    publisher_task.close().await;
    pages.close();
    if timeout(Duration::from_secs(5), pages.wait()).await.is_err() {
        warn!("HTTP connections were still open");
    }
    info!("worker stopped");
    Ok(())
}

fn start_queues(service: &Arc<Service>, topology: Topology, health: &Health) -> Consumer {
    let mut subscriptions = Vec::new();
    for (queue, settings) in &service.config.queues {
        let (sender, deliveries) = mpsc::channel(1);
        subscriptions.push(Subscription {
            source: Source::Queue(service.names.job_queue(queue)),
            prefetch: settings.concurrency,
            deliveries: sender,
        });
        let taking = intake::take(
            Arc::clone(service),
            queue.clone(),
            settings.concurrency,
            deliveries,
        );
        service.tracker.spawn(taking);
    }
    let component = health.component("amqp.consumer");
    Consumer::start(
        &service.config.amqp,
        "worker",
        topology,
        subscriptions,
        component,
    )
}

async fn drain(service: &Service) {
    let deadline = service.config.shutdown.deadline.0;
    service.tracker.close();
    if timeout(deadline, service.tracker.wait()).await.is_ok() {
        return;
    }
    warn!(
        jobs = service.tracker.len(),
        ?deadline,
        "the deadline is over, handing jobs back"
    );
    service.abandon.cancel();
    // The grace that each handler has, and a moment to tell the broker.
    let last = service.config.jobs.grace.0 + Duration::from_secs(2);
    if timeout(last, service.tracker.wait()).await.is_err() {
        let jobs = service.tracker.len();
        warn!(
            jobs,
            "jobs did not let go; the broker will deliver them again"
        );
    }
}
