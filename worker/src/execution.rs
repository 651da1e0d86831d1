//! Running one attempt: progress out, timeout, panic, cancellation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellhop_common::enqueue::{Envelope, post_status};
use bellhop_common::wire::Progress;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinError;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::feed::Feed;
use crate::in_hand::Held;
use crate::log_feed::{Telling, tell_last};
use crate::outcome::Outcome;
use crate::renewal::Renewal;
use crate::service::Service;
use crate::task::TaskContext;

/// The shortest time between two progress events of a task. What comes between is conflated.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How an attempt came to its end.
#[derive(Debug)]
pub(crate) enum End {
    /// With an outcome to settle. Boxed, because there is room for one all the while.
    Outcome(Box<Outcome>),
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
pub(crate) async fn run(service: &Service, feed: &mut Feed, held: &Held) -> (End, bool) {
    let began = Timestamp::now();
    let attempt = Attempt {
        service,
        held,
        feed: Mutex::new(feed),
        limit: service.time_limit(&held.message, began),
        renewal: Renewal::new(began),
    };
    let end = attempt.watch(attempt.begin()).await;
    let renewed = Box::pin(attempt.renewal.finish(service, &held.message)).await;
    if renewed {
        held.message.replaced();
    }
    // The last state always arrives: with the next event, if it was conflated away before.
    attempt.feed().keep(held.link.hear(), Timestamp::now());
    (end, renewed)
}

/// Why a handler is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    OutOfTime,
    Cancelled,
    Shutdown,
}

/// One run of a handler.
struct Attempt<'a> {
    service: &'a Service,
    held: &'a Held,
    feed: Mutex<&'a mut Feed>,
    limit: TimeLimit,
    renewal: Renewal,
}

/// A handler's task. Its outcome is boxed, because the task keeps room for it all the time.
type Handling = AbortOnDropHandle<Box<Outcome>>;

impl<'a> Attempt<'a> {
    /// Starts the handler.
    fn begin(&self) -> Handling {
        let (service, held) = (self.service, self.held);
        let message = &held.message;
        // While the arguments are still there to be told.
        let begun = self.feed().running(message, None, Timestamp::now());
        service.monitor.tell(&begun, message);
        let context = TaskContext {
            task_id: message.job.id.clone(),
            user_id: message.job.user_id.clone(),
            attempt: message.attempt(),
            group: message.job.group.as_ref().map(|group| group.place()),
            traceparent: message.traceparent().map(str::to_owned),
            link: Arc::clone(&held.link),
        };
        let (kind, args) = (&message.job.kind, message.take_args());
        let running = service.registry.start(kind, context, args);
        // A task of its own, so that a handler that computes for long does not hold the progress
        // up, and a panic ends nothing but the attempt.
        AbortOnDropHandle::new(tokio::spawn(running.map(Box::new)))
    }

    /// Sees the handler to its end.
    ///
    /// All that may happen meanwhile wakes one future, and what only an event needs is boxed: ten
    /// thousand of these wait at once.
    async fn watch(&self, mut handling: Handling) -> End {
        let (service, held) = (self.service, self.held);
        let mut asked = None;
        let mut deadline = after(self.limit.limit);
        let mut look_again = None;
        let mut telling = Some(self.tell());
        let mut logging = None;
        let mut renewing = None;
        let end = loop {
            let renewal = self.renewal.due(service, held);
            let times = [look_again.filter(|_| telling.is_none()), renewal];
            let wake = times.into_iter().flatten().fold(deadline, Instant::min);
            tokio::select! {
                biased;
                // Before the end, so that the owner hears of a short job's beginning.
                () = finish(&mut telling), if telling.is_some() => {
                    let wait = self.feed().next_look(Timestamp::now());
                    look_again = wait.map(after);
                }
                ended = &mut handling => break match asked {
                    None => End::Outcome(Box::new(checked(ended, service))),
                    Some(reason) => self.asked_to_end(reason, ended.ok()),
                },
                () = sleep_until(wake) => {}
                () = finish(&mut renewing), if renewing.is_some() => {}
                () = finish(&mut logging), if logging.is_some() => {}
                () = held.link.news() => {}
            }
            let now = Instant::now();
            match asked {
                None => {
                    asked = self.reason(now >= deadline);
                    if asked.is_some() {
                        held.link.signal().cancel();
                        deadline = after(service.config.jobs.grace.0);
                    }
                }
                Some(reason) if now >= deadline => break self.asked_to_end(reason, None),
                Some(_) => {}
            }
            if telling.is_none()
                && (held.link.has_progressed() || look_again.is_some_and(|look| look <= now))
            {
                telling = Some(self.tell());
            }
            if logging.is_none() && held.link.has_lines() {
                logging = Some(Box::new(Telling::begin(service, held)));
            }
            if self
                .renewal
                .due(service, held)
                .is_some_and(|due| due <= now)
            {
                let limit = self.limit.limit;
                renewing = Some(self.renewal.begin(service, &held.message, limit));
            }
        };
        // If it has not ended, it does here.
        drop(handling);
        // What the handler logged last is told before its end is.
        Box::pin(tell_last(service, held, logging)).await;
        end
    }

    /// Why the handler is to end by itself, if it is.
    fn reason(&self, is_late: bool) -> Option<Reason> {
        if self.held.link.is_cancelled() {
            Some(Reason::Cancelled)
        } else if self.service.abandon.is_cancelled() {
            Some(Reason::Shutdown)
        } else {
            is_late.then_some(Reason::OutOfTime)
        }
    }

    /// The end of a handler that was asked to: its outcome if it has one.
    fn asked_to_end(&self, reason: Reason, outcome: Option<Box<Outcome>>) -> End {
        // It finished while it was being asked to stop.
        if let Some(done) = outcome.filter(|outcome| matches!(**outcome, Outcome::Done(_))) {
            return End::Outcome(Box::new(checked(Ok(done), self.service)));
        }
        match reason {
            Reason::OutOfTime => End::Outcome(Box::new(self.limit.exceeded())),
            Reason::Cancelled => End::Outcome(Box::new(Outcome::Cancelled)),
            Reason::Shutdown => End::Abandoned,
        }
    }

    /// Publishes `running` with the newest progress, and waits until it may be told again.
    fn tell<'b>(&'b self) -> BoxFuture<'b, ()>
    where
        'a: 'b,
    {
        let progress = self.held.link.hear();
        Box::pin(async move {
            let next = Instant::now() + PROGRESS_INTERVAL;
            // Boxed once more: what it needs is free again while it pauses.
            Box::pin(self.tell_running(progress)).await;
            sleep_until(next).await;
        })
    }

    async fn tell_running(&self, progress: Option<Progress>) {
        let (service, message) = (self.service, &self.held.message);
        let envelope = Envelope {
            room: message.job.room_id.as_deref(),
            traceparent: message.traceparent(),
            ..Envelope::default()
        };
        let status = || self.feed().running(message, progress, Timestamp::now());
        let told = post_status(&service.publisher, &service.names, status, envelope);
        if let Err(error) = told.await {
            debug!(%error, task_id = message.job.id, "a progress event was not sent");
        }
    }

    fn feed(&self) -> MutexGuard<'_, &'a mut Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In so long, or as late as can be said.
fn after(wait: Duration) -> Instant {
    let now = Instant::now();
    let latest = || now + Duration::from_hours(30 * 365 * 24);
    now.checked_add(wait).unwrap_or_else(latest)
}

/// Waits for the end of what was begun. May be dropped and awaited again.
async fn finish(work: &mut Option<impl Future<Output = ()> + Unpin>) {
    if let Some(working) = work {
        working.await;
        *work = None;
    }
}

impl TimeLimit {
    fn exceeded(self) -> Outcome {
        let message = format!("it took longer than {:?}", self.limit);
        if self.is_last {
            Outcome::fail(
                "expired",
                format!(
                    "{message}, and no time (expires_at or total_timeout) is left for another attempt"
                ),
            )
        } else {
            Outcome::retry("timeout", message)
        }
    }
}

/// Turns a panic and a result that is too large into failures.
fn checked(ended: Result<Box<Outcome>, JoinError>, service: &Service) -> Outcome {
    let outcome = match ended {
        Ok(outcome) => *outcome,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Outcome::retry("panic", panic_message(panic.as_ref())),
            Err(_) => Outcome::retry("aborted", "the handler's task was aborted"),
        },
    };
    let Outcome::Done(result) = &outcome else {
        return outcome;
    };
    let limit = service.config.jobs.max_result_size;
    match size(result) {
        bytes if bytes > limit.bytes() => Outcome::fail(
            "result_too_large",
            format!(
                "the result has {bytes} bytes, jobs.max_result_size allows {limit}: \
                 keep it elsewhere and return a reference"
            ),
        ),
        _ => outcome,
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
