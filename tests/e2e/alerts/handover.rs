//! Whoever comes next goes on where the last one was.

use std::time::{Duration, Instant};

use bellhop_tests::alerts::{count, fail};
use bellhop_tests::broker::setting;
use bellhop_tests::client::metric;
use bellhop_tests::mattermost::{Mattermost, Mode};
use bellhop_tests::program::Program;
use bellhop_tests::stack::{PATIENCE, Stack};
use rustix::process::Signal;

use super::silences::group_at;
use super::{config, wait_until_told};

#[tokio::test]
async fn a_post_that_a_crash_interrupts_is_made_at_most_twice_and_the_second_says_so() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    double.set_mode(Mode::Mute);
    let webhook = format!("mattermost.webhook_url={}", double.hook_url());
    let settings = [
        &*webhook,
        "alerts.group_wait=100ms",
        "alerts.group_interval=200ms",
    ];
    let mut notifier = Program::start("notifier", &stack, &settings).await;
    let rabbit = stack.rabbit().await;
    fail(&rabbit, "report", "no disk").await;
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert!(!posts[0].attachments[0].footer.contains("may repeat"));
    // The post is in, and the notifier does not know.
    notifier.signal(Signal::KILL);
    notifier.ended().await;
    double.set_mode(Mode::Healthy);
    let notifier = Program::start("notifier", &stack, &settings).await;
    let posts = double.wait_for_posts(2, PATIENCE).await.unwrap();
    assert!(
        posts[1].attachments[0].footer.contains("may repeat"),
        "{:?}",
        posts[1]
    );
    // Another one shows that nothing of the first is left.
    fail(&rabbit, "report", "again").await;
    let posts = double.wait_for_posts(3, PATIENCE).await.unwrap();
    assert_eq!(posts.iter().map(count).collect::<Vec<_>>(), [1, 1, 1]);
    let last = format!("{:?}", posts[2].attachments);
    assert!(
        last.contains("again") && !last.contains("no disk"),
        "{last}"
    );
    drop(notifier);
}

#[tokio::test]
async fn another_notifier_goes_on_with_groups_that_wait() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let shared = |instance: &str| {
        let mut shared = config(&stack, &double);
        shared.store = stack.shared_config().store;
        shared.instance = Some(instance.into());
        shared.alerts.group_wait.0 = Duration::from_secs(6);
        shared
    };
    let first = stack.notifier(shared("first")).await;
    let rabbit = stack.rabbit().await;
    for n in 0..3 {
        fail(&rabbit, "report", &format!("failure {n}")).await;
    }
    rabbit.fetched("alerts").await;
    let second = stack.notifier(shared("second")).await;
    assert!(double.posts().is_empty());
    first.stop().await;
    // Nothing is in the queue any more: it is the state that the second goes on from.
    let posts = wait_until_told(&double, 3).await;
    assert_eq!(posts.len(), 1, "{posts:?}");
    second.stop().await;
}

#[tokio::test]
async fn a_notifier_that_waits_for_its_clients_leaves_alerts_to_another() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let shared = |instance: &str| {
        let mut shared = config(&stack, &double);
        shared.store = stack.shared_config().store;
        shared.instance = Some(instance.into());
        shared.websocket.drain_window.0 = Duration::from_mins(2);
        shared
    };
    let first = stack.notifier(shared("first")).await;
    let rabbit = stack.rabbit().await;
    fail(&rabbit, "report", "before").await;
    wait_until_told(&double, 1).await;
    let second = stack.notifier(shared("second")).await;
    let mut clients = Vec::new();
    for n in 0..20 {
        clients.push(stack.client(&first, &format!("u{n}")).await);
    }
    first.begin_stop();
    first.wait_ready(false).await;
    fail(&rabbit, "import", "meanwhile").await;
    wait_until_told(&double, 2).await;
    let left = metric(&first, "bellhop_notifier_connections").await;
    assert!(left > 0, "it was gone before");
    drop(clients);
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn another_notifier_takes_over_within_seconds_from_one_that_is_killed() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let webhook = format!("mattermost.webhook_url={}", double.hook_url());
    let store = format!("store.url={}", setting("BELLHOP_TEST_REDIS_URL"));
    let prefix = format!("store.prefix={}", stack.prefix);
    let settings = [
        &*webhook,
        "store.kind=redis",
        &*store,
        &*prefix,
        "alerts.group_wait=5s",
    ];
    // The first is the one that RabbitMQ gives the queue to.
    let mut first = Program::start("notifier", &stack, &settings).await;
    let second = Program::start("notifier", &stack, &settings).await;
    let rabbit = stack.rabbit().await;
    for n in 0..3 {
        fail(&rabbit, "report", &format!("failure {n}")).await;
    }
    // The first has taken them: they will not come again.
    let state = format!("http://127.0.0.1:{}/api/alerts", second.port);
    group_at(&state, |group| group["pending"] == 3).await;
    first.signal(Signal::KILL);
    first.ended().await;
    let killed = Instant::now();
    assert!(double.posts().is_empty());
    // Nothing is in the queue any more that would tell the second.
    let posts = wait_until_told(&double, 3).await;
    let took = killed.elapsed();
    println!("taken over and told within {took:?}");
    assert_eq!(posts.len(), 1, "{posts:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(second);
    assert_eq!(rabbit.ready("alerts").await, 0);
}
