//! What is not told at once: in quiet hours, and while something changes all the time.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::{FlapConfig, QuietConfig, RouteConfig};
use bellhop_tests::mattermost::{Mattermost, Post};
use bellhop_tests::stack::{PATIENCE, Stack};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::config;
use super::routes::event;
use super::silences::group;
use bellhop_tests::alerts::{FAILED, count, fail};

const TEAM: &str = "stored.team.ops.disk.full";

fn title(post: &Post) -> &str {
    &post.attachments[0].title
}

#[tokio::test]
async fn quiet_hours_hold_everything_but_what_is_critical_and_end_with_a_digest() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    let end = Timestamp::now() + Duration::from_secs(10);
    let time = |at: Timestamp| at.strftime("%H:%M:%S").to_string();
    config.alerts.routes = vec![RouteConfig {
        name: "all".into(),
        matches: vec![FAILED.into(), TEAM.into()],
        group_by: vec!["kind".into()],
        quiet: vec![QuietConfig {
            from: time(end - Duration::from_mins(1)),
            to: time(end),
            ..QuietConfig::default()
        }],
        ..RouteConfig::default()
    }];
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    for message in ["first", "second"] {
        fail(&rabbit, "report", message).await;
    }
    let critical = json!({"kind": "db", "severity": "critical", "title": "Disk full"});
    rabbit.publish("events", TEAM, event(&critical)).await;
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert_eq!(title(&posts[0]), "Disk full");
    let held = group(&notifier, |group| group["pending"] == 2).await;
    assert_eq!(held["held"]["reason"], "quiet", "{held}");
    let until: Timestamp = held["held"]["until"].as_str().unwrap().parse().unwrap();
    assert_eq!(until.as_second(), end.as_second());
    assert_eq!(double.posts().len(), 1);

    let posts = double.wait_for_posts(2, PATIENCE).await.unwrap();
    assert!(Timestamp::now() >= until);
    assert_eq!(
        (title(&posts[1]), count(&posts[1])),
        ("Failed: report ×2", 2)
    );
    let shown = format!("{:?}", posts[1].attachments);
    assert!(
        shown.contains("first") && shown.contains("second"),
        "{shown}"
    );
    notifier.stop().await;
}

#[tokio::test]
async fn what_changes_all_the_time_is_told_as_flapping_and_then_summed_up() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let mut config = config(&stack, &double);
    config.alerts.group_wait.0 = Duration::from_secs(3);
    config.alerts.flap = FlapConfig {
        changes: 2,
        within: HumanDuration::from_secs(8),
    };
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    for round in 0..3 {
        for status in ["firing", "resolved"] {
            let told = json!({"status": status, "title": "Disk full", "text": round});
            rabbit.publish("events", TEAM, event(&told)).await;
        }
    }
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert!(title(&posts[0]).starts_with("Flapping: "), "{posts:?}");
    let flapping = group(&notifier, |group| group["state"] == "flapping").await;
    assert!(flapping["ended_at"].is_string(), "{flapping}");
    let posts = double.wait_for_posts(2, PATIENCE).await.unwrap();
    assert!(title(&posts[1]).starts_with("Quiet again: "), "{posts:?}");
    // It is remembered no more, and begins anew.
    let firing = json!({"status": "firing", "title": "Disk full"});
    rabbit.publish("events", TEAM, event(&firing)).await;
    let posts = double.wait_for_posts(3, PATIENCE).await.unwrap();
    assert_eq!(title(&posts[2]), "Disk full");
    let open = group(&notifier, |group| group["state"] == "open").await;
    assert_eq!(open["ended_at"], Value::Null);
    notifier.stop().await;
}
