//! People who are away: what nobody has seen is sent after them, once, and not what was seen.

mod digests;
mod fairness;
mod preferences;
mod trouble;

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::{CategoryConfig, MailChoice, NotifierConfig, PushConfig, Until};
use bellhop_tests::push::{Browser, PushService, config};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Running, Stack, admin_token, http, token};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Notifications, which are pushed after a second.
fn category(name: &str, events: &str) -> CategoryConfig {
    CategoryConfig {
        name: name.into(),
        events: vec![events.parse().unwrap()],
        push_after: Some(HumanDuration::from_secs(1)),
        mail_after: None,
        until: Until::Arrived,
        push: true,
        mail: MailChoice::Each,
    }
}

fn settings(stack: &Stack, push: PushConfig) -> NotifierConfig {
    let mut settings = stack.notifier_config();
    settings.push = push;
    settings.escalation.categories = vec![
        category("news", "notification.#"),
        CategoryConfig {
            until: Until::Read,
            ..category("letters", "letter")
        },
    ];
    settings
}

/// A notifier, a push service, and who publishes.
struct Scene {
    stack: Stack,
    notifier: Running,
    push: PushService,
    rabbit: Rabbit,
}

impl Scene {
    async fn begin() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut NotifierConfig)) -> Self {
        let stack = Stack::shared();
        let mut settings = settings(&stack, config(&stack.folder.0));
        change(&mut settings);
        Self {
            notifier: stack.notifier(settings).await,
            push: PushService::start().await,
            rabbit: stack.rabbit().await,
            stack,
        }
    }

    /// A browser of a user.
    async fn browser(&self, user: &str) -> Browser {
        subscribe(&self.notifier, &self.push, user).await
    }

    async fn publish(&self, user: &str, kind: &str, title: &str) -> Uuid {
        publish(&self.rabbit, user, kind, title, Uuid::now_v7()).await
    }

    async fn prefer(&self, user: &str, preferences: &Value) {
        let (status, answer) = ask(
            &self.notifier,
            Method::PUT,
            "/api/preferences",
            &token(user),
            preferences,
        )
        .await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until the log of an event has these outcomes.
    async fn logged(&self, event: Uuid, wants: &[&str]) {
        logged(&self.notifier, event, wants).await;
    }
}

async fn subscribe(notifier: &Running, push: &PushService, user: &str) -> Browser {
    let none = Value::Null;
    let (_, key) = ask(notifier, Method::GET, "/api/push/key", "", &none).await;
    let browser = push.subscribe(key["key"].as_str().unwrap());
    let path = "/api/push/subscriptions";
    let (status, answer) = ask(
        notifier,
        Method::POST,
        path,
        &token(user),
        &browser.to_json(),
    )
    .await;
    assert!((200..300).contains(&status), "{answer}");
    browser
}

async fn publish(rabbit: &Rabbit, user: &str, kind: &str, title: &str, id: Uuid) -> Uuid {
    let data = json!({"title": title});
    let body = json!({"type": kind, "id": id, "time": Timestamp::now(), "data": data});
    let key = format!("stored.user.{user}.{kind}");
    rabbit.publish("events", &key, body.to_string()).await;
    id
}

async fn ask(
    notifier: &Running,
    method: Method,
    path: &str,
    token: &str,
    body: &Value,
) -> (u16, Value) {
    let mut request = http().request(method, notifier.url(path));
    if !token.is_empty() {
        request = request.bearer_auth(token);
    }
    if !body.is_null() {
        request = request.body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or_default())
}

/// What the log has of an event.
async fn log(notifier: &Running, event: Uuid) -> Vec<Value> {
    let path = format!("/api/deliveries?event={event}");
    let (status, answer) = ask(
        notifier,
        Method::GET,
        &path,
        &admin_token("boss"),
        &Value::Null,
    )
    .await;
    assert_eq!(status, 200, "{answer}");
    answer["attempts"].as_array().unwrap().clone()
}

async fn logged(notifier: &Running, event: Uuid, wants: &[&str]) {
    let end = tokio::time::Instant::now() + PATIENCE * 2;
    loop {
        let log = log(notifier, event).await;
        let outcomes = log.iter().map(|entry| entry["outcome"].as_str().unwrap());
        let outcomes: Vec<_> = outcomes.collect();
        if outcomes == wants {
            return;
        }
        assert!(
            tokio::time::Instant::now() < end,
            "{outcomes:?}, not {wants:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn what_nobody_has_seen_is_pushed_to_every_device() {
    let scene = Scene::begin().await;
    let browsers = [scene.browser("ann").await, scene.browser("ann").await];
    let other = scene.browser("bob").await;
    let event = scene.publish("ann", "notification.created", "Paid").await;
    let messages = scene.push.wait_for_messages(2).await;
    for browser in &browsers {
        let found = messages.iter().find(|one| one.browser == browser.endpoint);
        let message = found.expect("a message for each device");
        assert_eq!(message.body["title"], "Paid");
        assert_eq!(message.body["event"]["id"], json!(event));
    }
    assert!(messages.iter().all(|one| one.browser != other.endpoint));
    scene
        .logged(event, &["ordered", "ordered", "sent", "sent"])
        .await;
    let log = log(&scene.notifier, event).await;
    assert!(
        log.iter()
            .all(|entry| entry["channel"] == "push" && entry["user_id"] == "ann")
    );
    // Only administrators see it.
    let path = format!("/api/deliveries?event={event}");
    let (status, _) = ask(
        &scene.notifier,
        Method::GET,
        &path,
        &token("ann"),
        &Value::Null,
    )
    .await;
    assert_eq!(status, 403);
    assert_eq!(scene.push.problems(), Vec::<String>::new());
    scene.notifier.stop().await;
}

#[tokio::test]
async fn what_was_read_or_has_arrived_is_not_sent() {
    // Time enough to read it.
    let scene = Scene::with(|settings| {
        settings.escalation.categories[0].push_after = Some(HumanDuration::from_secs(5));
    })
    .await;
    scene.browser("ann").await;
    scene.browser("bob").await;
    let read = scene.publish("ann", "notification.created", "Read").await;
    // The event has to be there before it can be read.
    let wait = async {
        loop {
            let body = json!({"ids": [read]});
            let path = "/api/inbox/read";
            let token = token("ann");
            ask(&scene.notifier, Method::POST, path, &token, &body).await;
            let (_, inbox) = ask(
                &scene.notifier,
                Method::GET,
                "/api/inbox",
                &token,
                &Value::Null,
            )
            .await;
            if inbox["items"][0]["read"] == true {
                return;
            }
        }
    };
    timeout(PATIENCE, wait).await.unwrap();
    scene.logged(read, &["read"]).await;

    let mut bob = scene.stack.client(&scene.notifier, "bob").await;
    let shown = scene.publish("bob", "notification.created", "Shown").await;
    bob.next_of("notification.new").await;
    scene.logged(shown, &["arrived"]).await;
    // A letter is only dealt with once it is read.
    let letter = scene.publish("bob", "letter", "Dear Bob").await;
    bob.next_of("letter").await;
    let messages = scene.push.wait_for_messages(1).await;
    assert_eq!(messages[0].body["title"], "Dear Bob");
    scene.logged(letter, &["ordered", "sent"]).await;
    assert_eq!(scene.push.requests(), 1);
    scene.notifier.stop().await;
}

#[tokio::test]
async fn an_event_that_comes_twice_is_sent_once() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    let event = Uuid::now_v7();
    for _ in 0..3 {
        publish(&scene.rabbit, "ann", "notification.created", "Once", event).await;
    }
    let last = scene.publish("ann", "notification.created", "Last").await;
    scene.logged(last, &["ordered", "sent"]).await;
    // Its last copy was looked after before the last event.
    let titles = scene.push.messages().into_iter();
    let titles = titles.map(|message| message.body["title"].clone());
    let once = titles.filter(|title| title == "Once").count();
    assert_eq!(once, 1);
    scene.notifier.stop().await;
}

#[tokio::test]
async fn many_at_once_are_one_push() {
    let scene = Scene::with(|settings| {
        // Long enough for all to be there.
        settings.escalation.categories[0].push_after = Some(HumanDuration::from_secs(3));
    })
    .await;
    scene.browser("ann").await;
    let mut last = Uuid::nil();
    for n in 0..5 {
        last = scene
            .publish("ann", "notification.created", &n.to_string())
            .await;
    }
    scene.logged(last, &["ordered", "sent"]).await;
    let messages = scene.push.messages();
    // They may have been kept in more than one batch, each of which is looked after by itself.
    assert!(messages.len() < 5, "{messages:?}");
    scene.notifier.stop().await;
}
