//! The notifier that counts and workers die at random while groups run: each group ends once, and what
//! follows it ends once.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::enqueue_group::{NewGroup, enqueue_group};
use bellhop_common::telemetry::Component;
use bellhop_common::wire::{Ending, FollowUp, Group, Job, Parent, group_job_id};
use bellhop_tests::chaos::Swarm;
use bellhop_tests::program::Program;
use bellhop_tests::random::Random;
use bellhop_tests::stack::{Stack, http, token};
use bellhop_tests::watch::QueueWatch;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_mins(5);
const GROUPS: usize = 20;
const SIZE: usize = 50;
const OWNERS: usize = 4;

fn owner(group: usize) -> String {
    format!("user-{}", group % OWNERS)
}

fn id(group: usize) -> String {
    format!("group-{group}")
}

fn sequel(log: &PathBuf) -> FollowUp {
    FollowUp::new("noop", json!({"log": log}))
}

/// The id of the job that follows a group.
fn next_id(group: usize, log: &PathBuf) -> String {
    let (owner, result) = (owner(group), json!(null));
    let parent = Parent::group(&owner, &id(group), None);
    sequel(log).job(&parent, Ending::Succeeded(&result), 0).id
}

async fn put_in_all(stack: &Stack, log: &PathBuf, random: &mut Random) {
    let config = stack.worker_config().amqp;
    let names = Names::new(&config);
    let health = Component::default();
    let (publisher, task) = Publisher::start(&config, "producer", Topology::base(&names), health);
    for number in 0..GROUPS {
        let (owner, id) = (owner(number), id(number));
        let jobs = (0..SIZE).map(|index| {
            let kind = if random.below(3) == 0 { "slow" } else { "noop" };
            let task_id = group_job_id(&owner, &id, index).to_string();
            let job = Job::new(task_id, kind, json!({"log": log}), owner.as_str());
            ("default".to_owned(), job)
        });
        let new = NewGroup {
            jobs: jobs.collect(),
            group: Group {
                then: vec![sequel(log)],
                ..Group::new(id)
            },
            again: false,
        };
        let put_in = enqueue_group(&publisher, &names, new, Timestamp::now());
        put_in.await.unwrap();
    }
    task.close().await;
}

/// How often each task of a user ended, by what his stream holds.
async fn ends_of(port: u16, user: &str) -> HashMap<String, Vec<String>> {
    let mut ends: HashMap<_, Vec<_>> = HashMap::new();
    let mut before = String::new();
    loop {
        let url = format!("http://127.0.0.1:{port}/api/inbox?limit=200{before}");
        let answer = http().get(&url).bearer_auth(token(user)).send().await;
        let page: Value = answer.unwrap().json().await.unwrap();
        for item in page["items"].as_array().unwrap() {
            let event = &item["event"];
            let text = |name: &str| event["data"][name].as_str().unwrap().to_owned();
            ends.entry(text("task_id"))
                .or_default()
                .push(text("status"));
        }
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => return ends,
        }
    }
}

/// Kills a notifier or a worker now and then, until all that there is has ended.
async fn run(stack: &Stack, settings: &[Vec<String>]) {
    let mut random = Random::of_test();
    let start = async |settings: &[String]| {
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        Program::start("notifier", stack, &settings).await
    };
    let mut notifiers = Vec::new();
    for settings in settings {
        notifiers.push(start(settings).await);
    }
    let mut swarm = Swarm::start(stack, 3, &[], random.clone()).await;
    let rabbit = stack.rabbit().await;
    rabbit
        .declare("watched", "quorum", "events", "stored.user.#")
        .await;
    let queue = QueueWatch::start(&stack.worker_config().amqp, "watched");
    let log = stack.folder.0.join("log");
    put_in_all(stack, &log, &mut random).await;

    let tasks = GROUPS * (SIZE + 2);
    let (began, mut killed) = (Instant::now(), 0);
    while queue.ended() < tasks {
        assert!(
            began.elapsed() < PATIENCE,
            "{} of {tasks} ended",
            queue.ended()
        );
        sleep(Duration::from_millis(200 + random.below(800))).await;
        // The first when all workers are ready, so that one is lost for certain.
        if swarm.losses == 0 || random.below(3) == 0 {
            swarm.lose_one(Signal::KILL).await;
        }
        let index = usize::try_from(random.below(notifiers.len() as u64)).unwrap();
        notifiers[index].signal(Signal::KILL);
        notifiers[index].ended().await;
        killed += 1;
        notifiers[index] = start(&settings[index]).await;
    }
    let losses = swarm.losses;
    swarm.stop().await;
    rabbit.fetched("inbox").await;
    for notifier in &notifiers {
        notifier.signal(Signal::TERM);
    }
    for mut notifier in notifiers {
        assert!(notifier.ended().await.success());
    }
    check(stack, &settings[0], &log).await;
    let runs = std::fs::read_to_string(&log).unwrap();
    let next: Vec<_> = (0..GROUPS).map(|group| next_id(group, &log)).collect();
    let runs = runs
        .lines()
        .filter(|line| next.iter().any(|id| line.starts_with(id.as_str())));
    report(killed, losses, runs.count(), began);
    assert!(killed > 0 && losses > 0, "nothing happened");
}

/// What each owner has in his stream, when nothing is under way any more.
async fn check(stack: &Stack, settings: &[String], log: &PathBuf) {
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let notifier = Program::start("notifier", stack, &settings).await;
    stack.rabbit().await.fetched("inbox").await;
    for user in 0..OWNERS {
        let ends = ends_of(notifier.port, &owner(user)).await;
        for group in (user..GROUPS).step_by(OWNERS) {
            for task in [id(group), next_id(group, log)] {
                assert_eq!(
                    ends.get(&task).unwrap(),
                    &["succeeded"],
                    "{task} of group {group}"
                );
            }
        }
        assert_eq!(ends.len(), GROUPS / OWNERS * (SIZE + 2));
    }
}

#[expect(clippy::print_stderr, reason = "shown with the test's output")]
fn report(killed: usize, losses: usize, runs: usize, began: Instant) {
    eprintln!(
        "{GROUPS} groups of {SIZE}, {killed} notifiers and {losses} workers killed, {:.0?}: each group and what \
         follows it ended once, in {runs} runs for {GROUPS}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_counts_in_a_file_is_killed() {
    let stack = Stack::shared();
    run(&stack, &[vec!["websocket.drain_window=0s".to_owned()]]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_counts_in_redis_is_killed() {
    let stack = Stack::shared();
    let settings = super::streams::settings(&stack);
    let named = ["one", "two"].map(|name| {
        let name = format!("instance={name}");
        settings.iter().cloned().chain([name]).collect()
    });
    run(&stack, &named).await;
}
