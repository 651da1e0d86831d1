//! What there is to say of this worker: its name, its queues, its machine.

use bellhop_common::amqp::Names;
use jiff::Timestamp;

use super::mailbox::{Facts, ServedQueue};
use super::record::Identity;
use crate::config::WorkerConfig;
use crate::registry::Registry;

pub(super) fn identity(config: &WorkerConfig) -> Identity {
    let machine = rustix::system::uname();
    let name = || format!("bellhop@{}", machine.nodename().to_string_lossy());
    Identity {
        node: config.celery.node.clone().unwrap_or_else(name),
        pid: std::process::id(),
        system: machine.sysname().to_string_lossy().into_owned(),
    }
}

pub(super) fn facts(config: &WorkerConfig, registry: &Registry) -> Facts {
    let names = Names::new(&config.amqp);
    let ours = config.queues.keys().map(|queue| ServedQueue {
        name: names.job_queue(queue),
        exchange: names.jobs(),
        key: queue.clone(),
    });
    let of_celery = config.celery.queues.keys().map(|queue| ServedQueue {
        name: queue.clone(),
        exchange: queue.clone(),
        key: queue.clone(),
    });
    let places = config.queues.values();
    Facts {
        kinds: registry.kinds().map(str::to_owned).collect(),
        queues: ours.chain(of_celery).collect(),
        concurrency: places.map(|queue| u32::from(queue.concurrency)).sum(),
        began: Timestamp::now(),
    }
}

/// Of the last 1, 5 and 15 minutes; zeros where the system does not say.
pub(super) fn load_average() -> [f64; 3] {
    // Not a file on a disk: the kernel answers at once.
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut fields = text.split_whitespace().map(|field| field.parse().ok());
    std::array::from_fn(|_| fields.next().flatten().unwrap_or(0.0))
}
