//! Running one attempt: progress out, timeout, panic, cancellation.

use std::convert::Infallible;
use std::time::Duration;

use bellhop_common::enqueue::publish_status;
use bellhop_common::wire::Progress;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::feed::Feed;
use crate::outcome::Outcome;
use crate::registry::Handler;
use crate::service::Service;
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

/// Runs the handler to its end, telling the owner how far it is.
pub(crate) async fn run(
    service: &Service,
    feed: &mut Feed,
    handler: std::sync::Arc<dyn Handler>,
    attempt: u32,
) -> End {
    let job = feed.job();
    let cancelled = CancellationToken::new();
    let (progress, seen) = watch::channel(None);
    let context = TaskContext {
        task_id: job.id.clone(),
        user_id: job.user_id.clone(),
        attempt,
        progress,
        cancelled: cancelled.clone(),
    };
    let limit = service.time_limit(job);
    let args = job.args.clone();
    // A task of its own, so that a handler that computes for long does not hold the progress up,
    // and a panic ends nothing but the attempt.
    let handling = tokio::spawn(async move { handler.run(context, args).await });
    let handling = AbortOnDropHandle::new(handling);
    let end = tokio::select! {
        end = attempt_to_end(service, handling, &cancelled, limit) => end,
        never = tell_progress(service, feed, seen.clone()) => match never {},
    };
    // The last state always arrives: with the final event, if it was conflated away before.
    feed.keep(seen.borrow().clone());
    end
}

async fn attempt_to_end(
    service: &Service,
    mut handling: AbortOnDropHandle<Outcome>,
    cancelled: &CancellationToken,
    limit: Duration,
) -> End {
    let grace = service.config.jobs.grace.0;
    let timed_out = tokio::select! {
        ended = &mut handling => return End::Outcome(checked(ended, service)),
        () = sleep(limit) => true,
        () = service.abandon.cancelled() => false,
    };
    cancelled.cancel();
    let ended = tokio::time::timeout(grace, handling).await;
    match (timed_out, ended) {
        // It finished while it was being asked to stop.
        (_, Ok(Ok(Outcome::Done(result)))) => {
            End::Outcome(checked(Ok(Outcome::Done(result)), service))
        }
        (true, _) => {
            let message = format!("it took longer than {limit:?}");
            End::Outcome(Outcome::fail("timeout", message))
        }
        (false, _) => End::Abandoned,
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
            Ok(panic) => Outcome::fail("panic", panic_message(panic.as_ref())),
            Err(_) => Outcome::fail("aborted", "the handler's task was aborted"),
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
/// [`PROGRESS_INTERVAL`]. Does not end by itself.
async fn tell_progress(
    service: &Service,
    feed: &mut Feed,
    mut seen: watch::Receiver<Option<Progress>>,
) -> Infallible {
    loop {
        let next = Instant::now() + PROGRESS_INTERVAL;
        let progress = seen.borrow_and_update().clone();
        let status = feed.running(progress, Timestamp::now());
        service.monitor.tell(&status, feed.job());
        let room = feed.job().room_id.as_deref();
        if let Err(error) = publish_status(&service.publisher, &service.names, &status, room).await
        {
            debug!(%error, task_id = status.task_id, "a progress event was not sent");
        }
        sleep_until(next).await;
        if seen.changed().await.is_err() {
            // The handler has let go of its context and will end; nothing more to tell.
            std::future::pending::<()>().await;
        }
    }
}
