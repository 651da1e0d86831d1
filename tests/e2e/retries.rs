//! Attempts that fail and are tried again.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{Stack, no_args};
use bellhop_worker::{Registry, WorkerConfig};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::tasks::{Break, Flaky};

/// Retries that a test need not wait for.
fn quick(stack: &Stack) -> WorkerConfig {
    let mut config = stack.worker_config();
    config.jobs.retry_base = HumanDuration(Duration::from_millis(50));
    config
}

fn of_status<'a>(all: &'a [Value], status: &str) -> Vec<&'a Value> {
    let of = all.iter().filter(|state| state["status"] == status);
    of.collect()
}

#[tokio::test]
async fn a_failure_that_passes_is_seen_and_forgiven() {
    let stack = Stack::shared();
    let flaky = Flaky::new(2);
    let worker = stack
        .worker(quick(&stack), Registry::new().with(flaky.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let before = Timestamp::now();
    let id = stack.enqueue("flaky", no_args(), "ann").await;
    let states = ann.task_to_end(&id).await;
    let end = states.last().unwrap();
    assert_eq!(
        (&end["status"], &end["result"]),
        (&json!("succeeded"), &json!(3))
    );
    assert_eq!(
        (&end["attempt"], &end["max_attempts"]),
        (&json!(3), &json!(5))
    );
    let retrying = of_status(&states, "retrying");
    assert_eq!(retrying.len(), 2);
    for (state, attempt) in retrying.iter().zip(1..) {
        assert_eq!(state["attempt"], attempt);
        assert_eq!(state["error"]["code"], "flaky");
        let next = state["next_attempt_at"].as_str().unwrap();
        assert!(next.parse::<Timestamp>().unwrap() > before);
    }
    assert_eq!(flaky.began().len(), 3);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn the_last_attempt_is_the_end_and_the_dead_letter_counts_them() {
    let stack = Stack::shared();
    let mut config = quick(&stack);
    config.kinds = [(
        "break".to_owned(),
        bellhop_worker::KindConfig {
            max_attempts: Some(2),
            ..Default::default()
        },
    )]
    .into();
    let worker = stack.worker(config, Registry::new().with(Break)).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let rabbit = stack.rabbit().await;
    for (args, code, attempts) in [
        (json!({"how": "panic", "message": "boom"}), "panic", 2),
        (json!({"how": "retry"}), "flaky", 2),
        (json!({"how": "fail"}), "broken", 1),
    ] {
        let id = stack.enqueue("break", args, "ann").await;
        let end = ann.task_to_end(&id).await.pop().unwrap();
        assert_eq!(
            (&end["status"], &end["error"]["code"]),
            (&json!("failed"), &json!(code))
        );
        assert_eq!(end["attempt"], attempts);
        let letter = rabbit.take("dead").await;
        assert_eq!(letter.headers["x-bellhop-attempt"], attempts.to_string());
    }
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_handler_says_when_and_a_job_says_how_often() {
    let stack = Stack::shared();
    let flaky = Flaky::new(9).after(Duration::from_millis(1500));
    let worker = stack
        .worker(quick(&stack), Registry::new().with(flaky.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let job = json!({"kind": "flaky", "user_id": "ann", "max_attempts": 2});
    let id = stack.put_in(job).await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["attempt"]),
        (&json!("failed"), &json!(2))
    );
    let began = flaky.began();
    let pause = began[1] - began[0];
    assert!((1500..2400).contains(&pause.as_millis()), "{pause:?}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn own_broker_restarted_while_a_job_waits_to_be_tried_again() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let flaky = Flaky::new(1).after(Duration::from_secs(6));
    let worker = stack
        .worker(quick(&stack), Registry::new().with(flaky.clone()))
        .await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let id = stack.enqueue("flaky", no_args(), "ann").await;
    ann.task_until(&id, |state| state["status"] == "retrying")
        .await;
    stack.rabbit().await.filled("delay.02").await;
    broker.stop().await;
    worker.wait_ready(false).await;
    broker.start().await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(
        (&end["status"], &end["attempt"]),
        (&json!("succeeded"), &json!(2))
    );
    assert_eq!(flaky.began().len(), 2);
    worker.stop().await;
    notifier.stop().await;
}
