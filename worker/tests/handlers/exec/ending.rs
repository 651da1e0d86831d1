//! However a job ends, nothing of it goes on.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_worker::tasks::{Exec, ExecConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use futures_util::FutureExt;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{LONG, alive, any_with, known, python, sh, start, until};
use crate::scratch::Scratch;

/// A shell and the program it waits for; both ids are said.
const FAMILY: &str = r#"sleep 1000 & echo "{\"progress\":{\"message\":\"$$ $!\"}}"; wait"#;

fn grace(config: ExecConfig, millis: u64) -> ExecConfig {
    ExecConfig {
        grace: HumanDuration(Duration::from_millis(millis)),
        ..config
    }
}

async fn all_gone(pids: &[u32]) {
    until("the processes end", || !pids.iter().any(|pid| alive(*pid))).await;
    // Our own child is reaped, too.
    until("the program is reaped", || !known(pids[0])).await;
}

#[tokio::test]
async fn a_dropped_job_takes_its_grandchildren_with_it() {
    let mut running = start(sh(FAMILY), json!({}));
    let pids = running.pids().await;
    assert!(pids.len() == 2 && pids.iter().all(|pid| alive(*pid)));
    running.task.abort();
    assert!(running.task.await.unwrap_err().is_cancelled());
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_dropped_job_does_not_wait_for_a_program_that_ignores_sigterm() {
    let script = format!("trap '' TERM; {FAMILY}");
    let mut running = start(grace(sh(&script), 3_600_000), json!({}));
    let pids = running.pids().await;
    // In the middle of the grace period.
    running.cancel.cancel();
    assert!(
        timeout(Duration::from_millis(50), &mut running.task)
            .await
            .is_err()
    );
    running.task.abort();
    assert!(running.task.await.unwrap_err().is_cancelled());
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_job_dropped_right_after_its_start_leaves_nothing() {
    let word = uuid::Uuid::new_v4().to_string();
    let script = format!("sleep 1000; echo {word}");
    let exec = Exec::new("k", sh(&script)).unwrap();
    let mut future = exec.run(TaskContext::detached().0, json!("x".repeat(1 << 20)));
    assert!((&mut future).now_or_never().is_none());
    assert!(any_with(&word), "it was started");
    drop(future);
    until("the program ends", || !any_with(&word)).await;
}

#[tokio::test]
async fn a_job_dropped_while_it_drains_leaves_nothing() {
    let script = r#"sleep 1000 & echo "{\"progress\":{\"message\":\"$$ $!\"}}""#;
    let mut running = start(sh(script), json!({}));
    let pids = running.pids().await;
    // The leader has ended and is not reaped: within the second that its output is read on.
    until("the program ends", || !alive(pids[0])).await;
    running.task.abort();
    drop(running.task.await);
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_cancelled_job_may_end_in_peace() {
    let dir = Scratch::new();
    // The child speaks for both: a child that is about to be born would still have the trap.
    let child = r#"sh -c 'echo "{\"progress\":{\"message\":\"$PPID $$\"}}"; exec sleep 1000'"#;
    let script = format!("trap 'echo tidied > note; exit 0' TERM; {child} & wait");
    let config = ExecConfig {
        cwd: Some(dir.path().to_path_buf()),
        ..sh(&script)
    };
    let mut running = start(grace(config, 3_600_000), json!({}));
    let pids = running.pids().await;
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("note")).unwrap(),
        "tidied\n"
    );
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_cancelled_job_lets_the_shells_program_end_in_peace() {
    // The shell ends at once; what it waited for has work to do.
    let dir = Scratch::new();
    let child = r#"
import os, signal, sys, time
def tidy(*_):
    time.sleep(1.5)
    open("note", "w").write("tidied")
    sys.exit(0)
signal.signal(signal.SIGTERM, tidy)
print('{"progress":{"message":"%d %d"}}' % (os.getppid(), os.getpid()), flush=True)
time.sleep(1000)
"#;
    dir.write("child.py", child);
    let config = ExecConfig {
        cwd: Some(dir.path().to_path_buf()),
        ..sh("python3 child.py; echo never")
    };
    let mut running = start(grace(config, 3_600_000), json!({}));
    let pids = running.pids().await;
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    assert_eq!(
        std::fs::read_to_string(dir.path().join("note")).unwrap(),
        "tidied"
    );
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_cancelled_job_that_ignores_it_is_killed_after_the_grace_period() {
    let script = format!("trap '' TERM; {FAMILY}");
    let mut running = start(grace(sh(&script), 300), json!({}));
    let pids = running.pids().await;
    let start = Instant::now();
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    assert!(
        start.elapsed() >= Duration::from_millis(300),
        "{:?}",
        start.elapsed()
    );
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_cancelled_job_may_still_print_while_it_ends() {
    // More than a pipe holds: it could not end if nobody read.
    let script = r#"
import os, signal, sys, time
def tidy(*_):
    sys.stderr.write("x" * 500_000)
    for n in range(100):
        print("y" * 10_000, flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, tidy)
print('{"progress":{"message":"%d"}}' % os.getpid(), flush=True)
time.sleep(1000)
"#;
    let mut running = start(grace(python(script), 3_600_000), json!({}));
    let pids = running.pids().await;
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_cancelled_job_that_closed_its_output_ends_at_once() {
    let dir = Scratch::new();
    let script = FAMILY.replace("wait", "exec >&- 2>&-; : > closed; wait");
    let script = script.replace("sleep 1000 &", "sleep 1000 >/dev/null 2>&1 &");
    let config = ExecConfig {
        cwd: Some(dir.path().to_path_buf()),
        ..sh(&script)
    };
    let mut running = start(grace(config, 3_600_000), json!({}));
    let pids = running.pids().await;
    until("it closes", || dir.path().join("closed").exists()).await;
    // The handler hears of it on the runtime's next turns.
    sleep(Duration::from_millis(50)).await;
    running.cancel.cancel();
    assert_eq!(running.outcome().await, Outcome::Cancelled);
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_job_that_is_cancelled_before_it_starts_starts_nothing() {
    let (ctx, _seen) = TaskContext::detached();
    ctx.cancelled().cancel();
    // To start this one would fail.
    let exec = Exec::new("k", ExecConfig::new(["/nowhere/program"])).unwrap();
    assert_eq!(exec.run(ctx, json!({})).await, Outcome::Cancelled);
}

#[tokio::test]
async fn a_grandchild_that_holds_the_pipes_does_not_hold_the_job() {
    let script = r#"sleep 1000 & echo "{\"progress\":{\"message\":\"$$ $!\"}}"; printf '"ok"'"#;
    let mut running = start(sh(script), json!({}));
    let pids = running.pids().await;
    let start = Instant::now();
    assert_eq!(running.outcome().await, Outcome::Done(json!("ok")));
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_grandchild_that_goes_on_printing_does_not_hold_the_job() {
    let script = r#"yes & echo "{\"progress\":{\"message\":\"$$ $!\"}}""#;
    let mut running = start(sh(script), json!({}));
    let pids = running.pids().await;
    assert_eq!(running.outcome().await, Outcome::Done(json!("y")));
    all_gone(&pids).await;
}

#[tokio::test]
async fn what_a_grandchild_says_within_a_second_counts() {
    let script = r#"(sleep 0.1; echo '"late"') & echo '"early"'"#;
    assert_eq!(super::result(sh(script), json!({})).await, json!("late"));
}

#[tokio::test]
async fn a_grandchild_that_holds_no_pipe_ends_with_the_job_too() {
    let script = r#"sleep 1000 >/dev/null 2>&1 & echo "{\"progress\":{\"message\":\"$$ $!\"}}""#;
    let mut running = start(sh(script), json!({}));
    let pids = running.pids().await;
    assert_eq!(running.outcome().await, Outcome::Done(json!(null)));
    all_gone(&pids).await;
}

#[tokio::test]
async fn a_failed_job_takes_its_grandchildren_with_it() {
    for end in ["exit 3", "kill -9 $$", "head -c 2000000 /dev/zero; wait"] {
        let script = FAMILY.replace("wait", end);
        let mut running = start(sh(&script), json!({}));
        let pids = running.pids().await;
        let Outcome::Fail(_) = running.outcome().await else {
            panic!("{end}")
        };
        all_gone(&pids).await;
    }
}

#[tokio::test]
async fn a_program_that_closes_its_output_is_waited_for() {
    let script = "echo 1; exec >&- 2>&- <&-; sleep 0.3; exit 9";
    assert_eq!(super::failure(sh(script)).await.code, "exit_9");
}

/// The handler also works on the runtime that a worker has.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn jobs_that_end_in_every_way_at_once_leave_nothing() {
    let mut all = Vec::new();
    let mut jobs = Vec::new();
    for n in 0..24 {
        let script = if n % 3 == 0 {
            FAMILY.replace("wait", "exit 0")
        } else {
            FAMILY.to_owned()
        };
        let mut running = start(sh(&script), json!({}));
        all.push(running.pids().await);
        match n % 3 {
            1 => running.cancel.cancel(),
            2 => running.task.abort(),
            _ => {}
        }
        jobs.push(running);
    }
    for job in jobs {
        drop(timeout(LONG, job.task).await.unwrap());
    }
    for pids in all {
        all_gone(&pids).await;
    }
}
