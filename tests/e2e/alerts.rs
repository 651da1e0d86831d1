//! A failed job is posted to Mattermost, once, whatever Mattermost does meanwhile.

mod crowd;
mod handover;
mod holding;
mod lost_answers;
mod no_store;
mod outage;
mod routes;
mod silences;
mod slack;

use std::time::{Duration, Instant};

use bellhop_common::config::Secret;
use bellhop_notifier::NotifierConfig;
use bellhop_tests::alerts::count;
use bellhop_tests::mattermost::{Mattermost, Mode, Post, mentions};
use bellhop_tests::stack::{PATIENCE, Running, Stack};
use bellhop_worker::Registry;
use reqwest::Method;
use serde_json::{Value, json};

use self::silences::{ask, group};
use self::slack::attempts;
use crate::tasks::Break;
use bellhop_tests::alerts::{fail, failure};

async fn services(stack: &Stack, double: &Mattermost) -> (Running, Running) {
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Break))
        .await;
    let notifier = stack.notifier(config(stack, double)).await;
    (worker, notifier)
}

pub(crate) fn config(stack: &Stack, double: &Mattermost) -> NotifierConfig {
    let mut config = stack.notifier_config();
    config.mattermost.webhook_url = Some(Secret::new(double.hook_url()));
    config.mattermost.task_url = Some("https://bell.example/tasks/{task_id}".into());
    config.alerts.group_wait.0 = Duration::from_millis(200);
    config.alerts.group_interval.0 = Duration::from_millis(500);
    config
}

/// A notifier that posts what fails, and where to.
pub(crate) async fn alerting() -> (Stack, Mattermost, Running) {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    // A silence is seen within a second.
    config.alerts.group_wait.0 = Duration::from_secs(3);
    let notifier = stack.notifier(config).await;
    (stack, double, notifier)
}

/// The posts, once they tell so many alerts.
pub(crate) async fn wait_until_told(double: &Mattermost, wants: u64) -> Vec<Post> {
    let told = |posts: &[Post]| posts.iter().map(count).sum::<u64>() >= wants;
    let posts = double.wait_until(told, PATIENCE).await;
    posts.unwrap_or_else(|posts| panic!("{wants} alerts in {posts:?}"))
}

#[tokio::test]
async fn a_failure_is_posted_with_everything_and_mentions_nobody() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let (worker, notifier) = services(&stack, &double).await;
    let hostile = "@channel <!here> [click](https://evil.example) ``` @alice ![x](http://e/x.png)";
    let args = json!({"how": "fail", "message": hostile});
    let id = stack.enqueue("break", args, "@all").await;
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    let shown = format!("{:?}", posts[0]);
    for wants in ["break", &id, "broken", "https://bell.example/tasks/"] {
        assert!(shown.contains(wants), "{wants} in {shown}");
    }
    assert_eq!(mentions(&posts[0]), Vec::<String>::new());
    assert_eq!(posts.len(), 1);
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_outage_of_mattermost_loses_nothing() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    double.set_mode(Mode::Status(503));
    let (worker, notifier) = services(&stack, &double).await;
    for n in 0..3 {
        let args = json!({"how": "fail", "message": format!("failure {n}")});
        stack.enqueue("break", args, "ann").await;
    }
    double.wait_for_requests(1, PATIENCE).await.unwrap();
    let rabbit = stack.rabbit().await;
    rabbit.fetched("alerts").await;
    // The notifier is replaced in the middle of the outage.
    notifier.stop().await;
    let notifier = stack.notifier(config(&stack, &double)).await;
    double.wait_for_requests(2, PATIENCE).await.unwrap();
    double.set_mode(Mode::Healthy);
    let posts = wait_until_told(&double, 3).await;
    for n in 0..3 {
        let about = format!("failure {n}");
        let tell = posts
            .iter()
            .filter(|post| format!("{:?}", post.attachments).contains(&about));
        assert_eq!(tell.count(), 1, "{about}: {posts:?}");
    }
    worker.stop().await;
    notifier.stop().await;
    assert_eq!(rabbit.ready("alerts").await, 0);
    // The jobs themselves, and no alert.
    rabbit.settles_at("dead", 3).await;
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    double.set_mode(Mode::RateLimited(Some(3)));
    let (worker, notifier) = services(&stack, &double).await;
    stack
        .enqueue("break", json!({"how": "fail", "message": "x"}), "ann")
        .await;
    double.wait_for_requests(1, PATIENCE).await.unwrap();
    let limited = Instant::now();
    double.set_mode(Mode::Healthy);
    double.wait_for_posts(1, PATIENCE).await.unwrap();
    let waited = limited.elapsed();
    assert!(waited >= Duration::from_millis(2900), "only {waited:?}");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn an_alert_that_mattermost_refuses_goes_to_the_dead_letters() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let worker = stack
        .worker(stack.worker_config(), Registry::new().with(Break))
        .await;
    let mut refused = config(&stack, &double);
    refused.mattermost.channel = Some("no-such-channel".into());
    let notifier = stack.notifier(refused).await;
    stack
        .enqueue("break", json!({"how": "fail", "message": "x"}), "ann")
        .await;
    let rabbit = stack.rabbit().await;
    let letters = [rabbit.take("dead").await, rabbit.take("dead").await];
    let alert = letters.iter().find(|letter| letter.routing_key == "alerts");
    let alert = alert.expect("the alert is a dead letter");
    assert_eq!(alert.headers["x-bellhop-reason"], "alert_refused");
    assert!(alert.headers["x-bellhop-error"].contains("404"));
    assert!(double.posts().is_empty());
    let group = group(&notifier, |group| group["pending"] == 0).await;
    assert_eq!(
        (&group["posts"], &group["posted_at"]),
        (&json!(0), &Value::Null)
    );
    let (_, open) = ask(&notifier, Method::GET, "/api/alerts", &Value::Null).await;
    let receiver = &open["receivers"][0];
    assert_eq!(receiver["up"], false, "{receiver}");
    assert!(receiver["failing_since"].is_string(), "{receiver}");
    let (_, ready) = ask(&notifier, Method::GET, "/readyz", &Value::Null).await;
    assert_eq!(ready["components"]["alerts.mattermost"], "down");
    worker.stop().await;
    notifier.stop().await;
}

#[tokio::test]
async fn what_a_proxy_answers_while_mattermost_restarts_costs_no_alert() {
    let (stack, double, notifier) = alerting().await;
    let rabbit = stack.rabbit().await;
    double.set_mode(Mode::Proxy(404));
    fail(&rabbit, "report", "no disk").await;
    double.wait_for_requests(1, PATIENCE).await.unwrap();
    double.set_mode(Mode::Healthy);
    double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert_eq!(rabbit.ready("dead").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn the_log_of_deliveries_has_all_that_a_post_counts() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.alerts.group_wait.0 = Duration::from_secs(1);
    config.alerts.max_shown = 2;
    let notifier = stack.notifier(config).await;
    let failures: Vec<_> = (0..9).map(|_| failure("report", "no disk")).collect();
    let ids: Vec<String> = (failures.iter())
        .map(|failure| serde_json::from_slice::<Value>(failure).unwrap()["id"].to_string())
        .collect();
    let rabbit = stack.rabbit().await;
    let key = "stored.user.ann.task.status_changed.failed";
    rabbit.publish_all("events", key, failures).await;
    let posts = wait_until_told(&double, 9).await;
    assert_eq!(posts.len(), 1, "{posts:?}");
    for id in ids {
        let log = attempts(&notifier, id.trim_matches('"')).await;
        assert_eq!((log.len(), &log[0]["outcome"]), (1, &json!("sent")), "{id}");
    }
    notifier.stop().await;
}
