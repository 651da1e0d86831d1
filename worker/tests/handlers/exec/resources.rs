//! What a program may use of the machine, and when it may try again.

use std::time::Duration;

use bellhop_common::config::{HumanDuration, HumanSize};
use bellhop_worker::Outcome;
use bellhop_worker::tasks::{Exec, ExecConfig, ExecLimits};
use serde_json::json;

use super::{failure, python, result, run, sh};

fn limited(config: ExecConfig, limits: ExecLimits) -> ExecConfig {
    ExecConfig { limits, ..config }
}

fn memory(mib: u64) -> ExecLimits {
    ExecLimits {
        memory: Some(HumanSize::kib(mib * 1024)),
        ..ExecLimits::default()
    }
}

fn cpu(time: Duration) -> ExecLimits {
    ExecLimits {
        cpu: Some(HumanDuration(time)),
        ..ExecLimits::default()
    }
}

#[tokio::test]
async fn the_limits_hold_from_the_first_instruction_and_for_children() {
    let limits = ExecLimits {
        memory: Some(HumanSize::kib(512 * 1024)),
        cpu: Some(HumanDuration(Duration::from_millis(59_500))),
        open_files: Some(64),
    };
    let script = "echo $(ulimit -d) $(ulimit -n) $(ulimit -S -t) $(ulimit -H -t)";
    for script in [script.to_owned(), format!("sh -c '{script}'")] {
        let seen = result(limited(sh(&script), limits.clone()), json!({})).await;
        assert_eq!(seen, json!("524288 64 60 61"), "{script}");
    }
}

#[tokio::test]
async fn a_limited_program_is_run_as_any_other() {
    // Its arguments are nothing to the shell that sets the limits, and it reads its own stdin.
    let command = ["printf", "%s|", "$HOME", "a b", "*", "; echo x", "\"'"];
    let words = limited(ExecConfig::new(command), memory(512));
    assert_eq!(
        result(words, json!({})).await,
        json!("$HOME|a b|*|; echo x|\"'|")
    );
    let args = json!({"text": "x".repeat(100_000)});
    let echo = limited(ExecConfig::new(["cat"]), memory(512));
    assert_eq!(result(echo, args.clone()).await, args);
    let retry = run(limited(sh("exit 75"), memory(512)), json!({})).await;
    assert!(matches!(retry, Outcome::Retry { .. }), "{retry:?}");
    // Only the shell knows that it could not become the program.
    let missing = limited(ExecConfig::new(["/nowhere/program"]), memory(512));
    let error = failure(missing).await;
    assert_eq!(error.code, "exit_127");
    assert!(error.message.contains("/nowhere/program"), "{error:?}");
}

#[tokio::test]
async fn a_program_that_eats_memory_gets_no_more() {
    let eat = "heap = bytearray(400 << 20)\nprint('got it')";
    let error = failure(limited(python(eat), memory(200))).await;
    assert_eq!(error.code, "exit_1");
    assert!(error.message.ends_with("MemoryError"), "{error:?}");
    assert_eq!(
        result(limited(python(eat), memory(800)), json!({})).await,
        json!("got it")
    );
}

#[tokio::test]
async fn address_space_that_is_only_reserved_is_not_counted() {
    // As Java, Go and Node do it: far more than the limit, and none of it can be written to.
    let reserve = "import mmap\nmmap.mmap(-1, 8 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, \
                   prot=mmap.PROT_READ)\nprint('reserved')";
    let limited = limited(python(reserve), memory(200));
    assert_eq!(result(limited, json!({})).await, json!("reserved"));
}

#[tokio::test]
async fn a_program_that_spins_is_ended() {
    let spin = limited(
        ExecConfig::new(["sh", "-c", "while :; do :; done"]),
        cpu(Duration::from_millis(1)),
    );
    let error = failure(spin).await;
    assert_eq!(error.code, "cpu_limit");
    assert!(error.message.contains("limits.cpu (1ms)"), "{error:?}");
}

#[tokio::test]
async fn a_program_that_spins_and_does_not_listen_is_killed() {
    let deaf = limited(
        sh("trap '' XCPU; while :; do :; done"),
        cpu(Duration::from_secs(1)),
    );
    assert_eq!(failure(deaf).await.code, "signal_9");
}

#[tokio::test]
async fn waiting_is_no_processor_time() {
    let wait = limited(sh("sleep 1.5; echo 1"), cpu(Duration::from_secs(1)));
    assert_eq!(result(wait, json!({})).await, json!(1));
}

#[tokio::test]
async fn a_program_has_no_more_open_files_than_allowed() {
    let limits = ExecLimits {
        open_files: Some(16),
        ..ExecLimits::default()
    };
    let open = "files = [open('/dev/null') for _ in range(20)]";
    let error = failure(limited(python(open), limits)).await;
    assert!(error.message.contains("Too many open files"), "{error:?}");
}

#[tokio::test]
async fn a_program_that_writes_for_ever_is_ended() {
    let limit = |script| ExecConfig {
        max_output: HumanSize::kib(1),
        max_total_output: HumanSize::kib(64),
        ..sh(script)
    };
    for script in [
        "exec yes",
        // Progress counts, too.
        r#"while :; do echo '{"progress":{"percent":1}}'; done"#,
    ] {
        let error = failure(limit(script)).await;
        assert_eq!(error.code, "output_too_large", "{script}");
        assert!(
            error.message.contains("64KiB to stdout in all")
                && error.message.contains("max_total_output"),
            "{error:?}"
        );
    }
    let exact = limit("yes | head -c 65536");
    assert_eq!(result(exact, json!({})).await, json!("y"));
}

#[tokio::test]
async fn the_configuration_says_which_exit_codes_may_pass() {
    let config = |script| ExecConfig {
        retry_exit_codes: vec![1, 111],
        ..sh(script)
    };
    let busy = run(config("echo busy >&2; exit 111"), json!({})).await;
    let message = "the program ended with exit code 111: busy";
    assert_eq!(busy, Outcome::retry("exit_111", message));
    // The default is replaced, not added to.
    assert_eq!(failure(config("exit 75")).await.code, "exit_75");
    // A signal is no exit code.
    assert_eq!(failure(config("kill -1 $$")).await.code, "signal_1");
}

#[test]
fn a_limit_that_the_worker_itself_may_not_have_is_refused() {
    let limits = ExecLimits {
        open_files: Some(u64::MAX),
        ..ExecLimits::default()
    };
    let error = Exec::new("images.resize", limited(sh("true"), limits)).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("exec.\"images.resize\".limits.open_files"),
        "{error}"
    );
}
