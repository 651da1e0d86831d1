//! What failed for good: an operator lists it, reads it, brings it back or drops it.

mod http;
mod large;

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bellhop_tests::program::command;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Stack, no_args};
use bellhop_worker::{Outcome, Registry, Task, TaskContext};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::tasks::NoArgs;

/// Fails until it is mended.
#[derive(Clone, Default)]
struct Mendable(Arc<AtomicBool>);

impl Task for Mendable {
    const KIND: &'static str = "mendable";
    type Args = NoArgs;

    async fn run(&self, _: TaskContext, _: NoArgs) -> Outcome {
        if self.0.load(Ordering::SeqCst) {
            Outcome::done(&"mended")
        } else {
            Outcome::fail("broken", "not mended yet")
        }
    }
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The JSON lines of a listing.
    fn letters(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.err);
        let lines = self.out.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    }

    fn ids(&self) -> Vec<String> {
        let letters = self.letters();
        letters
            .iter()
            .map(|letter| letter["id"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// `worker dead …`
async fn dead(stack: &Stack, arguments: &[&str]) -> Ran {
    let mut command = command("worker", stack);
    command.arg("dead").args(arguments).stdin(Stdio::null());
    let output = timeout(3 * PATIENCE, command.output()).await;
    let output = output.expect("the program ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A broker with the queues declared, by a worker that has gone.
async fn prepared() -> (Stack, Rabbit) {
    let stack = Stack::shared();
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    worker.stop().await;
    let rabbit = stack.rabbit().await;
    (stack, rabbit)
}

/// A dead letter as a worker writes it, that died so many seconds ago.
async fn bury(rabbit: &Rabbit, id: &str, kind: &str, reason: &str, age: i64) {
    let died_at = Timestamp::now() - SignedDuration::from_secs(age);
    let headers = [
        ("x-bellhop-queue", "default"),
        ("x-bellhop-reason", reason),
        ("x-bellhop-error", "it \u{1b}[31mfailed"),
        ("x-bellhop-attempt", "5"),
        ("x-bellhop-died-at", &died_at.to_string()),
    ];
    let job = json!({"id": id, "kind": kind, "user_id": "ann", "args": {"n": 1}});
    rabbit
        .publish_headers("dead", "default", job.to_string(), &headers)
        .await;
}

async fn four_letters() -> (Stack, Rabbit) {
    let (stack, rabbit) = prepared().await;
    for (id, kind, reason, age) in [
        ("a", "mail", "exit_3", 100_000),
        ("b", "mail", "timeout", 7200),
        ("c", "sums", "timeout", 1800),
        ("d", "sums", "panic", 5),
    ] {
        bury(&rabbit, id, kind, reason, age).await;
    }
    (stack, rabbit)
}

#[tokio::test]
async fn letters_are_listed_by_id_kind_reason_and_age() {
    let (stack, rabbit) = four_letters().await;
    for (filters, wants) in [
        (&[][..], &["a", "b", "c", "d"][..]),
        (&["--id", "c", "--id", "a"], &["a", "c"]),
        (&["--kind", "mail"], &["a", "b"]),
        (
            &["--reason", "timeout", "--reason", "panic"],
            &["b", "c", "d"],
        ),
        (&["--reason", "timeout", "--kind", "sums"], &["c"]),
        (&["--older-than", "1h"], &["a", "b"]),
        (&["--newer-than", "1d"], &["b", "c", "d"]),
        (&["--older-than", "1h", "--newer-than", "1d"], &["b"]),
        (&["--limit", "2"], &["a", "b"]),
        (&["--kind", "none"], &[]),
    ] {
        let arguments = [&["list", "--json"], filters].concat();
        assert_eq!(dead(&stack, &arguments).await.ids(), wants, "{filters:?}");
    }
    let table = dead(&stack, &["list", "--limit", "2"]).await;
    let lines: Vec<_> = table.out.lines().collect();
    assert!(
        lines[0].starts_with("ID  KIND  QUEUE    REASON   DIED"),
        "{}",
        table.out
    );
    assert!(
        lines[1].starts_with("a   mail  default  exit_3   "),
        "{}",
        table.out
    );
    assert!(lines[1].ends_with("it \\u{1b}[31mfailed"), "{}", table.out);
    assert!(table.err.contains("--limit"), "{}", table.err);
    let missing = dead(&stack, &["list", "--id", "nobody"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(
        missing.err.contains("no dead letter nobody"),
        "{}",
        missing.err
    );
    // A look takes nothing away.
    rabbit.settles_at("dead", 4).await;
}

#[tokio::test]
async fn one_is_shown_with_everything() {
    let (stack, _rabbit) = four_letters().await;
    let shown = dead(&stack, &["show", "b"]).await;
    let letter: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(letter["body"]["args"]["n"], 1);
    assert_eq!(letter["headers"]["x-bellhop-attempt"], "5");
    assert_eq!(
        (&letter["attempts"], &letter["reason"]),
        (&json!(5), &json!("timeout"))
    );
    let line = dead(&stack, &["show", "b", "--json"]).await;
    assert_eq!(line.letters()[0]["body"], letter["body"]);
    assert_eq!(dead(&stack, &["show", "nobody"]).await.code, Some(1));
}

#[tokio::test]
async fn letters_are_dropped_and_nothing_asked_for_is_not_everything() {
    let (stack, rabbit) = four_letters().await;
    for wrong in [&["drop"][..], &["replay"], &["drop", "a", "--all"]] {
        let refused = dead(&stack, wrong).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.err.contains("--all"), "{}", refused.err);
    }
    let dropped = dead(&stack, &["drop", "a", "nobody"]).await;
    assert_eq!((dropped.code, dropped.out.trim()), (Some(1), "dropped 1"));
    assert!(dropped.err.contains("nobody"), "{}", dropped.err);
    let dropped = dead(&stack, &["drop", "--reason", "timeout"]).await;
    assert_eq!((dropped.code, dropped.out.trim()), (Some(0), "dropped 2"));
    assert_eq!(dead(&stack, &["list", "--json"]).await.ids(), ["d"]);
    let dropped = dead(&stack, &["drop", "--all"]).await;
    assert_eq!(dropped.out.trim(), "dropped 1");
    assert_eq!(rabbit.ready("dead").await, 0);
    assert_eq!(
        dead(&stack, &["drop", "--all"]).await.code,
        Some(0),
        "none is no mistake"
    );
}

#[tokio::test]
async fn a_replay_runs_afresh_its_owner_sees_it_and_the_history_stays() {
    let stack = Stack::shared();
    let task = Mendable::default();
    let registry = Registry::new().with(task.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("mendable", no_args(), "ann").await;
    let failed = |state: &Value| state["status"] == "failed";
    let mut end = ann.task_until(&id, failed).await;
    for replays in 1..=2 {
        task.0.store(replays == 2, Ordering::SeqCst);
        let replayed = dead(&stack, &["replay", &id]).await;
        assert_eq!(
            (replayed.code, replayed.out.trim()),
            (Some(0), "replayed 1"),
            "{}",
            replayed.err
        );
        // `queued` is said by another than the rest, and may come late.
        let wanted = ["queued", if replays == 2 { "succeeded" } else { "failed" }];
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let fits = |state: &Value| {
                state["rev"].as_u64() > end["rev"].as_u64()
                    && wanted.iter().any(|status| state["status"] == *status)
            };
            seen.push(ann.task_until(&id, fits).await);
        }
        seen.sort_by_key(|state| state["rev"].as_u64());
        assert_eq!(seen[0]["status"], "queued");
        assert_eq!(seen[0]["attempt"], 0);
        end = seen.remove(1);
        if replays == 2 {
            break;
        }
        let shown = dead(&stack, &["show", &id]).await;
        let letter: Value = serde_json::from_str(&shown.out).unwrap();
        assert_eq!(
            (&letter["replays"], &letter["attempts"]),
            (&json!(1), &json!(1))
        );
        assert_eq!(letter["history"].as_array().unwrap().len(), 1);
        assert_eq!(letter["history"][0]["reason"], "broken");
        assert_eq!(letter["history"][0]["error"], "not mended yet");
        assert_eq!(letter["headers"]["x-bellhop-hop"], "1");
    }
    assert_eq!(end["result"], "mended");
    assert_eq!(stack.rabbit().await.ready("dead").await, 0);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_nobody_could_read_and_what_has_no_queue_is_left_unless_one_is_named() {
    let (stack, rabbit) = prepared().await;
    let unreadable = [
        ("x-bellhop-queue", "default"),
        ("x-bellhop-reason", "unreadable"),
    ];
    rabbit
        .publish_headers("dead", "default", "\u{7}no json", &unreadable)
        .await;
    rabbit.publish("dead", "whatever", "[]").await;
    let alert = [("x-bellhop-reason", "alert_refused")];
    rabbit
        .publish_headers("dead", "alerts", r#"{"id":"alert"}"#, &alert)
        .await;
    let listed = dead(&stack, &["list"]).await;
    assert_eq!(
        (listed.code, listed.out.lines().count()),
        (Some(0), 4),
        "{}",
        listed.err
    );
    let letters = dead(&stack, &["list", "--json"]).await.letters();
    assert_eq!(letters[2]["queue"], format!("{}alerts", stack.prefix));
    let strange = letters[0]["id"].as_str().unwrap();
    let shown = dead(&stack, &["show", strange]).await;
    assert!(shown.out.contains("no json"), "{}", shown.out);

    let replayed = dead(&stack, &["replay", "--all"]).await;
    assert_eq!(
        (replayed.code, replayed.out.trim()),
        (Some(1), "replayed 0")
    );
    for wants in [
        "left 1",
        "--queue",
        "2 could not be replayed",
        "which queue it came from",
    ] {
        assert!(replayed.err.contains(wants), "{wants} in {}", replayed.err);
    }
    let nowhere = dead(&stack, &["replay", "alert", "--queue", "elsewhere"]).await;
    assert_eq!(nowhere.code, Some(1));
    assert!(
        nowhere.err.contains("no queue `elsewhere`"),
        "{}",
        nowhere.err
    );
    // None is lost.
    rabbit.settles_at("dead", 3).await;

    let replayed = dead(&stack, &["replay", strange, "--queue", "default"]).await;
    assert_eq!(
        (replayed.code, replayed.out.trim()),
        (Some(0), "replayed 1"),
        "{}",
        replayed.err
    );
    assert_eq!(rabbit.take("jobs.default").await.body, b"\x07no json");
}

#[tokio::test]
async fn a_job_that_the_broker_gave_up_itself_is_named_and_comes_back() {
    let (stack, rabbit) = prepared().await;
    let job = json!({"id": "t1", "kind": "k", "user_id": "ann"}).to_string();
    rabbit.publish("jobs", "default", &job).await;
    let mut times = 0;
    while rabbit.ready("dead").await == 0 {
        times += u32::from(rabbit.give_back("jobs.default").await);
    }
    assert_eq!(times, 101, "the limit of the queue and the one beyond it");
    let letter = dead(&stack, &["list", "--json"]).await.letters().remove(0);
    assert_eq!(
        (&letter["id"], &letter["kind"]),
        (&json!("t1"), &json!("k"))
    );
    assert_eq!(
        (&letter["reason"], &letter["queue"]),
        (&json!("delivery_limit"), &json!("default"))
    );
    assert!(letter["died_at"].is_string(), "{letter}");
    let replayed = dead(
        &stack,
        &["replay", "--reason", "delivery_limit", "--newer-than", "1h"],
    )
    .await;
    assert_eq!(
        (replayed.code, replayed.out.trim()),
        (Some(0), "replayed 1"),
        "{}",
        replayed.err
    );
    let back = rabbit.take("jobs.default").await;
    assert_eq!(back.body, job.as_bytes());
    assert_eq!(back.headers["x-bellhop-once"], "1");
    assert!(
        !back.headers.contains_key("x-death"),
        "a replay starts afresh"
    );
}
