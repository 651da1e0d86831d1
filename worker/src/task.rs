//! The interface of a handler: [`Task`], and the [`TaskContext`] it works with.

use std::future::Future;

use bellhop_common::wire::Progress;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outcome::Outcome;

/// A kind of job, and what runs it.
///
/// ```
/// use bellhop_worker::{Outcome, Progress, Task, TaskContext};
///
/// struct Greet;
///
/// #[derive(serde::Deserialize)]
/// struct Args {
///     name: String,
/// }
///
/// impl Task for Greet {
///     const KIND: &'static str = "greet";
///     type Args = Args;
///
///     async fn run(&self, ctx: TaskContext, args: Args) -> Outcome {
///         ctx.progress(Progress::of(1, 1, "greetings"));
///         Outcome::done(&format!("Hello, {}!", args.name))
///     }
/// }
/// ```
pub trait Task: Send + Sync + 'static {
    /// The name that producers put into a job's `kind`.
    const KIND: &'static str;
    /// A job's `args`; a job whose `args` do not fit fails with the code `bad_args`.
    type Args: DeserializeOwned + Send;

    /// Runs one attempt. A panic counts as a failed attempt.
    ///
    /// Jobs are delivered at least once: an attempt may be repeated after a crash, so the work
    /// should be safe to do twice.
    fn run(&self, ctx: TaskContext, args: Self::Args) -> impl Future<Output = Outcome> + Send;
}

/// What a running attempt knows and can say.
#[derive(Debug, Clone)]
pub struct TaskContext {
    /// The job's id.
    pub task_id: String,
    /// Who owns it.
    pub user_id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The W3C trace context that the job came with, for calls to other services.
    pub traceparent: Option<String>,
    pub(crate) progress: watch::Sender<Option<Progress>>,
    pub(crate) cancelled: CancellationToken,
}

impl TaskContext {
    /// A context outside a worker, for tests of a handler; the receiver sees the newest progress.
    #[must_use]
    pub fn detached() -> (Self, watch::Receiver<Option<Progress>>) {
        let (progress, seen) = watch::channel(None);
        let context = Self {
            task_id: "detached".into(),
            user_id: "nobody".into(),
            attempt: 1,
            traceparent: None,
            progress,
            cancelled: CancellationToken::new(),
        };
        (context, seen)
    }

    /// Says how far the attempt is. Cheap and never waits: what comes faster than the owner is
    /// told (ten times a second) is conflated, and the last state always arrives.
    pub fn progress(&self, progress: Progress) {
        self.progress.send_replace(Some(progress));
    }

    /// Fires when the attempt should end: on a timeout, a cancellation, or the worker's shutdown
    /// deadline. A handler that does not end within the grace period after it is dropped.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }
}
