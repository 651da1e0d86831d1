//! Which handler runs which kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;

use crate::outcome::Outcome;
use crate::task::{Task, TaskContext};

/// A handler whose arguments are still JSON. [`Task`] is the typed form; this one is for handlers
/// whose kind comes from the configuration.
pub trait Handler: Send + Sync + 'static {
    /// Runs one attempt.
    fn run(&self, ctx: TaskContext, args: Value) -> BoxFuture<'_, Outcome>;

    /// The same as a future that owns the handler.
    #[doc(hidden)]
    fn start(self: Arc<Self>, ctx: TaskContext, args: Value) -> BoxFuture<'static, Outcome> {
        async move { self.run(ctx, args).await }.boxed()
    }
}

/// Erases the argument type once, so that the registry can hold every task.
struct Typed<T>(T);

impl<T: Task> Handler for Typed<T> {
    fn run(&self, ctx: TaskContext, args: Value) -> BoxFuture<'_, Outcome> {
        match typed::<T>(args) {
            Ok(args) => self.0.run(ctx, args).boxed(),
            Err(outcome) => std::future::ready(outcome).boxed(),
        }
    }

    // One box instead of one in another. What the task takes over is boxed until then, because the
    // future has room for it all the while.
    fn start(self: Arc<Self>, ctx: TaskContext, args: Value) -> BoxFuture<'static, Outcome> {
        let (ctx, args) = (Box::new(ctx), Box::new(args));
        let running = async move {
            match typed::<T>(unboxed(args)) {
                Ok(args) => self.0.run(unboxed(ctx), args).await,
                Err(outcome) => outcome,
            }
        };
        running.boxed()
    }
}

/// Frees the box now. One that is only moved out of lives to the end of its scope.
#[expect(clippy::boxed_local, reason = "the box is what is to be freed")]
fn unboxed<T>(value: Box<T>) -> T {
    *value
}

fn typed<T: Task>(args: Value) -> Result<T::Args, Outcome> {
    serde_json::from_value(args).map_err(|error| {
        let message = format!("the arguments do not fit {}: {error}", T::KIND);
        Outcome::fail("bad_args", message)
    })
}

/// The handlers of a worker, by kind.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<String, Arc<dyn Handler>>,
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task; one of the same kind is replaced.
    #[must_use]
    pub fn with<T: Task>(self, task: T) -> Self {
        self.with_handler(T::KIND, Typed(task))
    }

    /// Adds a handler for a kind; one of the same kind is replaced.
    #[must_use]
    pub fn with_handler(mut self, kind: impl Into<String>, handler: impl Handler) -> Self {
        self.handlers.insert(kind.into(), Arc::new(handler));
        self
    }

    /// The handler of a kind.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<Arc<dyn Handler>> {
        self.handlers.get(kind).cloned()
    }

    /// Runs one attempt.
    pub(crate) fn start(
        &self,
        kind: &str,
        ctx: TaskContext,
        args: Value,
    ) -> BoxFuture<'static, Outcome> {
        match self.get(kind) {
            Some(handler) => handler.start(ctx, args),
            None => std::future::ready(self.unknown(kind)).boxed(),
        }
    }

    /// The end of a job whose kind nobody here knows.
    pub(crate) fn unknown(&self, kind: &str) -> Outcome {
        let known: Vec<_> = self.kinds().collect();
        let known = known.join(", ");
        Outcome::fail(
            "unknown_kind",
            format!("this worker has no handler for `{kind}`; it knows: {known}"),
        )
    }

    /// Every kind, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.handlers.keys().map(String::as_str)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.handlers.keys()).finish()
    }
}
