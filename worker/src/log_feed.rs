//! Telling the owner what a task logs.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bellhop_common::enqueue::publish_live;
use bellhop_common::wire::{TASK_LOG, TaskLog};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::{Sleep, sleep, timeout};
use tracing::debug;

use crate::in_hand::Held;
use crate::service::Service;

/// The shortest time between two batches of a task.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long the end of a task waits for its last lines. They are a courtesy, the end is not.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// A batch of lines on its way, and then the pause before the next.
pub(crate) struct Telling<'a> {
    sending: Option<BoxFuture<'a, ()>>,
    pause: Pin<Box<Sleep>>,
}

impl<'a> Telling<'a> {
    /// Begins with the lines that wait.
    pub(crate) fn begin(service: &'a Service, held: &'a Held) -> Self {
        Self {
            sending: Some(Box::pin(publish(service, held))),
            pause: Box::pin(sleep(INTERVAL)),
        }
    }

    /// Sends no more than is on its way.
    async fn sent(mut self: Box<Self>) {
        if let Some(sending) = self.sending.take() {
            sending.await;
        }
    }
}

/// Ready when the next batch may begin.
impl Future for Telling<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(sending) = &mut self.sending {
            ready!(sending.poll_unpin(context));
            self.sending = None;
        }
        self.pause.as_mut().poll(context)
    }
}

/// Tells the last lines, after those that are on their way, or gives up after
/// [`LAST_LINES_TIMEOUT`].
pub(crate) async fn tell_last(service: &Service, held: &Held, telling: Option<Box<Telling<'_>>>) {
    if telling.is_none() && !held.link.has_lines() {
        return;
    }
    let last = async {
        if let Some(telling) = telling {
            telling.sent().await;
        }
        publish(service, held).await;
    };
    if timeout(LAST_LINES_TIMEOUT, last).await.is_err() {
        debug!(
            task_id = held.message.job.id,
            "the last log lines were not sent in time"
        );
    }
}

async fn publish(service: &Service, held: &Held) {
    let Some(batch) = held.link.take_lines() else {
        return;
    };
    let job = &held.message.job;
    let log = TaskLog {
        task_id: job.id.clone(),
        attempt: held.message.attempt(),
        lines: batch.lines,
        dropped: batch.dropped,
    };
    let sent = publish_live(
        &service.publisher,
        &service.names,
        TASK_LOG,
        &log,
        &job.user_id,
        job.room_id.as_deref(),
    );
    if let Err(error) = sent.await {
        debug!(%error, task_id = job.id, "log lines were not sent");
    }
}
