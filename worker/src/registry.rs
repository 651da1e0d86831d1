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
}

/// Erases the argument type once, so that the registry can hold every task.
struct Typed<T>(T);

impl<T: Task> Handler for Typed<T> {
    fn run(&self, ctx: TaskContext, args: Value) -> BoxFuture<'_, Outcome> {
        match serde_json::from_value::<T::Args>(args) {
            Ok(args) => self.0.run(ctx, args).boxed(),
            Err(error) => {
                let message = format!("the arguments do not fit {}: {error}", T::KIND);
                std::future::ready(Outcome::fail("bad_args", message)).boxed()
            }
        }
    }
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
