//! Putting groups in: by HTTP, by the command line, and what is wrong with one.

use std::process::Stdio;

use bellhop_common::wire::FollowUp;
use bellhop_notifier::StoreKind;
use bellhop_tests::client::metric_becomes;
use bellhop_tests::program::command;
use bellhop_tests::stack::{Running, Stack, http, open_kind, token};
use bellhop_worker::Registry;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::{Sum, group, of_task, put_in, until_all_is_over};
use crate::tasks::Count;

async fn post(notifier: &Running, body: &Value) -> (u16, Value) {
    let request = http().post(notifier.url("/api/groups")).json(body);
    let answer = request.bearer_auth(token("ann")).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn both(stack: &Stack, sum: &Sum) -> (Running, Running) {
    let registry = Registry::new().with(Count).with(sum.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let mut config = stack.notifier_config();
    open_kind(&mut config, "count");
    open_kind(&mut config, "sum");
    (worker, stack.notifier(config).await)
}

#[tokio::test]
async fn a_user_starts_a_group_over_http() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let (worker, notifier) = both(&stack, &sum).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let jobs: Vec<_> = (1..=3)
        .map(|to| json!({"kind": "count", "args": {"to": to}, "title": format!("To {to}")}))
        .collect();
    let body = json!({"title": "All three", "jobs": jobs,
        "then": [{"kind": "sum", "args": {"round": 1}, "as": "parts"}]});
    let (status, answer) = post(&notifier, &body).await;
    assert_eq!(status, 202, "{answer}");
    let id = answer["group_id"].as_str().unwrap();
    let seen = until_all_is_over(&mut ann).await;
    let of_group = of_task(&seen, id);
    let (first, end) = (of_group[0], of_group.last().unwrap());
    assert_eq!(first["status"], "queued");
    assert_eq!(
        (&first["title"], &first["progress"]["total"]),
        (&json!("All three"), &json!(3))
    );
    let result = json!({"size": 3, "succeeded": 3, "results": [1, 2, 3]});
    assert_eq!(end["result"], result);
    let wants = json!({"round": 1, "parts": result});
    assert_eq!(*sum.0.lock().unwrap(), [wants]);
    for (index, task) in answer["task_ids"].as_array().unwrap().iter().enumerate() {
        let of_job = of_task(&seen, task.as_str().unwrap());
        let place = json!({"id": id, "index": index, "size": 3});
        assert!(of_job.iter().all(|state| state["group"] == place));
    }

    let (status, answer) = post(&notifier, &json!({"jobs": [{"kind": "rm"}]})).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (403, &json!("kind_not_open"))
    );
    let (status, answer) = post(&notifier, &json!({"jobs": []})).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("bad_job")));
    worker.stop().await;
    notifier.stop().await;
}

/// What `worker enqueue-group` prints for these lines.
async fn enqueue_group(stack: &Stack, more: &[&str], lines: &str) -> Result<Vec<String>, String> {
    let mut enqueue = command("worker", stack);
    enqueue.args(["enqueue-group", "--user", "ann"]).args(more);
    enqueue
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = enqueue.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    Ok(text(&output.stdout).lines().map(str::to_owned).collect())
}

#[tokio::test]
async fn the_command_line_puts_a_group_in_and_again_without_harm() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let (worker, notifier) = both(&stack, &sum).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let lines = "{\"kind\":\"count\",\"args\":{\"to\":1}}\n{\"kind\":\"count\",\"args\":{\"to\":2},\"id\":\"own\"}\n";
    let options = [
        "--id",
        "g",
        "--title",
        "Two",
        "--then",
        "sum",
        "--then-args",
        "{\"x\":1}",
    ];
    let ids = enqueue_group(&stack, &options, lines).await.unwrap();
    assert_eq!(
        (ids.len(), ids[0].as_str(), ids[2].as_str()),
        (3, "g", "own")
    );
    let seen = until_all_is_over(&mut ann).await;
    assert_eq!(of_task(&seen, "g").last().unwrap()["status"], "succeeded");

    let again: Vec<_> = options.into_iter().chain(["--again"]).collect();
    assert_eq!(enqueue_group(&stack, &again, lines).await, Ok(ids));
    // Another group, which ends after it.
    let options = ["--id", "h", "--then", "sum"];
    enqueue_group(&stack, &options, lines.replace("own", "own-h").as_str())
        .await
        .unwrap();
    let seen = until_all_is_over(&mut ann).await;
    assert!(of_task(&seen, "h").last().unwrap()["status"] == "succeeded");
    let ended_again = seen
        .iter()
        .any(|state| state["task_id"] == "own" && state["status"] == "succeeded");
    assert!(!ended_again, "{seen:?}");
    assert_eq!(sum.0.lock().unwrap().len(), 2);

    let nobody = enqueue_group(&stack, &["--queue", "nobody", "--id", "n"], lines).await;
    let nobody = nobody.unwrap_err();
    assert!(
        nobody.contains("0 of 2 jobs") && nobody.contains("`nobody`"),
        "{nobody}"
    );
    let wrong = enqueue_group(&stack, &[], "{\"kind\":\"count\"}\nno job\n")
        .await
        .unwrap_err();
    assert!(wrong.contains("line 2"), "{wrong}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_job_that_its_group_has_no_place_for_is_none() {
    let stack = Stack::shared();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let rabbit = stack.rabbit().await;
    let large = json!({"kind": "count", "args": {"text": "x".repeat(17_000)}});
    for (group, wants) in [
        (
            json!({"id": "g", "index": 0, "size": 0}),
            "`group.size` must be 1 to 10000",
        ),
        (
            json!({"id": "g", "index": 2, "size": 2}),
            "`group.index` must be 0 to 1",
        ),
        (
            json!({"id": "g", "index": 0, "size": 1, "then": [large]}),
            "16384 bytes",
        ),
    ] {
        let job = json!({"id": "t", "kind": "count", "args": {"to": 1}, "user_id": "ann", "group": group});
        rabbit.publish("jobs", "default", job.to_string()).await;
        let letter = rabbit.take("dead").await;
        assert_eq!(letter.headers["x-bellhop-reason"], "unreadable");
        let error = &letter.headers["x-bellhop-error"];
        assert!(error.contains(wants), "{error}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn two_owners_have_two_groups() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let (worker, notifier) = both(&stack, &sum).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    put_in(&stack, &group("g", 2), "count", |_| json!({"to": 1}), "ann").await;
    let rabbit = stack.rabbit().await;
    let mut part = serde_json::to_value(group("g", 2)).unwrap();
    part["index"] = json!(1);
    let job =
        json!({"id": "bobs", "kind": "count", "args": {"to": 1}, "user_id": "bob", "group": part});
    rabbit.publish("jobs", "default", job.to_string()).await;
    let seen = until_all_is_over(&mut ann).await;
    assert_eq!(of_task(&seen, "g").last().unwrap()["progress"]["done"], 2);
    let bobs = bob.task_until("g", |_| true).await;
    assert_eq!(
        (&bobs["status"], &bobs["progress"]["done"]),
        (&json!("running"), &json!(1))
    );
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn without_a_store_nobody_counts_and_that_is_told() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.kind = StoreKind::None;
    let notifier = stack.notifier(config).await;
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    put_in(&stack, &group("g", 2), "count", |_| json!({"to": 1}), "ann").await;
    let uncounted = r#"bellhop_notifier_groups_total{outcome="uncounted"}"#;
    metric_becomes(&notifier, uncounted, 2).await;
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_should_follow_in_a_queue_that_nobody_serves_is_kept() {
    let stack = Stack::shared();
    let sum = Sum::default();
    let (worker, notifier) = both(&stack, &sum).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut lost = group("g", 1);
    lost.then[0].queue = Some("nobody".into());
    // As much as there may be goes in the header.
    let text = "ü".repeat(8_000);
    lost.on_failure = vec![FollowUp::new("sum", json!({"text": text}))];
    put_in(&stack, &lost, "count", |_| json!({"to": 1}), "ann").await;
    let end = ann.task_to_end("g").await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");
    let letter = stack.rabbit().await.take("dead").await;
    assert_eq!(letter.headers["x-bellhop-reason"], "no_such_queue");
    assert_eq!(letter.headers["x-bellhop-queue"], "nobody");
    let job: Value = serde_json::from_slice(&letter.body).unwrap();
    assert_eq!(job["args"]["result"]["results"], json!([1]));
    worker.stop().await;
    notifier.stop().await;
}
