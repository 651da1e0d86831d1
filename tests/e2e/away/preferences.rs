//! What a user has chosen holds for him.

use bellhop_tests::push::config;
use bellhop_tests::stack::{Running, token};
use jiff::{Timestamp, ToSpan as _};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Scene, ask, settings};

#[tokio::test]
async fn preferences_are_the_users_own() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    let mute = json!({"categories": {"news": {"push": false}}});
    scene.prefer("ann", &mute).await;
    let event = scene.publish("ann", "notification.created", "No").await;
    scene.logged(event, &["off"]).await;
    let nobody = scene
        .publish("bob", "notification.created", "Nowhere")
        .await;
    scene.logged(nobody, &["no_recipient"]).await;

    let (_, answer) = ask(
        &scene.notifier,
        Method::GET,
        "/api/preferences",
        &token("ann"),
        &Value::Null,
    )
    .await;
    assert_eq!(answer["preferences"]["categories"], mute["categories"]);
    let effective = &answer["effective"]["categories"];
    assert_eq!(effective["news"]["push"], false);
    assert_eq!(
        (
            &effective["letters"]["push"],
            &effective["letters"]["until"]
        ),
        (&json!(true), &json!("read"))
    );
    for (body, wants) in [
        (json!({"categories": {"newz": {}}}), "news, letters"),
        (json!({"time_zone": "Moon"}), "Europe/Berlin"),
        (json!({"quiet": 1}), "quiet"),
    ] {
        let (status, answer) = ask(
            &scene.notifier,
            Method::PUT,
            "/api/preferences",
            &token("ann"),
            &body,
        )
        .await;
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(
            status == 400 && message.contains(wants),
            "{status} {answer}"
        );
    }
    scene.notifier.stop().await;
}

#[tokio::test]
async fn a_category_that_is_gone_is_no_more_shown_and_comes_back_as_it_was() {
    let scene = Scene::begin().await;
    let all = json!({"news": {"push": false}, "letters": {"push": false}});
    scene.prefer("ann", &json!({"categories": all})).await;
    scene.notifier.stop().await;
    let both = settings(&scene.stack, config(&scene.stack.folder.0));
    let mut one = both.clone();
    one.escalation.categories.remove(0);

    let notifier = scene.stack.notifier(one).await;
    let shown = chosen(&notifier, "ann").await;
    assert_eq!(shown["categories"], json!({"letters": {"push": false}}));
    let put = async |body| {
        let path = "/api/preferences";
        ask(&notifier, Method::PUT, path, &token("ann"), body).await
    };
    let (status, answer) = put(&shown).await;
    assert_eq!((status, &answer["preferences"]), (200, &shown), "{answer}");
    assert_eq!(put(&json!({"categories": all})).await.0, 400);
    notifier.stop().await;

    let notifier = scene.stack.notifier(both).await;
    assert_eq!(chosen(&notifier, "ann").await["categories"], all);
    notifier.stop().await;
}

/// The preferences of a user.
async fn chosen(notifier: &Running, user: &str) -> Value {
    let path = "/api/preferences";
    let (_, mut answer) = ask(notifier, Method::GET, path, &token(user), &Value::Null).await;
    answer["preferences"].take()
}

#[tokio::test]
async fn quiet_hours_hold_a_push_back_until_they_end() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    let now = Timestamp::now();
    let clock = |after: i64| {
        let time = now + after.seconds();
        time.strftime("%H:%M:%S").to_string()
    };
    let quiet = json!({"quiet_hours": [{"from": clock(-60), "to": clock(6)}]});
    scene.prefer("ann", &quiet).await;
    let event = scene.publish("ann", "notification.created", "Later").await;
    scene.push.wait_for_messages(1).await;
    // The hours have whole seconds.
    let end = (now + 6.seconds()).as_second();
    assert!(Timestamp::now().as_second() >= end, "sent in quiet hours");
    scene.logged(event, &["ordered", "sent"]).await;
    scene.notifier.stop().await;
}
