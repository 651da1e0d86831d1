//! Jobs whose time is to come.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::Stack;
use bellhop_worker::Registry;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::tasks::{Count, Gated};

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

fn count_at(due: Timestamp) -> Value {
    json!({"kind": "count", "args": {"to": 1}, "user_id": "ann", "run_at": due.to_string()})
}

/// Never early, and late by less than a second.
fn punctual(states: &[Value], due: Timestamp) {
    let began = states.iter().find(|state| state["status"] == "running");
    let late = time(&began.unwrap()["timestamp"]).duration_since(due);
    assert!(
        (0..1000).contains(&late.as_millis()),
        "{late:?} after its time"
    );
}

#[tokio::test]
async fn a_scheduled_job_begins_at_its_second() {
    let stack = Stack::shared();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    for ms in [400, 2300, 3700] {
        let due = Timestamp::now() + SignedDuration::from_millis(ms);
        let id = stack.put_in(count_at(due)).await;
        let states = ann.task_to_end(&id).await;
        if ms > 1000 {
            assert_eq!(states[0]["status"], "scheduled");
            assert_eq!(time(&states[0]["next_attempt_at"]), due);
            assert_eq!(states[0]["attempt"], 0);
        }
        punctual(&states, due);
        assert_eq!(
            states.last().unwrap()["attempt"],
            1,
            "waiting is no attempt"
        );
    }
    let put_in = Timestamp::now();
    let job = json!({"kind": "count", "args": {"to": 1}, "user_id": "ann", "delay_s": 2});
    let id = stack.put_in(job).await;
    let states = ann.task_to_end(&id).await;
    let began = states.iter().find(|state| state["status"] == "running");
    let waited = time(&began.unwrap()["timestamp"]).duration_since(put_in);
    assert!((2000..3000).contains(&waited.as_millis()), "{waited:?}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_longer_wait_holds_no_shorter_one_up() {
    let stack = Stack::shared();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let now = Timestamp::now();
    let mut ids = Vec::new();
    for seconds in [7, 5, 3] {
        let due = now + SignedDuration::from_secs(seconds);
        ids.push((stack.put_in(count_at(due)).await, due));
    }
    for (id, due) in ids.iter().rev() {
        let mut states = Vec::new();
        while states
            .last()
            .is_none_or(|state: &Value| state["status"] != "succeeded")
        {
            states.push(ann.task_until(id, |_| true).await);
        }
        punctual(&states, *due);
    }
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_restarted_while_a_job_waits_for_its_time() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    // The rung of 32 s takes longer than the restart: one that ends while the broker is away makes
    // the job late.
    let due = Timestamp::now() + SignedDuration::from_secs(34);
    let id = stack.put_in(count_at(due)).await;
    ann.task_until(&id, |state| state["status"] == "scheduled")
        .await;
    stack.rabbit().await.filled("delay.05").await;
    broker.stop().await;
    broker.start().await;
    worker.wait_ready(true).await;
    notifier.wait_ready(true).await;
    assert!(
        Timestamp::now() < due,
        "the restart took too long for this test"
    );
    tokio::time::sleep_until(
        tokio::time::Instant::now() + due.duration_since(Timestamp::now()).unsigned_abs(),
    )
    .await;
    let states = ann.task_to_end(&id).await;
    punctual(&states, due);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_job_that_expires_is_not_begun_or_does_not_go_on() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    for (expires_in, begins) in [(-1, 0), (3, 1)] {
        let end = Timestamp::now() + SignedDuration::from_secs(expires_in);
        let job = json!({"kind": "gated", "user_id": "ann", "expires_at": end.to_string()});
        let id = stack.put_in(job).await;
        let end = ann.task_to_end(&id).await.pop().unwrap();
        assert_eq!(end["error"]["code"], "expired");
        assert_eq!(gated.times_begun(), begins);
    }
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn the_time_for_all_attempts_begins_when_a_job_is_due() {
    let stack = Stack::shared();
    let mut config = stack.worker_config();
    config.jobs.total_timeout = Some(HumanDuration::from_secs(2));
    let worker = stack.worker(config, Registry::new().with(Count)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack
        .put_in(json!({"kind": "count", "args": {"to": 1}, "user_id": "ann", "delay_s": 3}))
        .await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded", "{end}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_cancelled_job_does_not_run_when_its_time_comes() {
    let stack = Stack::shared();
    let gated = Gated::new();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(gated.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let job = json!({"kind": "gated", "user_id": "ann", "delay_s": 3});
    let id = stack.put_in(job).await;
    ann.task_until(&id, |state| state["status"] == "scheduled")
        .await;
    let url = notifier.url(&format!("/api/tasks/{id}"));
    let request = bellhop_tests::stack::http().delete(url);
    let token = bellhop_tests::stack::token("ann");
    let answer = request.bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 202);
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], end.get("error")),
        (&json!("cancelled"), None)
    );
    assert_eq!(gated.times_begun(), 0);
    tokio::time::timeout(Duration::from_secs(20), worker.stop())
        .await
        .unwrap();
    notifier.stop().await;
}
