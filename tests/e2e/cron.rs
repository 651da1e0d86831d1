//! Periodic jobs: each time once, whoever dies meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use bellhop_common::amqp::{Message, Names, Publisher, Route, Topology};
use bellhop_common::telemetry::Component;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::program::Program;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::Stack;
use bellhop_worker::{CatchUp, CronConfig, Registry, WorkerConfig};
use jiff::{SignedDuration, Timestamp};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::tasks::Count;

/// Where the jobs go that the test takes instead of a worker.
const TICKS: &str = "ticks";

/// An entry whose jobs the test takes.
fn every(schedule: &str, catch_up: CatchUp) -> CronConfig {
    CronConfig {
        schedule: schedule.into(),
        timezone: "UTC".into(),
        kind: "tick".into(),
        args: json!({}),
        queue: TICKS.into(),
        user_id: "ann".into(),
        title: None,
        catch_up,
    }
}

fn config(stack: &Stack, cron: CronConfig) -> WorkerConfig {
    let mut config = stack.worker_config();
    config.cron.insert("tick".into(), cron);
    config
}

/// The queue, and a client to take from it.
async fn ticks(stack: &Stack) -> Rabbit {
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let topology = Topology::base(&names).with_job_queue(&names, TICKS);
    let (publisher, task) = Publisher::start(&config, "test", topology, Component::default());
    // Sent once everything is declared.
    let route = Route {
        exchange: &names.jobs(),
        key: TICKS,
        mandatory: true,
    };
    publisher.publish(route, &Message::default()).await.unwrap();
    task.close().await;
    let rabbit = stack.rabbit().await;
    rabbit.take("jobs.ticks").await;
    rabbit
}

/// Takes jobs until one for this time has come; how often each time was fired.
async fn until(rabbit: &Rabbit, end: Timestamp, seen: &mut BTreeMap<Timestamp, usize>) {
    while seen.last_key_value().is_none_or(|(last, _)| *last < end) {
        let taken = rabbit.take("jobs.ticks").await;
        // "1" if the broker went before its confirm.
        assert!(["true", "1"].contains(&&*taken.headers["x-bellhop-once"]));
        let job: Value = serde_json::from_slice(&taken.body).unwrap();
        let at = job["cron"]["at"].as_str().unwrap().parse().unwrap();
        *seen.entry(at).or_default() += 1;
    }
}

fn seconds_from_now(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).unwrap()
}

/// Every second of the range was fired, and none more often than this.
fn without_a_gap(seen: &BTreeMap<Timestamp, usize>, repeats: usize) {
    let times: Vec<_> = seen.keys().collect();
    for pair in times.windows(2) {
        let step = pair[1].duration_since(*pair[0]);
        assert_eq!(step, SignedDuration::from_secs(1), "after {}", pair[0]);
    }
    let more = seen.values().map(|count| count - 1).sum::<usize>();
    assert!(more <= repeats, "{more} fired again: {seen:?}");
}

#[tokio::test]
async fn each_second_is_fired_once_while_the_active_worker_is_killed() {
    const KILLS: usize = 3;
    let stack = Stack::shared();
    let rabbit = ticks(&stack).await;
    let entry = r#"{schedule="* * * * * *",kind="tick",queue="ticks",user_id="ann"}"#;
    let settings = [format!("cron.tick={entry}")];
    let settings = settings.each_ref().map(String::as_str);
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(Program::start("worker", &stack, &settings).await);
    }
    let mut seen = BTreeMap::new();
    until(&rabbit, seconds_from_now(2), &mut seen).await;
    for _ in 0..KILLS {
        // The queue has them in the order in which they came.
        let mut active = workers.remove(0);
        active.signal(Signal::KILL);
        active.ended().await;
        workers.push(Program::start("worker", &stack, &settings).await);
        until(&rabbit, seconds_from_now(2), &mut seen).await;
    }
    // One killed between the job and the token leaves its last to be fired again, under the same
    // id, which the workers recognise.
    without_a_gap(&seen, KILLS);
    // One that stops in order hands over without a repeat.
    let mut again = BTreeMap::new();
    let mut active = workers.remove(0);
    active.signal(Signal::TERM);
    active.ended().await;
    until(&rabbit, seconds_from_now(2), &mut again).await;
    without_a_gap(&again, 0);
}

#[tokio::test]
async fn what_was_missed_while_nobody_ran_is_made_up_for_as_configured() {
    for (catch_up, wants) in [(CatchUp::None, 0), (CatchUp::Last, 1), (CatchUp::All, 5)] {
        let stack = Stack::shared();
        let rabbit = ticks(&stack).await;
        let cron = every("0 0 * * *", catch_up);
        let worker = stack
            .worker(config(&stack, cron.clone()), Registry::new())
            .await;
        worker.stop().await;
        // As if the last of them had stopped five midnights ago.
        rabbit.purge("cron").await;
        let midnight = Timestamp::now().as_second().div_euclid(86_400) * 86_400;
        let until = Timestamp::from_second(midnight - 4 * 86_400 - 1).unwrap();
        let mark = json!({"until": until, "schedule": "0 0 * * * UTC"});
        let token = json!({"entries": {"tick": mark}}).to_string();
        rabbit.publish_to_queue("cron", token).await;
        // The second one finds that it is done.
        for _ in 0..2 {
            let config = config(&stack, cron.clone());
            let worker = stack.worker(config, Registry::new()).await;
            rabbit.holds("jobs.ticks", wants).await;
            // Nothing tells that no more will come; the token comes to rest within half a second.
            sleep(Duration::from_secs(2)).await;
            worker.stop().await;
            assert_eq!(rabbit.ready("jobs.ticks").await, wants, "{catch_up:?}");
        }
    }
}

#[tokio::test]
async fn own_broker_restarted_between_two_times() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let rabbit = ticks(&stack).await;
    let cron = every("* * * * * *", CatchUp::Last);
    let workers = [
        stack
            .worker(config(&stack, cron.clone()), Registry::new())
            .await,
        stack.worker(config(&stack, cron), Registry::new()).await,
    ];
    let mut seen = BTreeMap::new();
    until(&rabbit, seconds_from_now(2), &mut seen).await;
    broker.stop().await;
    broker.start().await;
    for worker in &workers {
        worker.wait_ready(true).await;
    }
    until(&stack.rabbit().await, seconds_from_now(2), &mut seen).await;
    without_a_gap(&seen, 1);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_periodic_job_is_run_and_its_owner_sees_it() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let cron = CronConfig {
        kind: "count".into(),
        args: json!({"to": 2}),
        queue: "default".into(),
        title: Some("Each second".into()),
        ..every("* * * * * *", CatchUp::Last)
    };
    let worker = stack
        .worker(config(&stack, cron), Registry::new().with(Count))
        .await;
    let end = ann
        .task_until_any(|state| state["status"] == "succeeded")
        .await;
    assert_eq!(end["title"], "Each second");
    worker.stop().await;
    notifier.stop().await;
}
