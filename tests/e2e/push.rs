//! Web Push: browsers subscribe, and messages reach them, whatever their push service does.

mod sending;

use std::sync::Arc;

use bellhop_notifier::StoreKind;
use bellhop_notifier::push::{Device, Put, Verdict, kept};
use bellhop_notifier::store::{Retention, SharedStore, Sqlite};
use bellhop_tests::push::{Browser, PushService, SECRET_WORD, config};
use bellhop_tests::stack::{Folder, PATIENCE, Running, Stack, http, token};
use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/api/push/subscriptions";

/// A notifier that sends pushes.
async fn notifier(stack: &Stack) -> Running {
    let mut settings = stack.notifier_config();
    settings.push = config(&stack.folder.0);
    stack.notifier(settings).await
}

async fn ask(
    notifier: &Running,
    method: Method,
    path: &str,
    user: &str,
    body: &Value,
) -> (u16, Value) {
    let request = http()
        .request(method, notifier.url(path))
        .bearer_auth(token(user));
    let answer = request.body(body.to_string()).send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    assert!(!text.contains(SECRET_WORD), "{text}");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

async fn key(notifier: &Running) -> String {
    let answer = http()
        .get(notifier.url("/api/push/key"))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200, "without a login");
    answer.json::<Value>().await.unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned()
}

async fn add(notifier: &Running, user: &str, browser: &Browser) -> (u16, String) {
    let (status, body) = ask(
        notifier,
        Method::POST,
        SUBSCRIPTIONS,
        user,
        &browser.to_json(),
    )
    .await;
    (status, body["id"].as_str().unwrap_or_default().to_owned())
}

async fn list(notifier: &Running, user: &str) -> Vec<Value> {
    let (status, body) = ask(notifier, Method::GET, SUBSCRIPTIONS, user, &Value::Null).await;
    assert_eq!(status, 200, "{body}");
    body["subscriptions"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_browser_subscribes_is_listed_without_its_secrets_and_leaves() {
    let stack = Stack::shared();
    let notifier = notifier(&stack).await;
    let service = PushService::start().await;
    let browser = service.subscribe(&key(&notifier).await);
    let mut named = browser.to_json();
    named["label"] = json!("Laptop");
    let (status, body) = ask(&notifier, Method::POST, SUBSCRIPTIONS, "ann", &named).await;
    assert_eq!(status, 201, "{body}");
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!(
        add(&notifier, "ann", &browser).await,
        (200, id.clone()),
        "the same again"
    );

    let listed = list(&notifier, "ann").await;
    assert_eq!(listed.len(), 1);
    let origin = browser.endpoint.rsplit_once('/').unwrap().0;
    assert_eq!(
        (&listed[0]["id"], &listed[0]["origin"]),
        (&json!(id), &json!(origin))
    );
    assert_eq!(
        (&listed[0]["refusals"], &listed[0]["current"]),
        (&json!(0), &json!(true))
    );
    let fields: Vec<_> = listed[0].as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["created", "current", "id", "label", "origin", "refusals"],
        "no keys"
    );

    let one = format!("{SUBSCRIPTIONS}/{id}");
    assert_eq!(list(&notifier, "bob").await, [Value::Null; 0]);
    let (status, body) = ask(&notifier, Method::DELETE, &one, "bob", &Value::Null).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (404, &json!("no_such_subscription"))
    );
    assert_eq!(
        ask(&notifier, Method::DELETE, &one, "ann", &Value::Null)
            .await
            .0,
        204
    );
    assert_eq!(
        ask(&notifier, Method::DELETE, &one, "ann", &Value::Null)
            .await
            .0,
        404
    );
    assert_eq!(list(&notifier, "ann").await, [Value::Null; 0]);
    notifier.stop().await;
}

#[tokio::test]
async fn twenty_devices_stay_whichever_of_two_notifiers_hears_of_them() {
    let stack = Stack::shared();
    let mut settings = stack.shared_config();
    settings.push = config(&stack.folder.0);
    let mut second = settings.clone();
    second.instance = Some("second".into());
    let notifiers = [stack.notifier(settings).await, stack.notifier(second).await];
    let key = key(&notifiers[0]).await;
    let service = PushService::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        // Four at the same moment: each change is of a version, and none undoes another.
        let browsers: [_; 4] = std::array::from_fn(|_| service.subscribe(&key));
        let [a, b, c, d] = &browsers;
        let added = tokio::join!(
            add(&notifiers[0], "ann", a),
            add(&notifiers[1], "ann", b),
            add(&notifiers[0], "ann", c),
            add(&notifiers[1], "ann", d),
        );
        for (status, id) in [added.0, added.1, added.2, added.3] {
            assert_eq!(status, 201);
            ids.push(id);
        }
    }
    let listed = async |at: usize| -> Vec<String> {
        let listed = list(&notifiers[at], "ann").await;
        listed
            .iter()
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let mut found = listed(0).await;
    assert_eq!(listed(1).await, found);
    let oldest = found[0].clone();
    found.sort();
    ids.sort();
    assert_eq!(found, ids);
    let (_, last) = add(&notifiers[1], "ann", &service.subscribe(&key)).await;
    let found = listed(0).await;
    assert_eq!((found.len(), found.last()), (20, Some(&last)));
    assert!(!found.contains(&oldest));
    for notifier in notifiers {
        notifier.stop().await;
    }
}

const REFUSED: [(&str, &str, &str); 8] = [
    (
        "/endpoint",
        "http://127.0.0.1:1/hunter2-endpoint",
        "https://",
    ),
    (
        "/endpoint",
        "https://127.0.0.1/hunter2-endpoint",
        "public internet",
    ),
    (
        "/endpoint",
        "https://[::ffff:169.254.169.254]/hunter2-endpoint",
        "public internet",
    ),
    (
        "/endpoint",
        "https://u:hunter2-endpoint@a.push.example/",
        "password",
    ),
    (
        "/endpoint",
        "https://a.push.example:444/hunter2-endpoint",
        "443",
    ),
    (
        "/endpoint",
        "https://evil.example/a.push.example",
        "push.hosts",
    ),
    ("/keys/p256dh", "hunter2-endpoint", "p256dh"),
    ("/keys/auth", "hunter2-endpoint", "auth"),
];

#[tokio::test]
async fn what_cannot_be_sent_to_is_refused_with_its_reason() {
    let stack = Stack::shared();
    let mut settings = stack.notifier_config();
    settings.push = config(&stack.folder.0);
    settings.push.allow_private = false;
    settings.push.hosts = vec!["*.push.example".parse().unwrap()];
    let notifier = stack.notifier(settings).await;
    let service = PushService::start().await;
    let good = service.subscribe(&key(&notifier).await).to_json();
    for (pointer, value, says) in REFUSED {
        let mut body = good.clone();
        body["endpoint"] = json!("https://a.push.example/hunter2-endpoint");
        *body.pointer_mut(pointer).unwrap() = json!(value);
        let (status, answer) = ask(&notifier, Method::POST, SUBSCRIPTIONS, "ann", &body).await;
        let error = &answer["error"];
        assert_eq!(
            (status, &error["code"]),
            (400, &json!("bad_subscription")),
            "{answer}"
        );
        assert!(
            error["message"].as_str().unwrap().contains(says),
            "{says} in {answer}"
        );
    }
    for body in [json!({}), json!([]), json!({"endpoint": 7}), json!("x")] {
        let (status, answer) = ask(&notifier, Method::POST, SUBSCRIPTIONS, "ann", &body).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (400, &json!("bad_json"))
        );
    }
    assert_eq!(list(&notifier, "ann").await, [Value::Null; 0]);
    let refused = http()
        .get(notifier.url(SUBSCRIPTIONS))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
    notifier.stop().await;
}

#[tokio::test]
async fn without_a_key_or_a_store_it_says_so() {
    let stack = Stack::shared();
    let mut settings = stack.notifier_config();
    let off = stack.notifier(settings.clone()).await;
    for (method, path) in [
        (Method::GET, "/api/push/key"),
        (Method::GET, SUBSCRIPTIONS),
        (Method::POST, SUBSCRIPTIONS),
        (Method::DELETE, "/api/push/subscriptions/x"),
    ] {
        let (status, body) = ask(&off, method, path, "ann", &json!({})).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (404, &json!("push_not_configured")),
            "{path}"
        );
    }
    off.stop().await;
    settings.push = config(&stack.folder.0);
    settings.store.kind = StoreKind::None;
    let forgetful = stack.notifier(settings).await;
    let (status, body) = ask(&forgetful, Method::GET, SUBSCRIPTIONS, "ann", &Value::Null).await;
    assert_eq!((status, &body["error"]["code"]), (501, &json!("no_store")));
    forgetful.stop().await;
}

fn store(folder: &Folder) -> SharedStore {
    let retention = Retention {
        events: 10,
        age: PATIENCE,
    };
    Arc::new(Sqlite::open(&folder.0.join("store.db"), retention).unwrap())
}

fn device(browser: &Browser) -> Device {
    Device {
        subscription: browser.subscription(),
        created: Timestamp::now(),
        expires: None,
        last_success: None,
        refusals: 0,
        label: None,
    }
}

#[tokio::test]
async fn how_pushes_went_is_kept_and_a_device_that_is_gone_is_dropped() {
    let (folder, service, now) = (Folder::new(), PushService::start().await, Timestamp::now());
    let store = store(&folder);
    let browser = service.subscribe("key");
    let put = kept::change(&store, "ann", |devices| {
        Some(devices.put(device(&browser), now))
    });
    assert_eq!(put.await.unwrap(), Some(Put::New));
    let note = async |verdict| {
        let subscription = browser.subscription();
        let noted = kept::note(&store, "ann", &subscription, verdict, now);
        noted.await.unwrap();
    };
    for verdict in [
        Verdict::Refused,
        Verdict::Unknown,
        Verdict::Taken,
        Verdict::Refused,
    ] {
        note(verdict).await;
    }
    let kept = kept::devices(&store, "ann").await.unwrap();
    let found = kept.iter(now).next().unwrap();
    assert_eq!((found.refusals, found.last_success), (1, Some(now)));
    note(Verdict::Gone).await;
    note(Verdict::Gone).await;
    assert_eq!(
        kept::devices(&store, "ann")
            .await
            .unwrap()
            .iter(now)
            .count(),
        0
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_begun_anew() {
    let folder = Folder::new();
    let store = store(&folder);
    let service = PushService::start().await;
    let bad = Bytes::from_static(b"{\"hunter2-endpoint\":");
    assert!(store.put_document("push:ann".into(), 0, bad).await.unwrap());
    let device = device(&service.subscribe("key"));
    let now = Timestamp::now();
    let put = kept::change(&store, "ann", |devices| {
        Some(devices.put(device.clone(), now))
    });
    assert_eq!(put.await.unwrap(), Some(Put::New));
    assert_eq!(
        kept::devices(&store, "ann")
            .await
            .unwrap()
            .iter(now)
            .count(),
        1
    );
}
