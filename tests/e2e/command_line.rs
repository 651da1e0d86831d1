//! The two programs as somebody meets them who types: what they print, and what they say about
//! mistakes.

mod jobs;
mod mistakes;
mod query_tokens;
mod reference;
mod secrets;
mod silence;
mod store;
mod vapid;

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_notifier::AuthConfig;
use bellhop_notifier::auth::Verifier;
use bellhop_tests::broker::free_port;
use bellhop_tests::program::command;
use bellhop_tests::stack::{PATIENCE, SECRET, Stack};
use bellhop_worker::Registry;
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use self::secrets::{AMQP_PASSWORD, HOOK, SIGNING_KEY, has_no_secret};

/// A program's end.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs a program to its end, with secrets in its environment that it must not print.
async fn run(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let nowhere = format!(
        "amqp://bellhop:{AMQP_PASSWORD}@127.0.0.1:{}/%2f",
        free_port()
    );
    run_at(&Stack::on(nowhere), name, arguments, environment).await
}

async fn run_at(
    stack: &Stack,
    name: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Ran {
    let mut command = command(name, stack);
    if name == "notifier" {
        let hook = format!("http://127.0.0.1:1/hooks/{HOOK}");
        command
            .env("BELLHOP_AUTH__SECRET", SIGNING_KEY)
            .env("BELLHOP_MATTERMOST__WEBHOOK_URL", hook);
    }
    command
        .args(arguments)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let ended = timeout(PATIENCE, command.output()).await;
    let output = ended.expect("the program ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    has_no_secret(&out);
    has_no_secret(&err);
    let code = output.status.code();
    Ran { code, out, err }
}

/// A file that is gone when dropped.
struct File(PathBuf);

impl File {
    fn with(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bellhop-{}.toml", Uuid::now_v7()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test]
async fn check_config_prints_what_would_hold_and_it_reads_back() {
    for name in ["worker", "notifier"] {
        let file = File::with("[amqp]\nheartbeat = \"11s\"\nconnect_timeout = \"12s\"\n");
        let arguments = ["run", "--check-config", "--config", file.path()];
        let flag = ["--set", "amqp.connect_timeout=13s"];
        let environment = [("BELLHOP_LOG__LEVEL", "warn")];
        let first = run(name, &[&arguments[..], &flag].concat(), &environment).await;
        assert_eq!((first.code, &*first.err), (Some(0), ""), "{}", first.err);
        for wants in [
            "heartbeat = \"11s\"",
            "connect_timeout = \"13s\"",
            "level = \"warn\"",
            "url = \"amqp://bellhop:***@127.0.0.1:",
        ] {
            assert!(first.out.contains(wants), "{wants} in {}", first.out);
        }
        let secrets = first.out.matches("\"***\"").count();
        assert_eq!(secrets, if name == "notifier" { 2 } else { 0 });
        // What hides a secret is laid over by the environment again.
        let printed = File::with(&first.out);
        let again = ["run", "--check-config", "--config", printed.path()];
        let again = run(name, &again, &[]).await;
        let is_own = |line: &&str| {
            let own = ["url", "prefix", "path"];
            !own.iter().any(|name| line.starts_with(name))
        };
        let lines = |text: &str| -> Vec<String> {
            text.lines().filter(is_own).map(str::to_owned).collect()
        };
        assert_eq!(lines(&again.out), lines(&first.out), "{}", again.err);
    }
}

#[tokio::test]
async fn check_config_refuses_what_would_not_start() {
    for set in [
        "mattermost.webhook_url=ftp://h/hunter2hook",
        "log.level=bellhop=loud",
        "auth.secret=hunter2-short",
    ] {
        let ran = run("notifier", &["run", "--check-config", "--set", set], &[]).await;
        let key = set.split('=').next().unwrap();
        is_refused(&ran, &[key]);
    }
}

/// It ends with an error, nothing on standard output, and a message that says all of this.
fn is_refused(ran: &Ran, wants: &[&str]) {
    assert!(ran.code.is_some_and(|code| code != 0), "{:?}", ran.code);
    assert_eq!(ran.out, "");
    for wanted in wants {
        assert!(ran.err.contains(wanted), "{wanted} in {}", ran.err);
    }
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
}

#[tokio::test]
async fn a_job_is_enqueued_from_a_shell() {
    let stack = Stack::shared();
    let job = ["enqueue", "count", "--user", "ann", "--args", r#"{"to":2}"#];
    let ran = run_at(&stack, "worker", &job, &[]).await;
    is_refused(&ran, &["`default`", "[queues.default]"]);

    // Once a worker has made the queue, jobs wait there for the next.
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    worker.stop().await;
    let rabbit = stack.rabbit().await;
    let named = ["--id", "my-id", "--title", "Two"];
    let ran = run_at(&stack, "worker", &[&job[..], &named].concat(), &[]).await;
    assert_eq!((ran.code, &*ran.out), (Some(0), "my-id\n"), "{}", ran.err);
    assert_eq!(ran.err, "");
    let job_taken: Value = serde_json::from_slice(&rabbit.take("jobs.default").await.body).unwrap();
    assert_eq!(job_taken["id"], "my-id");
    assert_eq!(job_taken["args"]["to"], 2);
    let ran = run_at(&stack, "worker", &job, &[]).await;
    assert!(ran.out.trim().parse::<Uuid>().is_ok(), "{}", ran.out);

    let elsewhere = [&job[..], &["--queue", "misspelt"]].concat();
    let ran = run_at(&stack, "worker", &elsewhere, &[]).await;
    is_refused(&ran, &["`misspelt`", "[queues.misspelt]"]);
    // Nothing listens there.
    let soon = [&job[..], &["--set", "amqp.publish_timeout=1s"]].concat();
    is_refused(&run("worker", &soon, &[]).await, &["127.0.0.1:"]);
}

#[tokio::test]
async fn a_token_is_printed_that_is_good_for_as_long_as_asked() {
    let mint = ["token", "--user", "ann", "--ttl", "2h"];
    let ran = run("notifier", &mint, &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let auth = AuthConfig {
        secret: Some(Secret::new(SIGNING_KEY)),
        ..AuthConfig::default()
    };
    let (token, now) = (ran.out.trim(), Timestamp::now());
    assert_eq!(ran.out.lines().count(), 1);
    let identity = Verifier::new(&auth).unwrap().verify(token, now).unwrap();
    assert_eq!(identity.user_id, "ann");
    let left = identity.expires.unwrap().duration_since(now).as_secs();
    let leeway = 30;
    assert!(
        (2 * 3600 - 60..=2 * 3600 + leeway).contains(&left),
        "{left}"
    );
    let other = Verifier::new(&AuthConfig {
        secret: Some(Secret::new(SECRET)),
        ..auth
    });
    assert!(other.unwrap().verify(token, now).is_err());
}

#[tokio::test]
async fn the_health_check_tells_by_its_exit_code() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let check = async |name, listen: &str| {
        let set = format!("http.listen={listen}");
        run(name, &["healthcheck", "--set", &set], &[]).await
    };
    let everywhere = format!("0.0.0.0:{}", notifier.address.port());
    for listen in [notifier.address.to_string(), everywhere] {
        let ran = check("notifier", &listen).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
    }
    notifier.stop().await;

    let cut_off = Stack::on(format!("amqp://127.0.0.1:{}/%2f", free_port()));
    let worker = cut_off
        .start_worker(cut_off.worker_config(), Registry::new())
        .await;
    let ran = check("worker", &worker.address.to_string()).await;
    let address = worker.address.to_string();
    is_refused(&ran, &[&address, "not ready", "amqp.consumer"]);
    timeout(Duration::from_secs(10), worker.stop())
        .await
        .unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    for name in ["worker", "notifier"] {
        let ran = check(name, &nobody).await;
        is_refused(&ran, &[&nobody, "does not answer"]);
    }
}
