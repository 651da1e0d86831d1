//! Tasks for tests, with handles to watch and steer them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bellhop_common::wire::{Progress, TaskError};
use bellhop_worker::{Outcome, Task, TaskContext};
use serde::Deserialize;
use tokio::sync::Semaphore;

/// Runs until it is let go, and counts how often it was begun.
#[derive(Clone)]
pub(crate) struct Gated {
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) gate: Arc<Semaphore>,
}

impl Gated {
    pub(crate) fn new() -> Self {
        Self {
            begun: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// Lets one attempt end.
    pub(crate) fn open(&self) {
        self.gate.add_permits(1);
    }

    pub(crate) fn times_begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct NoArgs {}

impl Task for Gated {
    const KIND: &'static str = "gated";
    type Args = NoArgs;

    async fn run(&self, ctx: TaskContext, _: NoArgs) -> Outcome {
        self.begun.fetch_add(1, Ordering::SeqCst);
        ctx.progress(Progress::of(1, 2, "steps"));
        tokio::select! {
            permit = self.gate.acquire() => permit.unwrap().forget(),
            () = ctx.cancelled().cancelled() => return Outcome::Cancelled,
        }
        ctx.progress(Progress::of(2, 2, "steps"));
        Outcome::done(&"through the gate")
    }
}

/// Counts to a number, faster than anybody can be told.
pub(crate) struct Count;

#[derive(Debug, Deserialize)]
pub(crate) struct CountArgs {
    to: u64,
}

impl Task for Count {
    const KIND: &'static str = "count";
    type Args = CountArgs;

    async fn run(&self, ctx: TaskContext, args: CountArgs) -> Outcome {
        for n in 1..=args.to {
            ctx.progress(Progress::of(n, args.to, "numbers"));
            tokio::task::yield_now().await;
        }
        Outcome::done(&args.to)
    }
}

/// Fails as it is told to.
pub(crate) struct Break;

#[derive(Debug, Deserialize)]
pub(crate) struct BreakArgs {
    how: String,
    #[serde(default)]
    message: String,
}

impl Task for Break {
    const KIND: &'static str = "break";
    type Args = BreakArgs;

    async fn run(&self, ctx: TaskContext, args: BreakArgs) -> Outcome {
        match args.how.as_str() {
            "panic" => panic!("{}", args.message),
            "retry" => Outcome::retry("flaky", args.message),
            "hang" => std::future::pending().await,
            "large" => Outcome::done(&"x".repeat(300 * 1024)),
            "wait" => {
                ctx.cancelled().cancelled().await;
                Outcome::Cancelled
            }
            _ => Outcome::fail("broken", args.message),
        }
    }
}

/// Fails so often before it succeeds, and notes when each attempt began.
#[derive(Clone)]
pub(crate) struct Flaky {
    failures: usize,
    after: Option<Duration>,
    began: Arc<Mutex<Vec<Instant>>>,
}

impl Flaky {
    pub(crate) fn new(failures: usize) -> Self {
        Self {
            failures,
            after: None,
            began: Arc::default(),
        }
    }

    /// Says itself when to try again.
    pub(crate) fn after(self, after: Duration) -> Self {
        Self {
            after: Some(after),
            ..self
        }
    }

    pub(crate) fn began(&self) -> Vec<Instant> {
        self.began.lock().unwrap().clone()
    }
}

impl Task for Flaky {
    const KIND: &'static str = "flaky";
    type Args = NoArgs;

    async fn run(&self, _: TaskContext, _: NoArgs) -> Outcome {
        let attempts = {
            let mut began = self.began.lock().unwrap();
            began.push(Instant::now());
            began.len()
        };
        if attempts > self.failures {
            return Outcome::done(&attempts);
        }
        Outcome::Retry {
            after: self.after,
            error: TaskError::new("flaky", format!("attempt {attempts}")),
        }
    }
}
