//! The queues that the worker consumes, and who takes from them.

use std::sync::Arc;

use bellhop_common::amqp::{Consumer, Names, Source, StreamPosition, Subscription, Topology};
use bellhop_common::telemetry::Health;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::config::WorkerConfig;
use crate::cron;
use crate::intake::{self, Lane};
use crate::orders;
use crate::places::{Places, Share};
use crate::service::Service;
use crate::status;

/// What must exist before jobs can be taken.
pub(crate) fn topology(config: &WorkerConfig, names: &Names) -> Topology {
    let queues = config.queues.keys();
    let topology = queues.fold(Topology::worker(names), |topology, queue| {
        topology.with_job_queue(names, queue)
    });
    if config.cron.is_empty() {
        topology
    } else {
        topology.with_cron(names)
    }
}

/// The places that all queues share, in the order of the queues' names, and then their
/// quarantines.
pub(crate) fn places(config: &WorkerConfig) -> Arc<Places> {
    let shares = config.queues.values().map(|queue| Share {
        most: usize::from(queue.concurrency),
        priority: queue.priority,
        weight: queue.weight,
    });
    // First of all: there are few, and somebody has waited long for each.
    let quarantines = config.queues.values().map(|_| Share {
        most: 1,
        priority: i32::MAX,
        weight: 1,
    });
    let shares: Vec<_> = shares.chain(quarantines).collect();
    let own = shares.iter().map(|share| share.most).sum();
    let all = config.jobs.concurrency.map_or(own, usize::from);
    Places::new(all, shares)
}

/// Starts to consume them.
pub(crate) fn start(
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
            queue: queue.as_str().into(),
            index,
            is_quarantine: false,
        };
        let source = Source::Queue(service.names.job_queue(queue));
        let priority = settings.consumer_priority;
        serve(source, settings.concurrency, priority, lane);
        let quarantine = Lane {
            queue: queue.as_str().into(),
            index: service.config.queues.len() + index,
            is_quarantine: true,
        };
        let source = Source::Queue(service.names.quarantine(queue));
        serve(source, 1, priority, quarantine);
    }
    subscriptions.extend(cron::start(
        &service.config.cron,
        &service.registry,
        &service.names,
        &service.publisher,
        &service.tracker,
        &service.stop,
    ));
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
