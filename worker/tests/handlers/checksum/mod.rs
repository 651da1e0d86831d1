//! `files.checksum`.

mod listing;
mod paths;
mod progress;

use std::path::Path;

use bellhop_worker::tasks::Checksum;
use bellhop_worker::{Outcome, Registry, TaskContext};
use serde_json::{Value, json};

/// Runs the task as the worker does, through the registry.
async fn run_in(ctx: TaskContext, root: &Path, args: Value) -> Outcome {
    let registry = Registry::new().with(Checksum::new(root).unwrap());
    let handler = registry.get("files.checksum").unwrap();
    handler.run(ctx, args).await
}

async fn run(root: &Path, args: Value) -> Outcome {
    run_in(TaskContext::detached().0, root, args).await
}

async fn manifest(root: &Path, path: &str) -> Value {
    match run(root, json!({ "path": path })).await {
        Outcome::Done(manifest) => manifest,
        other => panic!("{other:?}"),
    }
}

/// The code and the message of a failure.
async fn failure(root: &Path, path: &str) -> (String, String) {
    match run(root, json!({ "path": path })).await {
        Outcome::Fail(error) => (error.code, error.message),
        other => panic!("{path}: {other:?}"),
    }
}
