//! What is to be sent survives whatever happens to who sends it and to who takes it.

use bellhop_tests::program::Program;
use bellhop_tests::push::Answer;
use rustix::process::Signal;

use super::*;

#[tokio::test]
async fn a_push_service_that_is_away_is_tried_again() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    scene
        .push
        .answers(Answer::Says(503, vec![("retry-after", "2".into())]));
    let event = scene
        .publish("ann", "notification.created", "Patience")
        .await;
    scene.logged(event, &["ordered", "retrying"]).await;
    scene.push.answers(Answer::Takes);
    scene.push.wait_for_messages(1).await;
    scene.logged(event, &["ordered", "retrying", "sent"]).await;
    let log = log(&scene.notifier, event).await;
    assert_eq!(log[1]["attempt"], 1);
    let detail = log[1]["detail"].as_str().unwrap();
    assert!(detail.contains("503"), "{detail}");
    assert_eq!(log[1]["order"], log.last().unwrap()["order"]);
    scene.notifier.stop().await;
}

#[tokio::test]
async fn what_is_read_before_the_next_try_is_not_sent() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    scene
        .push
        .answers(Answer::Says(429, vec![("retry-after", "3".into())]));
    let event = scene
        .publish("ann", "notification.created", "Too late")
        .await;
    scene.logged(event, &["ordered", "retrying"]).await;
    scene.push.answers(Answer::Takes);
    let body = json!({"ids": [event]});
    let path = "/api/inbox/read";
    ask(&scene.notifier, Method::POST, path, &token("ann"), &body).await;
    scene.logged(event, &["ordered", "retrying", "read"]).await;
    assert_eq!(scene.push.messages().len(), 0);
    scene.notifier.stop().await;
}

#[tokio::test]
async fn an_order_that_the_broker_has_twice_is_sent_once() {
    let scene = Scene::with(|settings| {
        // Ordered by the test, and by nobody else.
        settings.escalation.categories[0].push_after = Some(HumanDuration::from_secs(3600));
    })
    .await;
    let device = scene.browser("ann").await.subscription().id();
    let mut last = Uuid::nil();
    for title in ["Twice", "Last"] {
        let event = scene.publish("ann", "notification.created", title).await;
        let wait = async {
            loop {
                let (path, none) = ("/api/inbox", Value::Null);
                let (_, inbox) =
                    ask(&scene.notifier, Method::GET, path, &token("ann"), &none).await;
                if inbox["items"][0]["event"]["id"] == json!(event) {
                    return inbox;
                }
            }
        };
        let inbox = timeout(PATIENCE, wait).await.expect("it is kept");
        let ordered = json!([{"seq": inbox["items"][0]["seq"], "id": event}]);
        let order = json!({"id": Uuid::now_v7(), "channel": "push", "user": "ann", "device": device,
            "category": "news", "epoch": inbox["epoch"], "events": ordered});
        let copies = if title == "Twice" { 4 } else { 1 };
        for _ in 0..copies {
            let body = order.to_string();
            scene.rabbit.publish_to_queue("deliver.push", body).await;
        }
        last = event;
    }
    scene.logged(last, &["sent"]).await;
    scene.rabbit.fetched("deliver.push").await;
    scene.notifier.stop().await;
    let titles = scene.push.messages().into_iter();
    let titles: Vec<_> = titles
        .map(|message| message.body["title"].clone())
        .collect();
    let twice = titles.iter().filter(|title| **title == "Twice").count();
    assert_eq!(twice, 1, "{titles:?}");
}

#[tokio::test]
async fn a_browser_that_is_gone_is_forgotten() {
    let scene = Scene::begin().await;
    let browser = scene.browser("ann").await;
    scene.push.unsubscribe(&browser);
    let event = scene.publish("ann", "notification.created", "Gone").await;
    scene.logged(event, &["ordered", "gone"]).await;
    let next = scene
        .publish("ann", "notification.created", "Nowhere")
        .await;
    scene.logged(next, &["no_recipient"]).await;
    scene.notifier.stop().await;
}

#[tokio::test]
async fn a_browser_that_subscribed_for_another_key_is_no_recipient() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    scene.notifier.stop().await;
    let another_key = config(&scene.stack.folder.0);
    let settings = settings(&scene.stack, another_key);
    let notifier = scene.stack.notifier(settings).await;
    let event = publish(
        &scene.rabbit,
        "ann",
        "notification.created",
        "Nowhere",
        Uuid::now_v7(),
    );
    let event = event.await;
    logged(&notifier, event, &["no_recipient"]).await;
    // With a browser that is hers the other costs nothing either.
    subscribe(&notifier, &scene.push, "ann").await;
    let event = publish(
        &scene.rabbit,
        "ann",
        "notification.created",
        "Here",
        Uuid::now_v7(),
    )
    .await;
    logged(&notifier, event, &["ordered", "sent"]).await;
    assert_eq!(scene.rabbit.ready("dead").await, 0);
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_refused_lies_in_the_dead_letters_and_can_be_replayed() {
    let scene = Scene::begin().await;
    scene.browser("ann").await;
    scene.push.answers(Answer::Says(403, Vec::new()));
    let event = scene
        .publish("ann", "notification.created", "Refused")
        .await;
    scene.logged(event, &["ordered", "refused"]).await;
    scene.push.answers(Answer::Takes);
    let boss = admin_token("boss");
    let find = async {
        loop {
            let path = "/api/dead?reason=delivery_refused";
            let (_, dead) = ask(&scene.notifier, Method::GET, path, &boss, &Value::Null).await;
            if let Some(letter) = dead["letters"].get(0) {
                return letter.clone();
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    let letter = timeout(PATIENCE, find).await.expect("a dead letter");
    assert!(
        letter["queue"].as_str().unwrap().ends_with("deliver.push"),
        "{letter}"
    );
    let path = "/api/dead/replay";
    let (status, answer) = ask(
        &scene.notifier,
        Method::POST,
        path,
        &boss,
        &json!({"all": true}),
    )
    .await;
    assert_eq!((status, &answer["replayed"]), (200, &json!(1)), "{answer}");
    scene.push.wait_for_messages(1).await;
    scene.logged(event, &["ordered", "refused", "sent"]).await;
    scene.notifier.stop().await;
}

/// A notifier as a program of its own, so that it can be killed.
async fn program(stack: &Stack, push: &PushConfig) -> Program {
    let key = push.key_file.as_ref().unwrap().display().to_string();
    let settings = [
        format!("push.key_file={key}"),
        "push.subject=mailto:ops@example.org".to_owned(),
        "push.allow_private=true".to_owned(),
        r#"escalation.categories=[{name="news", events=["notification.#"], push_after="2s"}]"#
            .to_owned(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Program::start("notifier", stack, &settings).await
}

#[tokio::test]
async fn a_notifier_that_is_killed_leaves_nothing_unsent() {
    let (stack, push) = (Stack::shared(), PushService::start().await);
    let keys = config(&stack.folder.0);
    let first = stack.notifier(settings(&stack, keys.clone())).await;
    subscribe(&first, &push, "ann").await;
    first.stop().await;

    // It is killed while the note to look waits on the ladder.
    let mut killed = program(&stack, &keys).await;
    let rabbit = stack.rabbit().await;
    let event = Uuid::now_v7();
    publish(&rabbit, "ann", "notification.created", "Held", event).await;
    // The rung of two seconds.
    rabbit.filled("delay.01").await;
    killed.signal(Signal::KILL);
    killed.ended().await;
    // The next is killed while it sends.
    push.answers(Answer::Hangs);
    let mut killed = program(&stack, &keys).await;
    let wait = async {
        while push.requests() == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("a push that hangs");
    killed.signal(Signal::KILL);
    killed.ended().await;
    push.answers(Answer::Takes);
    let last = stack.notifier(settings(&stack, keys)).await;
    let messages = push.wait_for_messages(1).await;
    assert_eq!(messages[0].body["title"], "Held");
    logged(&last, event, &["ordered", "sent"]).await;
    assert_eq!(push.messages().len(), 1);
    last.stop().await;
}
