//! Very many failures are a few posts, and none is missing.

use std::time::{Duration, Instant};

use bellhop_tests::alerts::{count, failure, most_beyond};
use bellhop_tests::mattermost::Mattermost;
use bellhop_tests::program::Program;
use bellhop_tests::stack::Stack;

const GROUPS: usize = 50;

/// `alerts.burst`, as it is by default.
const BURST: f64 = 10.0;

fn number() -> usize {
    let given = std::env::var("BELLHOP_TEST_ALERTS").ok();
    given.map_or(2_000, |number| number.parse().unwrap())
}

fn resident_mib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[tokio::test]
async fn thousands_of_failures_are_counted_in_as_few_posts_as_the_rate_allows() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let webhook = format!("mattermost.webhook_url={}", double.hook_url());
    let settings = [
        &*webhook,
        "alerts.group_wait=1s",
        "alerts.group_interval=1s",
        "alerts.rate=20/s",
    ];
    let notifier = Program::start("notifier", &stack, &settings).await;
    let before = resident_mib(&notifier);
    let (rabbit, number, begun) = (stack.rabbit().await, number(), Instant::now());
    let failures = (0..number).map(|n| failure(&format!("kind-{}", n % GROUPS), "no disk"));
    let key = "stored.user.ann.task.status_changed.failed";
    rabbit.publish_all("events", key, failures.collect()).await;
    let told = |posts: &[_]| posts.iter().map(count).sum::<u64>() >= number as u64;
    let posts = double.wait_until(told, Duration::from_mins(2)).await;
    let posts = posts.unwrap_or_else(|posts| panic!("{} posts", posts.len()));
    let (took, made) = (begun.elapsed(), posts.len());
    let grown = resident_mib(&notifier).saturating_sub(before);
    println!("{number} alerts in {made} posts within {took:?}, {grown} MiB more than {before}");
    assert!(grown <= 50, "{grown} MiB");
    assert_eq!(posts.iter().map(count).sum::<u64>(), number as u64);
    let beyond = most_beyond(&double.times(), 20.0);
    assert!(beyond <= BURST + 1.0, "{beyond} more than the rate at once");
    assert_eq!(rabbit.ready("alerts").await, 0);
}
