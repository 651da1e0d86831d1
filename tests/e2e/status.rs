//! `worker status`: what it learns by asking.

use std::process::Stdio;
use std::time::Duration;

use bellhop_tests::program::command;
use bellhop_tests::stack::{PATIENCE, Stack};
use bellhop_worker::Registry;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::tasks::Gated;

async fn status(stack: &Stack, arguments: &[&str]) -> String {
    let mut command = command("worker", stack);
    command.arg("status").args(arguments).stdin(Stdio::null());
    let output = timeout(PATIENCE, command.output()).await;
    let output = output.expect("the command ends").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

async fn status_json(stack: &Stack) -> Value {
    serde_json::from_str(&status(stack, &["--json"]).await).unwrap()
}

/// Two tasks of Ann's run, half way through, of as many as may.
fn is_busy(worker: &Value) {
    assert_eq!(worker["kinds"], json!(["gated"]));
    assert_eq!(worker["pid"], std::process::id());
    let queue = json!({"concurrency": 2, "running": 2});
    assert_eq!(worker["queues"]["default"], queue);
    assert_eq!(worker["running"], 2);
    let tasks = worker["tasks"].as_array().unwrap();
    assert_eq!(tasks.len(), 2);
    for task in tasks {
        let fields = ["kind", "user_id", "queue", "attempt", "percent"].map(|name| &task[name]);
        assert_eq!(json!(fields), json!(["gated", "ann", "default", 1, 50.0]));
    }
}

#[tokio::test]
async fn every_worker_says_what_it_does() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let registry = || Registry::new().with(gated.clone());
    let mut config = stack.worker_config();
    config.queues.get_mut("default").unwrap().concurrency = 2;
    let workers = [
        stack.worker(config.clone(), registry()).await,
        stack.worker(config, registry()).await,
    ];
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // As many as there are places, and two that wait; and one that is to run tomorrow.
    let tomorrow = json!({"kind": "gated", "user_id": "ann", "delay_s": 86_400});
    let later = stack.put_in(tomorrow).await;
    ann.task_until(&later, |state| state["status"] == "scheduled")
        .await;
    for _ in 0..6 {
        let job = json!({"kind": "gated", "user_id": "ann", "args": {"password": "hunter2"}});
        stack.put_in(job).await;
    }
    for _ in 0..4 {
        ann.task_until_any(|state| state["progress"]["percent"] == 50.0)
            .await;
    }

    let look = status_json(&stack).await;
    let workers_seen = look["workers"].as_array().unwrap();
    assert_eq!(workers_seen.len(), 2, "{look:#}");
    workers_seen.iter().for_each(is_busy);
    assert_eq!(
        look["queues"]["default"],
        json!({"ready": 2, "consumers": 2})
    );
    assert_eq!(
        (&look["delayed"], &look["dead"]["ready"]),
        (&json!(1), &json!(0))
    );
    let table = status(&stack, &[]).await;
    assert!(table.contains("default 2/2"), "{table}");
    assert!(!table.contains("hunter2") && !look.to_string().contains("hunter2"));

    for _ in 0..6 {
        gated.open();
    }
    for _ in 0..6 {
        ann.task_until_any(|state| state["status"] == "succeeded")
            .await;
    }
    let look = status_json(&stack).await;
    let all = look["workers"].as_array().unwrap();
    let ended = all
        .iter()
        .map(|worker| worker["totals"]["succeeded"].as_u64());
    assert_eq!(ended.map(Option::unwrap).sum::<u64>(), 6);
    for worker in all {
        assert!(worker["per_second"]["succeeded"].as_f64().unwrap() > 0.0);
        assert_eq!(worker["running"], 0);
    }
    for worker in workers {
        worker.stop().await;
    }
    notifier.stop().await;
}

#[tokio::test]
async fn that_nobody_answers_is_said() {
    let stack = Stack::shared();
    let table = status(&stack, &["--wait", "200ms"]).await;
    assert!(
        table.starts_with("no worker answered within 200ms"),
        "{table}"
    );
    assert!(table.contains("no queue"), "{table}");
}

#[tokio::test]
async fn a_broker_that_is_away_is_an_error_in_time() {
    let port = bellhop_tests::broker::free_port();
    let stack = Stack::on(format!("amqp://guest:hunter2@127.0.0.1:{port}/%2f"));
    let mut command = command("worker", &stack);
    let output = command.arg("status").stdin(Stdio::null()).output();
    let output = timeout(Duration::from_secs(15), output).await;
    let output = output.expect("the command ends").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.contains("cannot reach RabbitMQ"), "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}
