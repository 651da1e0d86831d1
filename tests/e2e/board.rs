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

fn state(id: &str, status: &str, rev: u64) -> Vec<u8> {
    let data = json!({"task_id": id, "status": status, "rev": rev, "more": [1.0]});
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
    for (rev, status) in (1..).zip(["queued", "scheduled", "running", "retrying"]) {
        tell(&rabbit, "ann", status, status, rev).await;
    }
    tell(&rabbit, "ann", "a.b/c ü", "failed", 9).await;
    // The same id is another task of another user's.
    tell(&rabbit, "bob", "running", "succeeded", 100).await;
    standing(&notifier, "bob", "running", |_| true).await;
    metric_becomes(&notifier, WRITTEN, 4).await;
    let ended = standing(&notifier, "ann", "a%2Eb%2Fc%20%C3%BC", |_| true).await;
    assert_eq!(
        ended,
        json!({"task_id": "a.b/c ü", "status": "failed", "rev": 9, "more": [1.0]})
    );
    let all = ["a.b/c ü", "retrying", "running", "scheduled", "queued"];
    for (query, wants, next) in [
        ("", &all[..], None),
        ("?status=all&limit=5", &all[..], None),
        ("?limit=2", &all[..2], Some(4)),
        ("?limit=2&before=4", &all[2..4], Some(2)),
        ("?status=running", &all[1..], None),
        ("?status=running&limit=3", &all[1..4], Some(2)),
        ("?status=ended", &all[..1], None),
        ("?before=1", &[], None),
    ] {
        let (status, page) = get(&notifier, &format!("/api/tasks{query}"), "ann").await;
        assert_eq!(status, 200, "{query}: {page}");
        assert_eq!(
            (ids(&page), page["next"].as_u64()),
            (wants.to_vec(), next),
            "{query}"
        );
    }
    for (query, says) in [
        ("status=done", "running, ended or all"),
        ("limit=0", "limit"),
        ("before=x", "before"),
        ("user=bob", "user"),
    ] {
        let (status, body) = get(&notifier, &format!("/api/tasks?{query}"), "ann").await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} in {message}");
    }
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
