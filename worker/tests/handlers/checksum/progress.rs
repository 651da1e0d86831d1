//! Bytes done of bytes total, and ending early.

use std::fs::File;
use std::time::Duration;

use bellhop_common::wire::Progress;
use bellhop_worker::{Outcome, TaskContext};
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::timeout;

use super::run_in;
use crate::scratch::Scratch;

#[tokio::test]
async fn progress_is_in_bytes_and_ends_at_all_of_them() {
    let dir = Scratch::new();
    dir.write("a", vec![0; 3 << 20]);
    dir.write("b/c", vec![0; 1 << 20]);
    let (ctx, mut seen) = TaskContext::detached();
    let task = tokio::spawn({
        let root = dir.path().to_path_buf();
        async move { run_in(ctx, &root, json!({})).await }
    });
    // A watch shows the newest; what is skipped does not matter, the order does.
    let mut last = 0;
    while seen.changed().await.is_ok() {
        let progress = seen.borrow_and_update().clone().unwrap();
        let (done, total) = (progress.done.unwrap(), progress.total.unwrap());
        assert_eq!((total, progress.unit.as_deref()), (4 << 20, Some("bytes")));
        assert!(done >= last && done % (1 << 20) == 0, "{done} after {last}");
        last = done;
    }
    assert_eq!(
        *seen.borrow(),
        Some(Progress::of(4 << 20, 4 << 20, "bytes").with_message("b/c"))
    );
    assert!(matches!(task.await.unwrap(), Outcome::Done(_)));
}

/// A file that takes minutes to hash and no room on the disk.
fn endless() -> Scratch {
    let dir = Scratch::new();
    let file = File::create(dir.path().join("large")).unwrap();
    file.set_len(1 << 36).unwrap();
    dir
}

async fn some_bytes(seen: &mut Receiver<Option<Progress>>) {
    let started = |progress: &Option<Progress>| {
        progress
            .as_ref()
            .is_some_and(|progress| progress.done > Some(0))
    };
    timeout(Duration::from_mins(1), seen.wait_for(started))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_cancelled_job_ends_within_a_file() {
    let dir = endless();
    let (ctx, mut seen) = TaskContext::detached();
    let cancel = ctx.cancelled().clone();
    let root = dir.path().to_path_buf();
    let task = tokio::spawn(async move { run_in(ctx, &root, json!({})).await });
    some_bytes(&mut seen).await;
    cancel.cancel();
    let outcome = timeout(Duration::from_mins(1), task)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_starts_reads_nothing() {
    let dir = endless();
    for path in [".", "large"] {
        let (ctx, seen) = TaskContext::detached();
        ctx.cancelled().cancel();
        assert_eq!(
            run_in(ctx, dir.path(), json!({ "path": path })).await,
            Outcome::Cancelled
        );
        assert!(
            seen.borrow()
                .as_ref()
                .is_none_or(|progress| progress.done == Some(0))
        );
    }
}

#[tokio::test]
async fn a_dropped_job_stops_its_thread() {
    let dir = endless();
    let (ctx, mut seen) = TaskContext::detached();
    let root = dir.path().to_path_buf();
    let task = tokio::spawn(async move { run_in(ctx, &root, json!({})).await });
    some_bytes(&mut seen).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    // The thread holds the sender of the progress until it ends.
    let ended = async { while seen.changed().await.is_ok() {} };
    timeout(Duration::from_mins(1), ended).await.unwrap();
}
