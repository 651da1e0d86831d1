//! How programs fail, and what they may not overload.

use bellhop_common::config::HumanSize;
use bellhop_common::wire::TaskError;
use bellhop_worker::tasks::{Exec, ExecConfig};
use bellhop_worker::{Handler, Outcome, TaskContext};
use serde_json::json;

use super::{failure, result, run, sh, start};
use crate::scratch::Scratch;

#[tokio::test]
async fn binary_output_is_no_crash() {
    let outcome = run(sh("head -c 300000 /dev/urandom"), json!({})).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_line_that_is_too_long_ends_the_program() {
    let limit = |script| ExecConfig {
        max_output: HumanSize(1000),
        ..sh(script)
    };
    for script in [
        "head -c 1001 /dev/zero; exec sleep 1000",
        // Without an end of the line it would never stop.
        "exec cat /dev/zero",
        r#"printf '{"progress":{"message":"'; head -c 1001 /dev/zero; exec sleep 1000"#,
        // Seen only after the program's end.
        "head -c 1001 /dev/zero",
    ] {
        let error = failure(limit(script)).await;
        assert_eq!(error.code, "output_too_large", "{script}");
        assert!(error.message.contains("1000B") && error.message.contains("max_output"));
    }
    let many = limit("for n in $(seq 100); do head -c 900 /dev/zero | tr '\\0' x; echo; done");
    assert_eq!(result(many, json!({})).await, json!("x".repeat(900)));
    let exact = limit("head -c 1000 /dev/zero | tr '\\0' x");
    assert_eq!(result(exact, json!({})).await, json!("x".repeat(1000)));
}

#[tokio::test]
async fn the_exit_code_decides() {
    for (script, code, message) in [
        ("exit 3", "exit_3", "the program ended with exit code 3"),
        (
            "echo lost; exit 255",
            "exit_255",
            "the program ended with exit code 255",
        ),
        (
            "echo ' no such image ' >&2; exit 1",
            "exit_1",
            "the program ended with exit code 1: no such image",
        ),
        (
            "kill -9 $$",
            "signal_9",
            "the program ended with signal: 9 (SIGKILL)",
        ),
        (
            "echo bye >&2; kill -TERM $$",
            "signal_15",
            "the program ended with signal: 15 (SIGTERM): bye",
        ),
    ] {
        assert_eq!(failure(sh(script)).await, TaskError::new(code, message));
    }
    let retry = run(sh("echo busy >&2; exit 75"), json!({})).await;
    let message = "the program ended with exit code 75: busy";
    assert_eq!(retry, Outcome::retry("exit_75", message));
}

#[tokio::test]
async fn stderr_never_blocks_the_program_and_its_end_is_kept() {
    let script = "head -c 1048576 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 4";
    let error = failure(sh(script)).await;
    assert_eq!(error.code, "exit_4");
    assert!(
        error
            .message
            .starts_with("the program ended with exit code 4: …xxx")
    );
    assert!(error.message.ends_with("xxxthe end"));
    assert!(
        (8_192..8_300).contains(&error.message.len()),
        "{}",
        error.message.len()
    );
    // It is no reason to fail, either.
    let loud = sh("head -c 1048576 /dev/zero >&2; echo 1");
    assert_eq!(result(loud, json!({})).await, json!(1));
    // Bytes that are not UTF-8 are replaced.
    let error = failure(sh(r"printf 'a\377b' >&2; exit 1")).await;
    assert!(error.message.ends_with(": a\u{fffd}b"), "{error:?}");
}

#[tokio::test]
async fn large_arguments_and_a_large_output_do_not_block_each_other() {
    let args = json!("x".repeat(1 << 20));
    // Writes more than a pipe holds before it reads anything.
    let script = "for n in $(seq 20); do head -c 50000 /dev/zero | tr '\\0' y; echo; done; wc -c";
    assert_eq!(result(sh(script), args.clone()).await, json!((1 << 20) + 3));
    // Never reads.
    assert_eq!(result(sh("echo 7"), args.clone()).await, json!(7));
    assert_eq!(result(sh("exec <&-; echo 7"), args).await, json!(7));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named() {
    let dir = Scratch::new();
    dir.write("plain", "not a program");
    let plain = dir.path().join("plain").display().to_string();
    for (program, wants) in [
        ("bellhop-no-such-program", "No such file"),
        ("/nowhere/program", "No such file"),
        (plain.as_str(), "Permission denied"),
    ] {
        let error = failure(ExecConfig::new([program])).await;
        assert_eq!(error.code, "spawn_failed");
        assert!(
            error.message.contains(program) && error.message.contains(wants),
            "{error:?}"
        );
    }
    let config = ExecConfig {
        cwd: Some("/nowhere".into()),
        ..sh("true")
    };
    let error = failure(config).await;
    assert_eq!(error.code, "spawn_failed");
    assert!(
        error.message.contains("/nowhere does not exist"),
        "{error:?}"
    );
}

#[tokio::test]
async fn ids_that_no_environment_can_hold_are_no_crash() {
    let (mut ctx, _seen) = TaskContext::detached();
    ctx.user_id = "a\0b".into();
    let exec = Exec::new("k", sh("true")).unwrap();
    let Outcome::Fail(error) = exec.run(ctx, json!({})).await else {
        panic!()
    };
    assert_eq!(error.code, "spawn_failed");
}

#[test]
fn a_handler_needs_a_program() {
    for command in [vec![], vec![String::new()]] {
        let error = Exec::new("images.resize", ExecConfig::new(command)).unwrap_err();
        assert!(
            error.to_string().contains("exec.\"images.resize\".command"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn many_programs_run_side_by_side() {
    let jobs: Vec<_> = (0..40).map(|n| start(sh("cat"), json!(n))).collect();
    for (n, job) in jobs.into_iter().enumerate() {
        assert_eq!(job.outcome().await, Outcome::Done(json!(n)));
    }
}
