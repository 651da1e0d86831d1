//! `unique_key`: the first one has it, everybody learns who that is, and it ends.

use std::time::{Duration, Instant};

use bellhop_common::amqp::{Claim, Claimed, Names, Publisher, PublisherTask, Topology};
use bellhop_common::enqueue::{EnqueueError, enqueue};
use bellhop_common::telemetry::Component;
use bellhop_common::unique;
use bellhop_common::wire::{Job, header};
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::stack::{Stack, http, no_args, open_kind, token};
use bellhop_worker::Registry;
use futures_util::future::join_all;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::tasks::{Count, Gated};

const HOUR: Duration = Duration::from_hours(1);

fn producer(stack: &Stack) -> (Publisher, PublisherTask, Names) {
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, "default");
    let (publisher, task) = Publisher::start(&config, "test", topology, Component::default());
    (publisher, task, names)
}

async fn claim(publisher: &Publisher, names: &Names, holder: &str, window: Duration) -> Claimed {
    let claim = Claim {
        queue: &names.unique("k", "ann", "key"),
        holder,
        mark: "mark",
        window,
    };
    publisher.claim(&claim).await.unwrap()
}

fn by(holder: &str) -> Claimed {
    Claimed::By(holder.into())
}

/// The one who asks had it before.
fn still() -> Claimed {
    Claimed::Still("mark".into())
}

#[tokio::test]
async fn of_fifty_at_once_one_has_the_key_and_all_learn_which() {
    let stack = Stack::shared();
    let producers: Vec<_> = (0..5).map(|_| producer(&stack)).collect();
    let ids: Vec<_> = (0..50).map(|n| format!("job-{n}")).collect();
    let asking = ids.iter().enumerate().map(|(n, id)| {
        let (publisher, _, names) = &producers[n % producers.len()];
        claim(publisher, names, id, HOUR)
    });
    let answers = join_all(asking).await;
    let winners: Vec<_> = (0..50).filter(|n| answers[*n] == Claimed::Mine).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    let first = by(&ids[winners[0]]);
    assert_eq!(
        answers.iter().filter(|answer| **answer == first).count(),
        49
    );
    for (_, task, _) in producers {
        task.close().await;
    }
}

#[tokio::test]
async fn the_same_one_may_ask_again_and_another_key_or_user_is_free() {
    let stack = Stack::shared();
    let (publisher, task, names) = producer(&stack);
    assert_eq!(claim(&publisher, &names, "a", HOUR).await, Claimed::Mine);
    assert_eq!(claim(&publisher, &names, "a", HOUR).await, still());
    assert_eq!(claim(&publisher, &names, "b", HOUR).await, by("a"));
    for (kind, user, key) in [("k2", "ann", "key"), ("k", "bob", "key"), ("k", "ann", "x")] {
        let claim = Claim {
            queue: &names.unique(kind, user, key),
            holder: "b",
            mark: "",
            window: HOUR,
        };
        assert_eq!(publisher.claim(&claim).await.unwrap(), Claimed::Mine);
    }
    task.close().await;
}

#[tokio::test]
async fn the_window_of_the_first_one_counts_and_its_queues_go_with_it() {
    let stack = Stack::shared();
    let (publisher, task, names) = producer(&stack);
    let began = Instant::now();
    let (first, window) = (Duration::from_secs(8), Duration::from_secs(2));
    assert_eq!(claim(&publisher, &names, "a", first).await, Claimed::Mine);
    // Asking does not make it longer, and the window of one who comes later does not count.
    let next = loop {
        match claim(&publisher, &names, "b", HOUR).await {
            Claimed::By(holder) => assert_eq!(holder, "a"),
            Claimed::Mine => break began.elapsed(),
            Claimed::Still(mark) => panic!("{mark}"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    assert!(next >= first && next < first * 2, "{next:?}");
    assert_eq!(claim(&publisher, &names, "c", window).await, by("b"));
    let queue = names.unique("k", "ann", "key");
    publisher.release(&queue).await;
    assert_eq!(claim(&publisher, &names, "d", window).await, Claimed::Mine);
    // A look counts as use and would keep them; so one look, when they are due.
    sleep(window + Duration::from_secs(12)).await;
    let rabbit = stack.rabbit().await;
    let (_, short) = queue.split_at(stack.prefix.len());
    for queue in [short, &format!("{short}.holder")] {
        assert!(!rabbit.exists(queue).await, "{queue}");
    }
    task.close().await;
}

#[tokio::test]
async fn a_holder_that_died_before_it_wrote_its_name_is_named_all_the_same() {
    let stack = Stack::shared();
    let (publisher, task, names) = producer(&stack);
    assert_eq!(claim(&publisher, &names, "a", HOUR).await, Claimed::Mine);
    let queue = names.unique("k", "ann", "key");
    let (_, short) = queue.split_at(stack.prefix.len());
    let rabbit = stack.rabbit().await;
    rabbit.take(&format!("{short}.holder")).await;
    assert_eq!(claim(&publisher, &names, "b", HOUR).await, by("a"));
    assert_eq!(claim(&publisher, &names, "a", HOUR).await, still());
    task.close().await;
}

#[tokio::test]
async fn own_broker_killed_keeps_the_claim() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let (publisher, task, names) = producer(&stack);
    assert_eq!(claim(&publisher, &names, "a", HOUR).await, Claimed::Mine);
    // In order first: RabbitMQ 3.10 can lose its note of a quorum queue that is killed within a
    // second of being declared.
    broker.stop().await;
    broker.start().await;
    broker.kill().await;
    broker.start().await;
    assert_eq!(claim(&publisher, &names, "b", HOUR).await, by("a"));
    task.close().await;
}

#[tokio::test]
async fn the_second_job_is_not_put_in_and_the_first_ones_id_is_the_answer() {
    let stack = Stack::shared();
    let (publisher, task, names) = producer(&stack);
    let mut first = Job::new("first", "k", no_args(), "ann");
    first.unique_key = Some("key".into());
    let second = Job {
        id: "second".into(),
        ..first.clone()
    };
    let now = Timestamp::now();
    // A job that could not be put in leaves its key free.
    let nowhere = enqueue(&publisher, &names, "nowhere", &second, now).await;
    assert!(matches!(nowhere, Err(EnqueueError::NoSuchQueue { .. })));
    for (job, duplicate) in [(&first, false), (&second, true)] {
        let enqueued = enqueue(&publisher, &names, "default", job, now).await;
        let enqueued = enqueued.unwrap();
        assert_eq!(
            (enqueued.task_id.as_str(), enqueued.duplicate),
            ("first", duplicate)
        );
    }
    let rabbit = stack.rabbit().await;
    let message = rabbit.take("jobs.default").await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
    // What a worker finds out about the two, had the second come straight over AMQP.
    let of = async |job, claimed| {
        unique::duplicate(&publisher, &names, job, claimed)
            .await
            .unwrap()
    };
    let claimed = message.headers.contains_key(header::CLAIMED);
    assert!(claimed);
    assert_eq!(
        of(&second, claimed).await,
        None,
        "it holds what it asked for"
    );
    assert_eq!(of(&first, false).await, None);
    let error = of(&second, false).await.unwrap();
    assert_eq!(error.code, "duplicate");
    assert!(error.message.contains("first"), "{}", error.message);
    task.close().await;
}

#[tokio::test]
async fn a_job_that_is_put_in_again_because_nobody_knew_is_run_once() {
    let stack = Stack::shared();
    let (publisher, task, names) = producer(&stack);
    let mut job = Job::new("again", "gated", no_args(), "ann");
    job.unique_key = Some("key".into());
    // As after a confirm that did not come.
    let now = Timestamp::now();
    for at in [now, now + Duration::from_mins(1)] {
        let enqueued = enqueue(&publisher, &names, "default", &job, at).await;
        assert!(!enqueued.unwrap().duplicate);
    }
    let mut config = stack.worker_config();
    config.jobs.concurrency = Some(1);
    let gated = Gated::new();
    gated.gate.add_permits(10);
    let registry = Registry::new().with(gated.clone()).with(Count);
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let worker = stack.worker(config, registry).await;
    ann.task_to_end("again").await;
    let last = stack.enqueue("count", json!({"to": 1}), "ann").await;
    ann.task_to_end(&last).await;
    worker.stop().await;
    assert_eq!(stack.rabbit().await.ready("jobs.default").await, 0);
    assert_eq!(gated.times_begun(), 1);
    // A job of a later window is another one, although it has the id again.
    publisher
        .release(&names.unique("gated", "ann", "key"))
        .await;
    enqueue(
        &publisher,
        &names,
        "default",
        &job,
        now + Duration::from_mins(2),
    )
    .await
    .unwrap();
    let rabbit = stack.rabbit().await;
    let later = rabbit.take("jobs.default").await;
    assert!(!later.headers.contains_key(header::ONCE));
    task.close().await;
    notifier.stop().await;
}

#[tokio::test]
async fn over_http_a_duplicate_is_answered_with_the_first_ones_id() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    open_kind(&mut config, "count");
    let notifier = stack.notifier(config).await;
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Count))
        .await;
    worker.stop().await;
    let post = async |body: Value| {
        let request = http()
            .post(notifier.url("/api/tasks"))
            .bearer_auth(token("ann"));
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (
            status,
            serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap(),
        )
    };
    let body = json!({"kind": "count", "args": {"to": 1}, "unique_key": "k", "unique_for_s": 60, "delay_s": 5});
    let (status, first) = post(body.clone()).await;
    assert_eq!((status, &first["status"]), (202, &json!("scheduled")));
    let (status, second) = post(body).await;
    assert_eq!((status, &second["status"]), (200, &json!("duplicate")));
    assert_eq!(first["task_id"], second["task_id"]);
    for (field, value, says) in [
        ("unique_for_s", json!(86_401), "a day"),
        ("delay_s", json!(90 * 86_400 + 1), "90 days"),
        ("run_at", json!("2999-01-01T00:00:00Z"), "90 days"),
        ("run_at", json!("tomorrow"), "line 1 column"),
        ("unique_key", json!(""), "unique_key"),
    ] {
        let (status, answer) = post(json!({"kind": "count", field: value})).await;
        assert_eq!(status, 400, "{answer}");
        assert!(answer.to_string().contains(says), "{says} in {answer}");
    }
    notifier.stop().await;
}
