//! The interface of a handler: [`Task`], and the [`TaskContext`] it works with.

use std::future::Future;
use std::sync::Arc;

use bellhop_common::wire::{GroupPlace, Progress};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::link::Link;
use crate::outcome::Outcome;
use crate::step::StepContext;

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
    /// Which job of which group it is, if it belongs to one.
    pub group: Option<GroupPlace>,
    /// The W3C trace context that the job came with, for calls to other services.
    pub traceparent: Option<String>,
    pub(crate) link: Arc<Link>,
}

impl TaskContext {
    /// A context outside a worker, for tests of a handler; the receiver sees the newest progress.
    #[must_use]
    pub fn detached() -> (Self, watch::Receiver<Option<Progress>>) {
        let (link, seen) = Link::detached();
        let context = Self {
            task_id: "detached".into(),
            user_id: "nobody".into(),
            attempt: 1,
            group: None,
            traceparent: None,
            link: Arc::new(link),
        };
        (context, seen)
    }

    /// Says how far the attempt is. Cheap and never waits: what comes faster than the owner is
    /// told (ten times a second) is conflated, and the last state always arrives. The worker adds
    /// how fast it goes and how long it will take.
    pub fn progress(&self, progress: Progress) {
        self.link.say(progress);
    }

    /// Begins a step, the `index`th (from 1) of `count`, and says so. What the returned handle then
    /// reports is how far the step is; the percentage of the whole follows, each step counting
    /// alike. Take one at a time: the owner sees the step that spoke last.
    pub fn step(&self, name: impl Into<String>, index: u32, count: u32) -> StepContext {
        StepContext::begin(Arc::clone(&self.link), None, name.into(), index, count)
    }

    /// Writes a line for the owner, who sees it live. Never waits: lines that come faster than
    /// they can be told are left out, the oldest first, and the owner sees how many. A text with
    /// several lines is several lines; one of more than 1 KiB is cut.
    pub fn log(&self, text: impl AsRef<str>) {
        self.link.log(text.as_ref(), Timestamp::now());
    }

    /// The lines that wait to be told, for tests of a handler with a [detached](Self::detached)
    /// context: there, nobody is told.
    #[must_use]
    pub fn waiting_log_lines(&self) -> Vec<String> {
        self.link.waiting_lines()
    }

    /// Fires when the attempt should end: on a timeout, a cancellation, or the worker's shutdown
    /// deadline. A handler that does not end within the grace period after it is dropped.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        self.link.signal()
    }
}
