//! The running worker: starts everything, and stops it in order.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::{Consumer, Names, Publisher, Rungs};
use bellhop_common::http::{Limits, not_found, serve, status_routes};
use bellhop_common::telemetry::{Health, Metrics, MetricsError};
use bellhop_common::tls;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use warp::Filter as _;

use crate::celery::{Bridge, Monitor};
use crate::config::WorkerConfig;
use crate::in_hand::InHand;
use crate::ledger::Ledger;
use crate::limits::KindLimits;
use crate::metric;
use crate::orders::Orders;
use crate::places::Places;
use crate::queues;
use crate::registry::Registry;
use crate::status::Board;

/// How long the broker may take to hear that we take no more.
const QUIET: Duration = Duration::from_secs(1);

/// How long an outcome may take to reach the broker once jobs are given up.
const LAST_WORDS: Duration = Duration::from_millis(1500);

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
    pub(crate) orders: Orders,
    pub(crate) ledger: Ledger,
    pub(crate) board: Board,
    pub(crate) limits: KindLimits,
    pub(crate) places: Arc<Places>,
    pub(crate) rungs: Rungs,
    /// Owns the tasks of all jobs.
    pub(crate) tracker: TaskTracker,
    /// Take no more.
    pub(crate) stop: CancellationToken,
    /// The broker sends no more, as far as is known: what is handed back does not come here again.
    pub(crate) quiet: CancellationToken,
    /// Give up what still runs.
    pub(crate) abandon: CancellationToken,
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
    let topology = queues::topology(&config, &names);
    let component = health.component("amqp.publisher");
    let (publisher, publisher_task) =
        Publisher::start(&config.amqp, "worker", topology.clone(), component);
    let pages = TaskTracker::new();
    let (amqp, over) = (config.amqp.clone(), CancellationToken::new());
    let (ledger, reading) = Ledger::new(amqp, names.clone(), publisher.clone(), over.clone());
    let (monitor, monitor_task) = Monitor::start(&config, &registry);
    let service = Arc::new(Service {
        names,
        publisher,
        registry,
        in_hand: InHand::default(),
        monitor,
        orders: Orders::new(),
        ledger,
        board: Board::new(),
        limits: KindLimits::new(&config.kinds),
        places: queues::places(&config),
        rungs: Rungs::default(),
        tracker: TaskTracker::new(),
        stop: shutdown.clone(),
        quiet: CancellationToken::new(),
        abandon: CancellationToken::new(),
        config,
    });
    pages.spawn(reading);
    start_pages(&pages, listener, &health, metrics, &shutdown);
    let consumer = queues::start(&service, &pages, topology, &health);
    let bridge = Bridge::start(&service, &health);
    info!(kinds = ?service.registry, queues = ?service.config.queues.keys(), "worker started");

    shutdown.cancelled().await;
    consumer.stop_intake();
    if let Some(bridge) = &bridge {
        bridge.stop_intake();
    }
    drain(&service, &consumer).await;
    over.cancel();
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

fn start_pages(
    pages: &TaskTracker,
    listener: TcpListener,
    health: &Health,
    metrics: Metrics,
    shutdown: &CancellationToken,
) {
    let routes = status_routes(health.clone(), metrics.clone());
    pages.spawn(metrics.upkeep(shutdown.clone()));
    pages.spawn(serve(
        listener,
        routes.recover(not_found),
        Limits::default(),
        shutdown.clone(),
    ));
}

impl Service {
    /// Fires when an outcome can wait no longer for the broker: a while after jobs were given up,
    /// because some end just then, as they were asked to.
    pub(crate) async fn out_of_time(&self) {
        self.abandon.cancelled().await;
        sleep(self.config.jobs.grace.0 + LAST_WORDS).await;
    }
}

async fn drain(service: &Service, consumer: &Consumer) {
    let deadline = service.config.shutdown.deadline.0;
    let end = Instant::now() + deadline;
    service.tracker.close();
    // Or what is handed back would come to this worker again, and be lost with its connection.
    if timeout(QUIET, consumer.intake_stopped()).await.is_err() {
        warn!("the broker does not say that it sends no more jobs");
    }
    service.quiet.cancel();
    if timeout_at(end, service.tracker.wait()).await.is_ok() {
        return;
    }
    warn!(
        jobs = service.tracker.len(),
        ?deadline,
        "the deadline is over, handing jobs back"
    );
    service.abandon.cancel();
    service.in_hand.wake_all();
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
