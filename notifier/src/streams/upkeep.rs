//! Opening the store, and what looks after it and the streams.

use std::sync::Arc;
use std::time::Duration;

use bellhop_common::amqp::Lock;
use bellhop_common::config::Secret;
use bellhop_common::telemetry::{Component, Health};
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::{Streams, catch_up, leaving};
use crate::config::{StoreConfig, StoreKind};
use crate::directory;
use crate::gateway::Gateway;
use crate::metric;
use crate::service::RunError;
use crate::store::{Redis, SharedStore, Sqlite, StreamName, Swept};

/// Between two looks for what is too old.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// A file has one notifier, and beside it none that keeps events elsewhere or nowhere: each would
/// have a part of them.
pub(crate) fn lock(gateway: &Gateway) -> Lock {
    let queue = gateway.names.store_lock();
    match gateway.config.store.kind {
        StoreKind::Sqlite => Lock::alone(queue),
        StoreKind::Redis | StoreKind::None => Lock::shared(queue),
    }
}

/// Streams that are behind.
type Behind = mpsc::Receiver<StreamName>;

/// Opens the store that is configured.
pub(crate) fn open(config: &StoreConfig) -> Result<Option<(Streams, Behind)>, RunError> {
    let retention = config.retention();
    match config.kind {
        StoreKind::None => Ok(None),
        StoreKind::Sqlite => {
            let store = Sqlite::open(&config.path, retention)?;
            Ok(Some(Streams::new(Arc::new(store))))
        }
        StoreKind::Redis => {
            let url = config.url().map_err(RunError::StoreUrlFile)?;
            let url = url.unwrap_or_else(|| Secret::new(""));
            let redis = Arc::new(Redis::open(url.expose(), &config.prefix, retention)?);
            let store: SharedStore = Arc::<Redis>::clone(&redis);
            let (mut streams, behind) = Streams::new(store);
            streams.redis = Some(redis);
            Ok(Some((streams, behind)))
        }
    }
}

/// Starts what keeps streams and cursors in order, and tells others who is connected.
pub(crate) fn look_after(
    gateway: &Arc<Gateway>,
    behind: Behind,
    (hears, health): (Component, &Health),
    tasks: &TaskTracker,
) {
    let answers = health.component("store.reads");
    let closed = || gateway.closed.clone();
    tasks.spawn(catch_up::run(Arc::clone(gateway), behind, closed()));
    tasks.spawn(catch_up::watch(
        Arc::clone(gateway),
        hears,
        answers,
        closed(),
    ));
    tasks.spawn(leaving::keep(Arc::clone(gateway), closed()));
    tasks.spawn(directory::keep(Arc::clone(gateway), closed()));
    tasks.spawn(sweep(Arc::clone(gateway), closed()));
}

/// Removes what is too old.
async fn sweep(gateway: Arc<Gateway>, closed: CancellationToken) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    loop {
        tokio::select! {
            () = sleep(SWEEP_EVERY) => {}
            () = closed.cancelled() => return,
        }
        let now = gateway.clock.unhurried();
        while !closed.is_cancelled() {
            match streams.store.sweep(now).await {
                Ok(Swept {
                    events,
                    tasks,
                    groups,
                    attempts,
                    more,
                }) => {
                    counter!(metric::SWEPT, "what" => "events").increment(events);
                    counter!(metric::SWEPT, "what" => "tasks").increment(tasks);
                    counter!(metric::SWEPT, "what" => "groups").increment(groups);
                    counter!(metric::SWEPT, "what" => "attempts").increment(attempts);
                    if !more {
                        break;
                    }
                }
                Err(error) => {
                    warn!(%error, "what is too old cannot be removed");
                    break;
                }
            }
        }
    }
}
