//! Running one attempt: progress out, timeout, panic, cancellation.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use bellhop_common::enqueue::{Envelope, post_status};
use bellhop_common::wire::Progress;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::feed::Feed;
use crate::log_feed::LogFeed;
use crate::message::JobMessage;
use crate::outcome::Outcome;
use crate::registry::Handler;
use crate::renewal::{self, renew};
use crate::service::Service;
use crate::status::Running;
use crate::task::TaskContext;

/// The shortest time between two progress events of a task. What comes between is conflated.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How an attempt came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// With an outcome to settle.
    Outcome(Outcome),
    /// The worker stops and has no more time; another will run the job.
    Abandoned,
}

/// How long an attempt may take, and what it means when it takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeLimit {
    /// How long.
    pub(crate) limit: Duration,
    /// Whether another attempt would come too late.
    pub(crate) is_last: bool,
}

/// Runs the handler to its end, telling the owner how far it is. Whether the message was
/// [renewed](crate::renewal) meanwhile comes with the end.
pub(crate) async fn run(
    service: &Service,
    feed: &mut Feed,
    message: &mut JobMessage,
    handler: Arc<dyn Handler>,
    cancel: &CancellationToken,
    running: &Running<'_>,
) -> (End, bool) {
    let now = Timestamp::now();
    let limit = service.time_limit(message, now);
    // A child: it also fires when the attempt must end for another reason.
    let cancelled = cancel.child_token();
    let (progress, seen) = watch::channel(None);
    let log = LogFeed::new(&message.job, message.attempt());
    running.follow(seen.clone());
    let context = TaskContext {
        task_id: message.job.id.clone(),
        user_id: message.job.user_id.clone(),
        attempt: message.attempt(),
        traceparent: message.traceparent().map(str::to_owned),
        progress,
        log: log.sink(),
        cancelled: cancelled.clone(),
    };
    // While the arguments are still there to be told.
    let begun = feed.running(message, None, now);
    service.monitor.tell(&begun, &message.job);
    let args = std::mem::take(&mut message.job.args);
    // A task of its own, so that a handler that computes for long does not hold the progress up,
    // and a panic ends nothing but the attempt.
    let handling = tokio::spawn(async move { handler.run(context, args).await });
    let attempt = Attempt {
        service,
        handling: AbortOnDropHandle::new(handling),
        asked: cancel,
        cancelled,
        limit,
    };
    let (renewed, ended) = (AtomicU8::new(0), log.end());
    // Boxed, or the future has room for two of each.
    let attempt = Box::pin(async {
        let message = &*message;
        let end = tokio::select! {
            end = attempt.finish() => end,
            never = tell_progress(service, feed, message, seen.clone()) => match never {},
            never = renew(service, message, limit.limit, &renewed) => match never {},
        };
        ended.cancel();
        end
    });
    // Joined: what the handler logged last is told before its end is.
    let (end, ()) = tokio::join!(attempt, Box::pin(log.tell(service)));
    let renewed = Box::pin(renewal::finish(service, message, &renewed)).await;
    if renewed {
        message.replaced();
    }
    // The last state always arrives: with the next event, if it was conflated away before.
    feed.keep(seen.borrow().clone(), Timestamp::now());
    (end, renewed)
}

/// Why a handler is asked to end.
enum Reason {
    OutOfTime,
    Cancelled,
    Shutdown,
}

struct Attempt<'a> {
    service: &'a Service,
    handling: AbortOnDropHandle<Outcome>,
    /// The owner's wish.
    asked: &'a CancellationToken,
    /// The handler's signal.
    cancelled: CancellationToken,
    limit: TimeLimit,
}

impl Attempt<'_> {
    async fn finish(mut self) -> End {
        let service = self.service;
        let reason = tokio::select! {
            ended = &mut self.handling => return End::Outcome(checked(ended, service)),
            () = sleep(self.limit.limit) => Reason::OutOfTime,
            () = self.asked.cancelled() => Reason::Cancelled,
            () = service.abandon.cancelled() => Reason::Shutdown,
        };
        self.cancelled.cancel();
        let grace = service.config.jobs.grace.0;
        let ended = tokio::time::timeout(grace, self.handling).await;
        match (reason, ended) {
            // It finished while it was being asked to stop.
            (_, Ok(Ok(Outcome::Done(result)))) => {
                End::Outcome(checked(Ok(Outcome::Done(result)), service))
            }
            (Reason::OutOfTime, _) => End::Outcome(self.limit.exceeded()),
            (Reason::Cancelled, _) => End::Outcome(Outcome::Cancelled),
            (Reason::Shutdown, _) => End::Abandoned,
        }
    }
}

impl TimeLimit {
    fn exceeded(self) -> Outcome {
        let message = format!("it took longer than {:?}", self.limit);
        if self.is_last {
            Outcome::fail(
                "expired",
                format!("{message}, and no time is left for another attempt"),
            )
        } else {
            Outcome::retry("timeout", message)
        }
    }
}

/// Turns a panic and a result that is too large into failures.
fn checked(ended: Result<Outcome, tokio::task::JoinError>, service: &Service) -> Outcome {
    match ended {
        Ok(Outcome::Done(result)) => {
            let limit = service.config.jobs.max_result_size;
            match size(&result) {
                bytes if bytes > limit.bytes() => Outcome::fail(
                    "result_too_large",
                    format!(
                        "the result has {bytes} bytes, jobs.max_result_size allows {limit}: \
                         keep it elsewhere and return a reference"
                    ),
                ),
                _ => Outcome::Done(result),
            }
        }
        Ok(outcome) => outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Outcome::retry("panic", panic_message(panic.as_ref())),
            Err(_) => Outcome::retry("aborted", "the handler's task was aborted"),
        },
    }
}

fn size(result: &Value) -> usize {
    serde_json::to_vec(result).map_or(usize::MAX, |bytes| bytes.len())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("no message"))
}

/// Publishes `running` at once and then each newest progress, at most every
/// [`PROGRESS_INTERVAL`], and a stalled one again when its figures change. Does not end by itself.
async fn tell_progress(
    service: &Service,
    feed: &mut Feed,
    message: &JobMessage,
    mut seen: watch::Receiver<Option<Progress>>,
) -> Infallible {
    loop {
        let next = Instant::now() + PROGRESS_INTERVAL;
        let progress = seen.borrow_and_update().clone();
        Box::pin(tell_running(service, feed, message, progress)).await;
        sleep_until(next).await;
        let look_again = async {
            match feed.next_look(Timestamp::now()) {
                Some(wait) => sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = seen.changed() => if changed.is_err() {
                // The handler has let go of its context and will end; nothing more to tell.
                std::future::pending::<()>().await;
            },
            () = look_again => {}
        }
    }
}

async fn tell_running(
    service: &Service,
    feed: &mut Feed,
    message: &JobMessage,
    progress: Option<Progress>,
) {
    let envelope = Envelope {
        room: message.job.room_id.as_deref(),
        traceparent: message.traceparent(),
        ..Envelope::default()
    };
    let status = || feed.running(message, progress, Timestamp::now());
    let told = post_status(&service.publisher, &service.names, status, envelope);
    if let Err(error) = told.await {
        debug!(%error, task_id = message.job.id, "a progress event was not sent");
    }
}
