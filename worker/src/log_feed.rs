//! Telling the owner what a task logs: [`LogSink`] takes the lines, [`LogFeed`] publishes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::enqueue::publish_live;
use bellhop_common::wire::{Job, TASK_LOG, TaskLog};
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::log_buffer::LogBuffer;
use crate::service::Service;

/// The shortest time between two batches of a task.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long the end of a task waits for its last lines. They are a courtesy, the end is not.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a handler puts its lines. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogSink(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<LogBuffer>,
    arrived: Notify,
}

impl LogSink {
    pub(crate) fn push(&self, text: &str, now: Timestamp) {
        self.waiting().push(text, now);
        self.0.arrived.notify_one();
    }

    /// The lines that nobody was told yet.
    pub(crate) fn waiting_lines(&self) -> Vec<String> {
        self.waiting().texts().map(str::to_owned).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, LogBuffer> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lines of one attempt on their way to its owner.
#[derive(Debug)]
pub(crate) struct LogFeed {
    sink: LogSink,
    log: TaskLog,
    user_id: String,
    room_id: Option<String>,
    ended: CancellationToken,
}

impl LogFeed {
    pub(crate) fn new(job: &Job, attempt: u32) -> Self {
        Self {
            sink: LogSink::default(),
            log: TaskLog {
                task_id: job.id.clone(),
                attempt,
                lines: Vec::new(),
                dropped: 0,
            },
            user_id: job.user_id.clone(),
            room_id: job.room_id.clone(),
            ended: CancellationToken::new(),
        }
    }

    /// For the handler's context.
    pub(crate) fn sink(&self) -> LogSink {
        self.sink.clone()
    }

    /// Fires when the handler has ended; see [`LogFeed::tell`].
    pub(crate) fn end(&self) -> CancellationToken {
        self.ended.clone()
    }

    /// Publishes the lines as they come, at most every [`INTERVAL`]. Ends when [`LogFeed::end`] has
    /// fired and the last lines are told, or could not be within [`LAST_LINES_TIMEOUT`].
    ///
    /// Finish it rather than drop it, so that a batch that is on its way is not lost.
    pub(crate) async fn tell(mut self, service: &Service) {
        let ended = self.ended.clone();
        while !ended.is_cancelled() {
            tokio::select! {
                () = self.sink.0.arrived.notified() => {}
                () = ended.cancelled() => break,
            }
            let next = Instant::now() + INTERVAL;
            tokio::select! {
                () = Box::pin(self.publish(service)) => {}
                () = out_of_time(&ended) => return,
            }
            // Only the end of the wait or of the task; both go on.
            drop(timeout_at(next, ended.cancelled()).await);
        }
        if timeout(LAST_LINES_TIMEOUT, Box::pin(self.publish(service)))
            .await
            .is_err()
        {
            debug!(
                task_id = self.log.task_id,
                "the last log lines were not sent in time"
            );
        }
    }

    async fn publish(&mut self, service: &Service) {
        let Some(batch) = self.sink.waiting().take() else {
            return;
        };
        (self.log.lines, self.log.dropped) = (batch.lines, batch.dropped);
        let sent = publish_live(
            &service.publisher,
            &service.names,
            TASK_LOG,
            &self.log,
            &self.user_id,
            self.room_id.as_deref(),
        );
        if let Err(error) = sent.await {
            debug!(%error, task_id = self.log.task_id, "log lines were not sent");
        }
    }
}

async fn out_of_time(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(LAST_LINES_TIMEOUT).await;
}
