//! Workers, brokers and connections die at random while jobs run: none is lost, each ends once.
//!
//! Each test prints the seed that repeats its choices, and what it saw.

mod disk;
mod groups;
mod kills;
mod networks;
mod streams;

use std::time::{Duration, Instant};

use bellhop_tests::broker::OwnBroker;
use bellhop_tests::chaos::{Report, Run, Swarm, job_count};
use bellhop_tests::random::Random;
use bellhop_tests::relay::Relay;
use bellhop_tests::stack::{Running, Stack};
use bellhop_tests::watch::ClientWatch;
use rustix::process::Signal;
use tokio::time::{interval, sleep};

/// For everything to end; the full number of jobs takes minutes.
const PATIENCE: Duration = Duration::from_mins(10);

async fn prepare(stack: &Stack, usual: usize, random: &mut Random) -> (Running, Run) {
    let notifier = stack.notifier(stack.notifier_config()).await;
    let client = ClientWatch::start(&notifier, "ann").await;
    let run = Run::prepare(stack.clone(), client, job_count(usual), random).await;
    (notifier, run)
}

/// Nothing is left anywhere, and each job ended once, as it had to.
async fn conclude(run: Run, swarm: Swarm, notifier: Running, what: &str) -> Report {
    run.until_ended(run.fates.len(), PATIENCE).await;
    run.until_empty().await;
    swarm.stop().await;
    run.until_empty().await;
    let margin = Duration::from_secs(5);
    run.client.until(run.fates.len(), margin).await;
    let (dead, alone) = (run.dead_letters().await, run.isolations().await);
    let report = run.report();
    report.print(&format!("{what}; {dead} dead letters, {alone} times alone"));
    drop(run);
    notifier.stop().await;
    report.check();
    report
}

#[tokio::test]
async fn a_worker_is_killed_every_second() {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let (notifier, run) = prepare(&stack, 1500, &mut random).await;
    let mut swarm = Swarm::start(&stack, 3, &[], random).await;
    let mut seconds = interval(Duration::from_secs(1));
    let end = Instant::now() + PATIENCE;
    while !run.is_over() {
        seconds.tick().await;
        swarm.lose_one(Signal::KILL).await;
        assert!(Instant::now() < end, "{}", run.report());
    }
    let what = format!("{} workers killed", swarm.losses);
    let report = conclude(run, swarm, notifier, &what).await;
    report.check_shown();
}

#[tokio::test]
async fn a_worker_is_replaced_every_second() {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let (notifier, run) = prepare(&stack, 1500, &mut random).await;
    // Less than the slow ones take, so that some are handed back.
    let deadline = "shutdown.deadline=300ms";
    let mut swarm = Swarm::start(&stack, 3, &[deadline], random).await;
    let mut seconds = interval(Duration::from_secs(1));
    let end = Instant::now() + PATIENCE;
    while !run.is_over() {
        seconds.tick().await;
        swarm.lose_one(Signal::TERM).await;
        assert!(Instant::now() < end, "{}", run.report());
    }
    let what = format!("{} workers replaced", swarm.losses);
    let report = conclude(run, swarm, notifier, &what).await;
    report.check_shown();
}

#[tokio::test]
async fn own_broker_killed_five_times_in_a_run() {
    let mut random = Random::of_test();
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let (notifier, run) = prepare(&stack, 1500, &mut random).await;
    let swarm = Swarm::start(&stack, 3, &[], random.clone()).await;
    for kill in 1..=5 {
        run.until_ended(run.fates.len() * kill / 8, PATIENCE).await;
        sleep(Duration::from_millis(random.below(500))).await;
        broker.kill().await;
        broker.start().await;
    }
    // What was on its way to a client is lost with the broker.
    let report = conclude(run, swarm, notifier, "the broker killed 5 times").await;
    assert!(report.seen_twice.is_empty(), "{report}");
}

#[tokio::test]
async fn own_broker_out_of_memory_in_a_run() {
    let mut random = Random::of_test();
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let (notifier, run) = prepare(&stack, 1500, &mut random).await;
    let swarm = Swarm::start(&stack, 3, &[], random).await;
    run.until_ended(run.fates.len() / 3, PATIENCE).await;
    broker.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    sleep(Duration::from_secs(1)).await;
    let then = run.ended();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(run.ended(), then, "nobody can tell an end");
    broker.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    let report = conclude(run, swarm, notifier, "a memory alarm for some seconds").await;
    report.check_shown();
}

#[tokio::test]
async fn connections_are_cut_at_random_bytes() {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let (notifier, run) = prepare(&stack, 1500, &mut random).await;
    let relay = Relay::start(&stack.url, random.clone(), 300_000).await;
    let behind = Stack {
        url: relay.url(&stack.url),
        ..stack.clone()
    };
    let swarm = Swarm::start(&behind, 3, &[], random).await;
    run.until_ended(run.fates.len(), PATIENCE).await;
    relay.calm();
    let what = format!("{} connections cut", relay.cuts());
    let report = conclude(run, swarm, notifier, &what).await;
    report.check_shown();
}
