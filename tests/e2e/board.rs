//! The task board: where a user's tasks stand, for whoever comes later.

use std::time::{Duration, Instant};

use bellhop_notifier::StoreKind;
use bellhop_tests::client::{Client, metric, metric_becomes};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Running, Stack, http, no_args, token};
use bellhop_worker::Registry;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::tasks::Gated;

const WRITTEN: &str = r#"bellhop_notifier_board_states_total{outcome="written"}"#;
const SUPERSEDED: &str = r#"bellhop_notifier_board_states_total{outcome="superseded"}"#;
const FAILED: &str = r#"bellhop_notifier_board_states_total{outcome="failed"}"#;

async fn get(notifier: &Running, path: &str, user: &str) -> (u16, Value) {
    let request = http().get(notifier.url(path)).bearer_auth(token(user));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// A task's state on the board, once it fits.
async fn standing(
    notifier: &Running,
    user: &str,
    id: &str,
    fits: impl Fn(&Value) -> bool,
) -> Value {
    let path = format!("/api/tasks/{id}");
    let look = async {
        loop {
            let (status, state) = get(notifier, &path, user).await;
            if status == 200 && fits(&state) {
                return state;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("a state that fits")
}

async fn connected(notifier: &Running, user: &str) -> Value {
    let mut client = Client::connect(notifier.address, &token(user)).await;
    client.next_of("connected").await
}

fn ids(page: &Value) -> Vec<&str> {
    let tasks = page["tasks"].as_array().unwrap().iter();
    tasks
        .map(|task| task["task_id"].as_str().unwrap())
        .collect()
}

/// All pages from the first on.
async fn pages(notifier: &Running, query: &str, user: &str) -> Vec<Value> {
    let (mut pages, mut path) = (Vec::new(), format!("/api/tasks?{query}"));
    loop {
        let (status, page) = get(notifier, &path, user).await;
        assert_eq!(status, 200, "{path}: {page}");
        let next = page["next"].clone();
        pages.push(page);
        if next.is_null() {
            return pages;
        }
        assert!(pages.len() < 100, "{path} has no end");
        let next = next.as_str().map_or(next.to_string(), str::to_owned);
        path = format!("/api/tasks?{query}&before={next}");
    }
}

fn state(id: &str, status: &str, rev: u64) -> Vec<u8> {
    large_state(id, status, rev, json!([1.0]))
}

fn large_state(id: &str, status: &str, rev: u64, more: impl Into<Value>) -> Vec<u8> {
    let data = json!({"task_id": id, "status": status, "rev": rev, "more": more.into()});
    let event = json!({"type": "task.status_changed", "id": Uuid::now_v7(),
        "time": Timestamp::now(), "data": data});
    event.to_string().into_bytes()
}

async fn tell(rabbit: &Rabbit, user: &str, id: &str, status: &str, rev: u64) {
    let class = match status {
        "succeeded" | "failed" | "cancelled" => "stored",
        _ => "live",
    };
    let key = format!("{class}.user.{user}.task.status_changed.{status}");
    rabbit.publish("events", &key, state(id, status, rev)).await;
}

#[tokio::test]
async fn who_comes_later_sees_where_his_tasks_stand_and_nobody_elses() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let registry = Registry::new().with(gated.clone());
    let worker = stack.worker(stack.worker_config(), registry).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("gated", no_args(), "ann").await;
    let half = |state: &Value| state["progress"]["percent"] == 50.0;
    let seen = ann.task_until(&id, half).await;
    let kept = standing(&notifier, "ann", &id, half).await;
    assert_eq!(
        (&kept["status"], &kept["rev"]),
        (&json!("running"), &seen["rev"])
    );
    assert_eq!(kept, seen);
    assert_eq!(connected(&notifier, "ann").await["tasks"], json!([kept]));
    let (_, page) = get(&notifier, "/api/tasks?status=running", "ann").await;
    assert_eq!(page, json!({"tasks": [kept], "next": null}));

    assert_eq!(connected(&notifier, "bob").await["tasks"], json!([]));
    let (_, page) = get(&notifier, "/api/tasks", "bob").await;
    assert_eq!(page["tasks"], json!([]));
    let (status, body) = get(&notifier, &format!("/api/tasks/{id}"), "bob").await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (404, &json!("no_such_task"))
    );

    gated.open();
    let seen = ann.task_to_end(&id).await;
    // An end is kept before it is told, and no progress that is late changes it.
    let (_, ended) = get(&notifier, &format!("/api/tasks/{id}"), "ann").await;
    assert_eq!(&ended, seen.last().unwrap());
    assert_eq!(ended["status"], "succeeded");
    assert_eq!(connected(&notifier, "ann").await["tasks"], json!([ended]));
    let (_, page) = get(&notifier, "/api/tasks?status=running", "ann").await;
    assert_eq!(page["tasks"], json!([]));
    let (_, page) = get(&notifier, "/api/tasks?status=ended", "ann").await;
    assert_eq!(page["tasks"], json!([ended]));
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn tasks_are_read_page_by_page_those_that_changed_last_first() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    // Kept one after the other; what a `rev` says is about states of one task.
    for (rev, status) in (1..).zip(["queued", "scheduled", "running", "retrying"]) {
        tell(&rabbit, "ann", status, status, rev).await;
        standing(&notifier, "ann", status, |_| true).await;
    }
    tell(&rabbit, "ann", "a.b/c ü", "failed", 2).await;
    // The same id is another task of another user's.
    tell(&rabbit, "bob", "running", "succeeded", 100).await;
    standing(&notifier, "bob", "running", |_| true).await;
    let ended = standing(&notifier, "ann", "a%2Eb%2Fc%20%C3%BC", |_| true).await;
    assert_eq!(
        ended,
        json!({"task_id": "a.b/c ü", "status": "failed", "rev": 2, "more": [1.0]})
    );
    let all = ["a.b/c ü", "retrying", "running", "scheduled", "queued"];
    for (query, wants) in [
        ("limit=50", &[&all[..]][..]),
        ("status=all&limit=5", &[&all[..]]),
        ("limit=2", &[&all[..2], &all[2..4], &all[4..]]),
        (
            "limit=1",
            &[&all[..1], &all[1..2], &all[2..3], &all[3..4], &all[4..]],
        ),
        ("status=running", &[&all[1..]]),
        ("status=running&limit=3", &[&all[1..4], &all[4..]]),
        ("status=ended", &[&all[..1]]),
    ] {
        let pages = pages(&notifier, query, "ann").await;
        let found: Vec<_> = pages.iter().map(ids).collect();
        assert_eq!(found, wants, "{query}");
    }
    for (query, says) in [
        ("status=done", "running, ended or all"),
        ("limit=0", "limit"),
        ("before=x", "before"),
        ("before=1795234133873482", "before"),
        ("user=bob", "user"),
    ] {
        let (status, body) = get(&notifier, &format!("/api/tasks?{query}"), "ann").await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} in {message}");
    }
    notifier.stop().await;
}

/// As `worker enqueue` says it of each: all have the same `rev`, below what any worker says.
#[tokio::test]
async fn jobs_that_wait_are_each_on_a_page_and_before_what_ended_long_ago() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    tell(&rabbit, "ann", "old", "succeeded", 1_700_000_000_000_000).await;
    standing(&notifier, "ann", "old", |_| true).await;
    let waiting: Vec<_> = (0..25).map(|n| format!("job {n:02}")).collect();
    let states = waiting.iter().map(|id| state(id, "queued", 1)).collect();
    let key = "live.user.ann.task.status_changed.queued";
    rabbit.publish_all("events", key, states).await;
    metric_becomes(&notifier, WRITTEN, 25).await;
    for (query, count) in [("limit=10", 3), ("limit=1", 26), ("limit=200", 1)] {
        let pages = pages(&notifier, query, "ann").await;
        assert_eq!(pages.len(), count, "{query}");
        let mut found: Vec<_> = pages.iter().flat_map(ids).collect();
        assert_eq!(found.pop(), Some("old"), "{query}");
        found.sort_unstable();
        assert_eq!(found, waiting, "{query}");
    }
    let shown = connected(&notifier, "ann").await;
    assert_eq!(ids(&shown).last(), Some(&"old"));
    notifier.stop().await;
}

/// Whoever asks for many gets no more bytes at once for it.
#[tokio::test]
async fn large_states_come_in_more_pages_and_one_in_any_case() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let tasks: Vec<_> = (0..6).map(|n| format!("t{n}")).collect();
    for (id, kib) in tasks.iter().zip([1, 250, 250, 250, 250, 250]) {
        let state = large_state(id, "succeeded", 1, "x".repeat(kib * 1024));
        let key = "stored.user.ann.task.status_changed.succeeded";
        rabbit.publish("events", key, state).await;
        standing(&notifier, "ann", id, |_| true).await;
    }
    let of_all = pages(&notifier, "limit=200", "ann").await;
    let found: Vec<_> = of_all.iter().map(ids).collect();
    assert_eq!(
        found,
        [&["t5", "t4", "t3", "t2"][..], &["t1", "t0"]],
        "a page has a MiB"
    );
    // Of what changed last, as much as 256 KiB.
    assert_eq!(ids(&connected(&notifier, "ann").await), ["t5"]);
    tell(&rabbit, "ann", "t6", "running", 1).await;
    standing(&notifier, "ann", "t6", |_| true).await;
    assert_eq!(ids(&connected(&notifier, "ann").await), ["t6", "t5"]);
    notifier.stop().await;
}

#[tokio::test]
async fn a_thousand_states_of_one_task_are_few_writes() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let began = Instant::now();
    let states = (1..=1000).map(|rev| state("t", "running", rev)).collect();
    let key = "live.user.ann.task.status_changed.running";
    rabbit.publish_all("events", key, states).await;
    standing(&notifier, "ann", "t", |state| state["rev"] == 1000).await;
    let moments = 1 + began.elapsed().as_millis() / 250;
    let written = metric(&notifier, WRITTEN).await;
    assert!(
        u128::from(written) <= moments,
        "{written} writes in {moments} moments"
    );
    metric_becomes(&notifier, SUPERSEDED, 1000 - written).await;
    // What is late changes nothing.
    tell(&rabbit, "ann", "t", "running", 7).await;
    tell(&rabbit, "ann", "u", "running", 1).await;
    standing(&notifier, "ann", "u", |_| true).await;
    standing(&notifier, "ann", "t", |state| state["rev"] == 1000).await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_comes_while_no_notifier_runs_is_on_the_board_of_the_next() {
    let stack = Stack::shared();
    let rabbit = stack.rabbit().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    notifier.stop().await;
    tell(&rabbit, "ann", "t", "running", 1).await;
    // Nobody can show these, and they hold up nothing.
    let key = "live.user.ann.task.status_changed.running";
    rabbit.publish("events", key, "no event").await;
    rabbit
        .publish("events", key, state("t", "no status", 9))
        .await;
    rabbit.holds("board", 3).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    standing(&notifier, "ann", "t", |state| state["rev"] == 1).await;
    notifier.stop().await;
    assert_eq!(rabbit.ready("board").await, 0);
}

#[tokio::test]
async fn while_the_store_cannot_states_wait_and_requests_say_so() {
    let stack = Stack::shared();
    let rabbit = stack.rabbit().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    tell(&rabbit, "ann", "u", "failed", 1).await;
    standing(&notifier, "ann", "u", |_| true).await;
    let other = rusqlite::Connection::open(stack.folder.0.join("store.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    tell(&rabbit, "ann", "t", "running", 1).await;
    let body = r#"{"up_to":1}"#;
    let request = http().post(notifier.url("/api/inbox/read")).body(body);
    let answer = request.bearer_auth(token("ann")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["error"]["code"], "store_unavailable");
    metric_becomes(&notifier, FAILED, 1).await;
    assert_eq!(get(&notifier, "/api/tasks/t", "ann").await.0, 404);
    other.execute_batch("ROLLBACK").unwrap();
    standing(&notifier, "ann", "t", |state| state["rev"] == 1).await;
    notifier.stop().await;
    assert_eq!(rabbit.ready("board").await, 0);
}

#[tokio::test]
async fn without_a_store_there_is_no_queue_for_the_board() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.kind = StoreKind::None;
    let notifier = stack.notifier(config).await;
    assert!(!stack.rabbit().await.exists("board").await);
    notifier.stop().await;
}
