//! How far users had everything when they left, on its way into the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::gateway::Gateway;
use crate::store::{Position, StreamName};

/// What comes within this time is kept together.
const GATHER: Duration = Duration::from_millis(50);

/// How many may wait. One that is lost means events shown twice, not missed.
const MOST: usize = 65_536;

/// How long the last ones may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// After the store could not.
const RETRY: Duration = Duration::from_secs(1);

/// Cursors that the store does not have yet. Who comes back at once is known here.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    cursors: Mutex<HashMap<StreamName, Position>>,
    moved: Notify,
}

impl Leaving {
    /// A user has everything up to a position.
    pub(crate) fn move_cursor(&self, name: StreamName, position: Position) {
        let mut cursors = self.lock();
        if cursors.len() >= MOST && !cursors.contains_key(&name) {
            return;
        }
        let known = cursors.entry(name).or_insert(position);
        if known.epoch != position.epoch || known.seq < position.seq {
            *known = position;
        }
        drop(cursors);
        self.moved.notify_one();
    }

    /// A cursor that the store may not have yet.
    pub(crate) fn cursor(&self, name: &StreamName) -> Option<Position> {
        self.lock().get(name).copied()
    }

    fn all(&self) -> Vec<(StreamName, Position)> {
        let cursors = self.lock();
        let all = cursors
            .iter()
            .map(|(name, position)| (name.clone(), *position));
        all.collect()
    }

    fn forget(&self, kept: &[(StreamName, Position)]) {
        let mut cursors = self.lock();
        for (name, position) in kept {
            if cursors.get(name) == Some(position) {
                cursors.remove(name);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StreamName, Position>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps cursors until `closed`, and then what is still there.
pub(crate) async fn keep(gateway: Arc<Gateway>, closed: CancellationToken) {
    let Some(streams) = &gateway.streams else {
        return;
    };
    let mut pause = GATHER;
    while !closed.is_cancelled() {
        tokio::select! {
            () = streams.leaving.moved.notified() => {}
            () = closed.cancelled() => break,
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = closed.cancelled() => {}
        }
        pause = if put(&gateway).await { GATHER } else { RETRY };
    }
    if timeout(LAST, put(&gateway)).await.is_err() {
        warn!("how far users had come is not known; they may see events twice");
    }
}

/// Whether all is kept.
async fn put(gateway: &Gateway) -> bool {
    let Some(streams) = &gateway.streams else {
        return true;
    };
    let all = streams.leaving.all();
    if all.is_empty() {
        return true;
    }
    let kept = streams.store.move_cursors(all.clone()).await;
    if let Err(error) = &kept {
        warn!(%error, "how far users had come is not kept yet");
        streams.leaving.moved.notify_one();
    } else {
        streams.leaving.forget(&all);
    }
    kept.is_ok()
}
