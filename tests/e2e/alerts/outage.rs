//! RabbitMQ is away for long, and failures that follow from it are told as that.

use std::time::Duration;

use bellhop_notifier::RouteConfig;
use bellhop_tests::alerts::{FAILED, fail, failure_at};
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::mattermost::Mattermost;
use bellhop_tests::stack::{PATIENCE, Stack, http};
use tokio::time::sleep;

use super::config;

/// What is shorter is no trouble.
const WORTH_TELLING: Duration = Duration::from_secs(10);

#[tokio::test]
async fn own_broker_away_is_told_once_it_is_back_and_what_follows_only_counts() {
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.alerts.routes = vec![RouteConfig {
        name: "failures".into(),
        matches: vec!["stored.user.*.task.status_changed.failed".into()],
        group_by: vec!["kind".into()],
        inhibited_by: vec!["broker".into()],
        ..RouteConfig::default()
    }];
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    fail(&rabbit, "before", "x").await;
    double.wait_for_posts(1, PATIENCE).await.unwrap();
    broker.stop().await;
    notifier.wait_ready(false).await;
    // Nothing to wait for but the time itself: less would be no outage.
    sleep(WORTH_TELLING).await;
    let meanwhile = jiff::Timestamp::now();
    broker.start().await;
    let posts = double.wait_for_posts(2, 3 * PATIENCE).await.unwrap();
    let attachment = &posts[1].attachments[0];
    assert_eq!(attachment.title, "Resolved: broker");
    assert!(attachment.text.contains("RabbitMQ"), "{attachment:?}");

    let rabbit = stack.rabbit().await;
    rabbit
        .publish("events", FAILED, failure_at("late", "x", meanwhile))
        .await;
    fail(&rabbit, "fresh", "x").await;
    let posts = double.wait_for_posts(3, PATIENCE).await.unwrap();
    assert_eq!(posts[2].attachments[0].title, "Failed: fresh");
    let metrics = http().get(notifier.url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let inhibited = "bellhop_notifier_alerts_total{outcome=\"inhibited\"} 1";
    assert!(metrics.contains(inhibited), "{metrics}");
    notifier.stop().await;
}
