//! An administrator silences alerts over HTTP, and sees what is open.

use std::time::Duration;

use bellhop_tests::alerts::{FAILED, count, fail, failure, failure_of};
use bellhop_tests::mattermost::Mode;
use bellhop_tests::stack::{PATIENCE, Running, admin_token, http, token};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{alerting, config, wait_until_told};

pub(super) async fn ask(
    notifier: &Running,
    method: Method,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let request = http().request(method, notifier.url(path));
    let request = request.bearer_auth(admin_token("root")).json(body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The open groups, once one is as it should be.
pub(super) async fn group(notifier: &Running, wants: impl Fn(&Value) -> bool) -> Value {
    group_at(&notifier.url("/api/alerts"), wants).await
}

/// The same, asked anywhere.
pub(super) async fn group_at(url: &str, wants: impl Fn(&Value) -> bool) -> Value {
    let looking = async {
        loop {
            let request = http().get(url).bearer_auth(admin_token("root"));
            let open: Value = request.send().await.unwrap().json().await.unwrap();
            let groups = open["groups"].as_array().unwrap().clone();
            if let Some(group) = groups.into_iter().find(&wants) {
                return group;
            }
            // Alerts are counted and nobody is told: that is what is asked for here.
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap()
}

#[tokio::test]
async fn what_is_silenced_is_counted_and_told_when_the_silence_ends() {
    let (stack, double, notifier) = alerting().await;
    let until = Timestamp::now() + Duration::from_hours(1);
    let silence = json!({"labels": {"kind": "rep*"}, "until": until, "reason": "upgrade"});
    let path = "/api/alerts/silences";
    let (status, made) = ask(&notifier, Method::POST, path, &silence).await;
    assert_eq!((status, &made["author"]), (201, &json!("root")), "{made}");
    let (_, listed) = ask(&notifier, Method::GET, path, &Value::Null).await;
    assert_eq!(listed["silences"], json!([made]));

    let rabbit = stack.rabbit().await;
    for kind in ["report", "report", "import"] {
        fail(&rabbit, kind, "no disk").await;
    }
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert!(
        posts[0].attachments[0].title.contains("import"),
        "{posts:?}"
    );
    let held = |group: &Value| group["pending"] == 2;
    let group = group(&notifier, held).await;
    assert_eq!(group["labels"], json!({"kind": "report"}));
    assert_eq!(group["held"]["reason"], "silenced");
    assert_eq!(double.posts().len(), 1);

    let end = format!("{path}/{}", made["id"].as_str().unwrap());
    assert_eq!(
        ask(&notifier, Method::DELETE, &end, &Value::Null).await.0,
        200
    );
    assert_eq!(
        ask(&notifier, Method::DELETE, &end, &Value::Null).await.0,
        404
    );
    wait_until_told(&double, 3).await;
    notifier.stop().await;
}

#[tokio::test]
async fn a_silence_covers_what_waited_for_the_notifier() {
    let (stack, double, notifier) = alerting().await;
    let until = Timestamp::now() + Duration::from_hours(1);
    let silence = json!({"labels": {"user_id": "bob"}, "until": until, "reason": "bob tests"});
    let path = "/api/alerts/silences";
    let (status, made) = ask(&notifier, Method::POST, path, &silence).await;
    assert_eq!(status, 201, "{made}");
    notifier.stop().await;
    let rabbit = stack.rabbit().await;
    let of_bob = FAILED.replace("ann", "bob");
    for _ in 0..5 {
        let failure = failure_of("bob", "report", "no disk", Timestamp::now());
        rabbit.publish("events", &of_bob, failure).await;
    }
    rabbit
        .publish("events", FAILED, failure("report", "no disk"))
        .await;
    let notifier = stack.notifier(config(&stack, &double)).await;
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert_eq!(count(&posts[0]), 1, "hers alone: {posts:?}");
    notifier.stop().await;
}

#[tokio::test]
async fn only_administrators_see_and_silence() {
    let (_stack, _double, notifier) = alerting().await;
    for (method, path) in [
        (Method::GET, "/api/alerts"),
        (Method::GET, "/api/alerts/silences"),
        (Method::POST, "/api/alerts/silences"),
        (Method::DELETE, "/api/alerts/silences/x"),
    ] {
        let request = http().request(method, notifier.url(path));
        let answer = request.bearer_auth(token("ann")).send().await.unwrap();
        assert_eq!(answer.status(), 403, "{path}");
    }
    let bad = json!({"labels": {}, "until": "2020-01-01T00:00:00Z", "reason": "x"});
    let (status, error) = ask(&notifier, Method::POST, "/api/alerts/silences", &bad).await;
    assert_eq!(
        (status, &error["error"]["code"]),
        (400, &json!("bad_request"))
    );
    notifier.stop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_is_shown_and_tells_nobody_of_itself() {
    let (stack, double, notifier) = alerting().await;
    double.set_mode(Mode::Status(503));
    let rabbit = stack.rabbit().await;
    fail(&rabbit, "report", "no disk").await;
    double.wait_for_requests(1, PATIENCE).await.unwrap();
    group(&notifier, |group| group["posts"] == 0).await;
    let answer = http().get(notifier.url("/readyz")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "others can still be served");
    double.wait_for_requests(2, PATIENCE).await.unwrap();
    let ready: Value = http()
        .get(notifier.url("/readyz"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(ready["components"]["alerts.mattermost"], "down");
    let (_, open) = ask(&notifier, Method::GET, "/api/alerts", &Value::Null).await;
    assert_eq!(open["receivers"][0]["up"], false);
    assert_eq!(
        open["groups"].as_array().unwrap().len(),
        1,
        "its own failure is no alert"
    );
    double.set_mode(Mode::Healthy);
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert_eq!(posts.len(), 1);
    assert_eq!(rabbit.ready("alerts").await, 0);
    notifier.stop().await;
}
