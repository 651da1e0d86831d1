//! The running worker: starts everything, and stops it in order.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use bellhop_common::amqp::{
    Consumer, Names, Publisher, Source, StreamPosition, Subscription, Topology, ladder,
};
use bellhop_common::backoff::Backoff;
use bellhop_common::http::{Limits, not_found, serve, status_routes};
use bellhop_common::telemetry::{Health, Metrics, MetricsError};
use bellhop_common::tls;
use bellhop_common::wire::Job;
use jiff::Timestamp;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use warp::Filter as _;

use crate::config::{KindConfig, WorkerConfig};
use crate::execution::TimeLimit;
use crate::in_hand::InHand;
use crate::intake::{self, Lane};
use crate::ledger::Ledger;
use crate::limits::KindLimits;
use crate::message::{JobMessage, later};
use crate::metric;
use crate::orders::{self, Orders};
use crate::places::{Places, Share};
use crate::registry::Registry;
use crate::retry::Policy;
use crate::status::{self, Board};

/// How long the broker may take to hear that we take no more.
const QUIET: Duration = Duration::from_secs(1);

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
    pub(crate) orders: Orders,
    pub(crate) ledger: Ledger,
    pub(crate) board: Board,
    pub(crate) limits: KindLimits,
    pub(crate) places: Arc<Places>,
    /// How many rungs of the delay ladder are known to be there.
    pub(crate) ladder_height: AtomicU8,
    /// Owns the tasks of all jobs.
    pub(crate) tracker: TaskTracker,
    /// Take no more.
    pub(crate) stop: CancellationToken,
    /// Give up what still runs.
    pub(crate) abandon: CancellationToken,
}

impl Service {
    fn kind(&self, job: &Job) -> KindConfig {
        self.config
            .kinds
            .get(&job.kind)
            .cloned()
            .unwrap_or_default()
    }

    /// How a job is tried again: what the job says, then its kind, then the default.
    pub(crate) fn policy(&self, job: &Job) -> Policy {
        let (jobs, kind) = (&self.config.jobs, self.kind(job));
        let max_attempts = job.max_attempts.or(kind.max_attempts);
        Policy {
            max_attempts: max_attempts.unwrap_or(jobs.max_attempts),
            backoff: Backoff {
                base: kind.retry_base.unwrap_or(jobs.retry_base).0,
                cap: kind.retry_cap.unwrap_or(jobs.retry_cap).0,
            },
        }
    }

    /// When the job must be over, if ever.
    fn deadline(&self, message: &JobMessage, now: Timestamp) -> Option<Timestamp> {
        let total = self.kind(&message.job).total_timeout;
        let total = total.or(self.config.jobs.total_timeout);
        let since = message.since().unwrap_or(now);
        let by_config = total.map(|total| later(since, total.0));
        message.job.expires_at.into_iter().chain(by_config).min()
    }

    /// Whether it is too late for a job at that time.
    pub(crate) fn is_over(&self, message: &JobMessage, at: Timestamp) -> bool {
        self.deadline(message, at).is_some_and(|end| end <= at)
    }

    /// How long an attempt may take: what the job says, then its kind, then what runs it, then the
    /// default; and never beyond the job's own end.
    pub(crate) fn time_limit(&self, message: &JobMessage, now: Timestamp) -> TimeLimit {
        let job = &message.job;
        let of_handler = || self.config.exec.get(&job.kind)?.timeout;
        let limit = job
            .timeout_s
            .map(Duration::from_secs)
            .or_else(|| {
                self.kind(job)
                    .timeout
                    .or_else(of_handler)
                    .map(Duration::from)
            })
            .unwrap_or(self.config.jobs.timeout.0);
        let left = self
            .deadline(message, now)
            .map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default());
        match left {
            Some(left) if left < limit => TimeLimit {
                limit: left,
                is_last: true,
            },
            _ => TimeLimit {
                limit,
                is_last: false,
            },
        }
    }

    /// A kind as a metric's label: of unknown kinds there may be any number.
    pub(crate) fn label(&self, kind: &str) -> String {
        match self.registry.get(kind) {
            Some(_) => kind.to_owned(),
            None => "unknown".to_owned(),
        }
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
        .fold(Topology::worker(&names), |topology, queue| {
            topology.with_job_queue(&names, queue)
        });
    let component = health.component("amqp.publisher");
    let (publisher, publisher_task) =
        Publisher::start(&config.amqp, "worker", topology.clone(), component);
    let pages = TaskTracker::new();
    let (amqp, over) = (config.amqp.clone(), CancellationToken::new());
    let (ledger, reading) = Ledger::new(amqp, names.clone(), publisher.clone(), over.clone());
    let service = Arc::new(Service {
        names,
        publisher,
        registry,
        in_hand: InHand::default(),
        orders: Orders::new(),
        ledger,
        board: Board::new(),
        limits: KindLimits::new(&config.kinds),
        places: places(&config),
        ladder_height: AtomicU8::new(0),
        tracker: TaskTracker::new(),
        stop: shutdown.clone(),
        abandon: CancellationToken::new(),
        config,
    });
    pages.spawn(reading);
    let routes = status_routes(health.clone(), metrics.clone());
    pages.spawn(metrics.upkeep(shutdown.clone()));
    pages.spawn(serve(
        listener,
        routes.recover(not_found),
        Limits::default(),
        shutdown.clone(),
    ));
    let consumer = start_queues(&service, &pages, topology, &health);
    info!(kinds = ?service.registry, queues = ?service.config.queues.keys(), "worker started");

    shutdown.cancelled().await;
    consumer.stop_intake();
    drain(&service, &consumer).await;
    over.cancel();
    consumer.close().await;
    publisher_task.close().await;
    pages.close();
    if timeout(Duration::from_secs(5), pages.wait()).await.is_err() {
        warn!("HTTP connections were still open");
    }
    info!("worker stopped");
    Ok(())
}

/// The places that all queues share, in the order of the queues' names, and the quarantine last.
fn places(config: &WorkerConfig) -> Arc<Places> {
    let shares = config.queues.values().map(|queue| Share {
        most: usize::from(queue.concurrency),
        priority: queue.priority,
        weight: queue.weight,
    });
    let quarantine = Share {
        most: 1,
        priority: i32::MIN,
        weight: 1,
    };
    let shares: Vec<_> = shares.chain([quarantine]).collect();
    let own = shares.iter().map(|share| share.most).sum();
    let all = config.jobs.concurrency.map_or(own, usize::from);
    Places::new(all, shares)
}

fn start_queues(
    service: &Arc<Service>,
    pages: &TaskTracker,
    topology: Topology,
    health: &Health,
) -> Consumer {
    let (sender, orders) = mpsc::channel(64);
    let stream = Source::Stream {
        name: service.names.orders(),
        position: StreamPosition::at(0),
    };
    // First, so that a cancelled job is known before it is taken.
    let mut subscriptions = vec![Subscription::new(stream, 64, sender)];
    pages.spawn(orders::read(Arc::clone(service), orders));
    let mut serve = |source, prefetch, priority, lane| {
        let (sender, deliveries) = mpsc::channel(1);
        subscriptions.push(Subscription {
            priority,
            ..Subscription::new(source, prefetch, sender)
        });
        let taking = intake::take(Arc::clone(service), Arc::new(lane), deliveries);
        service.tracker.spawn(taking);
    };
    for (index, (queue, settings)) in service.config.queues.iter().enumerate() {
        let lane = Lane {
            queue: queue.clone(),
            index,
            is_quarantine: false,
        };
        let source = Source::Queue(service.names.job_queue(queue));
        let priority = settings.consumer_priority;
        serve(source, settings.concurrency, priority, lane);
    }
    let quarantine = Lane {
        queue: ladder::QUARANTINE.to_owned(),
        index: service.config.queues.len(),
        is_quarantine: true,
    };
    serve(Source::Queue(service.names.quarantine()), 1, 0, quarantine);
    // Last, so that whoever gets an answer knows that the worker takes jobs.
    let (sender, questions) = mpsc::channel(1);
    subscriptions.push(Subscription::new(status::questions(service), 1, sender));
    pages.spawn(status::answer(Arc::clone(service), questions));
    let component = health.component("amqp.consumer");
    Consumer::start(
        &service.config.amqp,
        "worker",
        topology,
        subscriptions,
        component,
    )
}

async fn drain(service: &Service, consumer: &Consumer) {
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
    // Or what is handed back would come to this worker again, and be lost with its connection.
    if timeout(QUIET, consumer.intake_stopped()).await.is_err() {
        warn!("the broker does not say that it sends no more jobs");
    }
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
