//! Routes, teams, and what is over.

use bellhop_notifier::RouteConfig;
use bellhop_tests::alerts::failure;
use bellhop_tests::mattermost::{HOME, Mattermost};
use bellhop_tests::stack::{PATIENCE, Stack, http};
use serde_json::json;
use uuid::Uuid;

use super::{alerting, config};

pub(super) fn event(data: &serde_json::Value) -> String {
    let (id, now) = (Uuid::now_v7(), jiff::Timestamp::now());
    json!({"type": "disk.full", "id": id, "time": now, "data": data}).to_string()
}

#[tokio::test]
async fn a_success_after_failures_is_told() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.alerts.routes = vec![RouteConfig {
        name: "failures".into(),
        matches: vec!["stored.user.*.task.status_changed.failed".into()],
        resolve: vec!["stored.user.*.task.status_changed.succeeded".into()],
        group_by: vec!["kind".into()],
        ..RouteConfig::default()
    }];
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let (failed, succeeded) = ("failed", "succeeded");
    let key = |status| format!("stored.user.ann.task.status_changed.{status}");
    // Nothing to end yet.
    rabbit
        .publish("events", &key(succeeded), failure("report", ""))
        .await;
    for _ in 0..2 {
        rabbit
            .publish("events", &key(failed), failure("report", "no disk"))
            .await;
    }
    double.wait_for_posts(1, PATIENCE).await.unwrap();
    rabbit
        .publish("events", &key(succeeded), failure("import", ""))
        .await;
    rabbit
        .publish("events", &key(succeeded), failure("report", ""))
        .await;
    let over = |posts: &[bellhop_tests::mattermost::Post]| {
        posts
            .last()
            .is_some_and(|post| post.attachments[0].title.starts_with("Resolved"))
    };
    let posts = double.wait_until(over, PATIENCE).await.unwrap();
    let text = &posts.last().unwrap().attachments[0].text;
    assert!(text.contains("2 alerts"), "{text}");
    assert_eq!(rabbit.ready("alerts").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn a_team_is_told_what_backends_publish_for_it() {
    let (stack, double, notifier) = alerting().await;
    let rabbit = stack.rabbit().await;
    let firing = json!({"status": "firing", "title": "Disk full", "text": "@channel 99 %",
        "severity": "critical", "link": "https://grafana.example/d/1"});
    rabbit
        .publish("events", "stored.team.ops.disk.full", event(&firing))
        .await;
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    let (post, attachment) = (&posts[0], &posts[0].attachments[0]);
    assert_eq!(attachment.title, "Disk full");
    assert_eq!(attachment.title_link, "https://grafana.example/d/1");
    assert_eq!(post.priority.as_deref(), Some("urgent"));
    assert_eq!(post.channel, HOME);
    let resolved = event(&json!({"status": "resolved"}));
    rabbit
        .publish("events", "live.team.ops.disk.full", resolved)
        .await;
    let posts = double.wait_for_posts(2, PATIENCE).await.unwrap();
    assert!(posts[1].attachments[0].title.starts_with("Resolved: "));
    let metrics = http().get(notifier.url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for wants in [
        "bellhop_notifier_alerts_total{outcome=\"taken\"} ",
        "bellhop_notifier_alerts_total{outcome=\"posted\"} ",
        "bellhop_notifier_alert_receiver_up{receiver=\"mattermost\"} 1",
    ] {
        assert!(metrics.contains(wants), "{wants} in {metrics}");
    }
    notifier.stop().await;
}
