//! Alerts to Slack.

use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_notifier::{NotifierConfig, ReceiverConfig, ReceiverKind, RouteConfig};
use bellhop_tests::slack::{Slack, mentions};
use bellhop_tests::stack::{PATIENCE, Running, Stack, admin_token, http};
use serde_json::Value;

use bellhop_tests::alerts::{FAILED, fail, failure};

fn config(stack: &Stack, double: &Slack) -> NotifierConfig {
    let mut config = stack.notifier_config();
    let receiver = ReceiverConfig {
        kind: ReceiverKind::Slack,
        webhook_url: Some(Secret::new(double.hook_url())),
        ..ReceiverConfig::default()
    };
    config.alerts.receivers.insert("team".into(), receiver);
    config.alerts.group_wait.0 = Duration::from_millis(200);
    config.alerts.group_interval.0 = Duration::from_millis(500);
    config
}

/// The attempts to tell of an event, once there is one.
pub(super) async fn attempts(notifier: &Running, event: &str) -> Vec<Value> {
    let url = notifier.url(&format!("/api/deliveries?event={event}"));
    let looking = async {
        loop {
            let request = http().get(&url).bearer_auth(admin_token("root"));
            let log: Value = request.send().await.unwrap().json().await.unwrap();
            let attempts = log["attempts"].as_array().unwrap().clone();
            if !attempts.is_empty() {
                return attempts;
            }
            // An attempt is noted after Slack has answered, and nobody is told.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

#[tokio::test]
async fn a_failure_is_posted_and_calls_only_who_is_configured() {
    let stack = Stack::shared();
    let double = Slack::start().await;
    let mut config = config(&stack, &double);
    config.alerts.routes = vec![RouteConfig {
        name: "failures".into(),
        matches: vec![FAILED.into()],
        group_by: vec!["kind".into()],
        mention: Some("here".into()),
        ..RouteConfig::default()
    }];
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let hostile = "a < b && <!channel> <@U123> `<!everyone>` *bold* https://evil.example";
    let failure = failure("report", hostile);
    let event: Value = serde_json::from_slice(&failure).unwrap();
    rabbit.publish("events", FAILED, failure).await;
    let messages = double.wait_for_messages(1, PATIENCE).await.unwrap();
    assert_eq!(mentions(&messages[0]), ["here"], "{messages:?}");
    let attachment = &messages[0].attachments[0];
    assert_eq!(
        (&*attachment.title, &*attachment.color),
        ("Failed: report", "danger")
    );
    let id = event["id"].as_str().unwrap();
    let shown = format!("{attachment:?}");
    assert!(shown.contains(id) && shown.contains("a &lt; b"), "{shown}");
    let attempt = attempts(&notifier, id).await.remove(0);
    let told = ["channel", "recipient", "outcome"].map(|name| attempt[name].as_str().unwrap());
    assert_eq!(told, ["slack", "team", "sent"]);
    notifier.stop().await;
}

#[tokio::test]
async fn what_slack_refuses_for_good_is_told_from_what_may_pass() {
    let stack = Stack::shared();
    let double = Slack::start().await;
    let notifier = stack.notifier(config(&stack, &double)).await;
    let rabbit = stack.rabbit().await;
    for (status, word) in [
        (400, "invalid_payload"),
        (403, "action_prohibited"),
        (404, "no_service"),
        (410, "channel_is_archived"),
    ] {
        double.set_trouble(Some((status, word)));
        fail(&rabbit, word, "x").await;
        let letter = rabbit.take("dead").await;
        assert_eq!(letter.headers["x-bellhop-reason"], "alert_refused");
        let wants = format!("team answered {status}: {word}");
        assert_eq!(letter.headers["x-bellhop-error"], wants);
    }
    for (status, word) in [(429, "rate_limited"), (500, "rollup_error")] {
        double.set_trouble(Some((status, word)));
        let before = double.messages().len();
        let failure = failure(word, "x");
        let event: Value = serde_json::from_slice(&failure).unwrap();
        rabbit.publish("events", FAILED, failure).await;
        let attempt = attempts(&notifier, event["id"].as_str().unwrap())
            .await
            .remove(0);
        assert_eq!(attempt["outcome"], "retrying", "{attempt}");
        double.set_trouble(None);
        let messages = double
            .wait_for_messages(before + 1, PATIENCE)
            .await
            .unwrap();
        let attachment = &messages[before].attachments[0];
        assert!(attachment.title.contains(word), "{attachment:?}");
    }
    notifier.stop().await;
    assert_eq!(rabbit.ready("dead").await, 0);
}

#[tokio::test]
async fn more_than_slack_takes_at_once_comes_later() {
    let stack = Stack::shared();
    let double = Slack::with_burst(1).await;
    let notifier = stack.notifier(config(&stack, &double)).await;
    let rabbit = stack.rabbit().await;
    for kind in ["a", "b", "c", "d"] {
        fail(&rabbit, kind, "x").await;
    }
    let messages = double.wait_for_messages(4, PATIENCE).await.unwrap();
    let mut titles: Vec<_> = messages
        .iter()
        .map(|message| &*message.attachments[0].title)
        .collect();
    titles.sort_unstable();
    assert_eq!(titles, ["Failed: a", "Failed: b", "Failed: c", "Failed: d"]);
    // One at least was too early.
    assert!(double.wait_for_requests(5, PATIENCE).await.is_ok());
    notifier.stop().await;
    assert_eq!(rabbit.ready("dead").await, 0);
}
