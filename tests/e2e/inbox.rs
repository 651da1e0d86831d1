//! The inbox over HTTP: what was stored, page by page, and what is read of it.

use bellhop_notifier::StoreKind;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{Running, Stack, http, token};
use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use uuid::Uuid;

/// Publishes a stored event whose data is a number; its id.
async fn publish(rabbit: &Rabbit, user: &str, kind: &str, n: u64) -> Uuid {
    let id = Uuid::now_v7();
    let body = json!({"type": kind, "id": id, "time": Timestamp::now(), "data": n, "more": [1.50]});
    let key = format!("stored.user.{user}.{kind}");
    rabbit.publish("events", &key, body.to_string()).await;
    id
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn get(notifier: &Running, path: &str, user: &str) -> (u16, Value) {
    answer(http().get(notifier.url(path)).bearer_auth(token(user))).await
}

async fn post(notifier: &Running, path: &str, user: &str, body: impl ToString) -> (u16, Value) {
    let request = http().post(notifier.url(path)).bearer_auth(token(user));
    answer(request.body(body.to_string())).await
}

fn seqs(page: &Value) -> Vec<u64> {
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn an_inbox_is_read_page_by_page_as_clients_see_its_events() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut frames = Vec::new();
    for n in 1..=5 {
        publish(&rabbit, "ann", "notification.created", n).await;
        let mut frame = ann.next_of("notification.new").await;
        frame.as_object_mut().unwrap().remove("unread");
        frames.insert(0, frame);
    }
    let (status, page) = get(&notifier, "/api/inbox", "ann").await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["epoch"], frames[0]["epoch"]);
    assert_eq!((&page["unread"], &page["next"]), (&json!(5), &Value::Null));
    assert_eq!(seqs(&page), [5, 4, 3, 2, 1]);
    for (item, frame) in page["items"].as_array().unwrap().iter().zip(&frames) {
        assert_eq!(item["event"], *frame);
        assert_eq!(
            (&item["read"], &item["archived"]),
            (&json!(false), &json!(false))
        );
        let stored_at: Timestamp = item["stored_at"].as_str().unwrap().parse().unwrap();
        assert!(stored_at <= Timestamp::now(), "{item}");
    }

    let (_, page) = get(&notifier, "/api/inbox?limit=2", "ann").await;
    assert_eq!((seqs(&page), &page["next"]), (vec![5, 4], &json!(4)));
    let (_, page) = get(&notifier, "/api/inbox?limit=3&before=4", "ann").await;
    assert_eq!((seqs(&page), &page["next"]), (vec![3, 2, 1], &Value::Null));
    // Nobody sees another's.
    let (status, page) = get(&notifier, "/api/inbox", "bob").await;
    assert_eq!(
        (status, &page["items"], &page["unread"]),
        (200, &json!([]), &json!(0))
    );
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_marked_by_http_is_marked_on_all_devices() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut phone = stack.client(&notifier, "ann").await;
    let mut laptop = stack.client(&notifier, "ann").await;
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(publish(&rabbit, "ann", "note", n).await);
        phone.next_of("note").await;
    }
    let body = json!({"ids": [ids[3], Uuid::now_v7()]});
    let answer = post(&notifier, "/api/inbox/read", "ann", body).await;
    assert_eq!(answer, (200, json!({"unread": 3})));
    let answer = post(&notifier, "/api/inbox/archive", "ann", r#"{"up_to":1}"#).await;
    assert_eq!(answer, (200, json!({"unread": 2})));
    // Of another user's events nothing happens.
    let answer = post(&notifier, "/api/inbox/archive", "bob", json!({"ids": ids})).await;
    assert_eq!(answer, (200, json!({"unread": 0})));
    for device in [&mut phone, &mut laptop] {
        let updated = device.next_of("inbox.updated").await;
        assert_eq!(updated["data"]["mark"], "read");
        let updated = device.next_of("inbox.updated").await;
        let epoch = &updated["data"]["epoch"];
        assert_eq!(
            updated["data"],
            json!({"unread": 2, "mark": "archived", "up_to": 1, "epoch": epoch, "seq": 4})
        );
    }
    for (query, wants) in [
        ("", vec![4, 3, 2]),
        ("?unread=true", vec![3, 2]),
        ("?unread=false", vec![4, 3, 2]),
        ("?archived=true", vec![1]),
        ("?unread=true&limit=1&before=3", vec![2]),
    ] {
        let (_, page) = get(&notifier, &format!("/api/inbox{query}"), "ann").await;
        assert_eq!(seqs(&page), wants, "{query}");
        assert_eq!(page["unread"], 2);
    }
    let (_, page) = get(&notifier, "/api/inbox?limit=1", "ann").await;
    let item = &page["items"][0];
    assert_eq!(
        (&item["read"], &item["archived"]),
        (&json!(true), &json!(false))
    );
    notifier.stop().await;
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_its_reason() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    for (query, says) in [
        ("limit=0", "limit"),
        ("limit=201", "200"),
        ("limit=x", "limit"),
        ("before=-1", "before"),
        ("unread=yes", "unread"),
        ("archived=", "archived"),
        ("limit=1&offset=7", "offset"),
    ] {
        let (status, body) = get(&notifier, &format!("/api/inbox?{query}"), "ann").await;
        assert_eq!((status, &body["error"]["code"]), (400, &json!("bad_query")));
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains(says), "{says} in {message}");
    }
    let many: Vec<_> = (0..1001).map(|_| Uuid::now_v7()).collect();
    for body in [
        String::new(),
        "{}".into(),
        r#"{"up_to":1,"ids":[]}"#.into(),
        r#"{"up_to":-1}"#.into(),
        r#"{"ids":["x"]}"#.into(),
        r#"{"up_to":1,"user_id":"bob"}"#.into(),
        json!({"ids": many}).to_string(),
    ] {
        for path in ["/api/inbox/read", "/api/inbox/archive"] {
            let (status, answer) = post(&notifier, path, "ann", &body).await;
            assert_eq!(
                (status, &answer["error"]["code"]),
                (400, &json!("bad_json"))
            );
        }
    }
    let body = json!({"ids": many[..1000]});
    assert_eq!(post(&notifier, "/api/inbox/read", "ann", body).await.0, 200);
    for path in ["/api/inbox", "/api/tasks", "/api/tasks/t"] {
        let (status, body) = answer(http().get(notifier.url(path))).await;
        assert_eq!((status, &body["error"]["code"]), (401, &json!("no_token")));
    }
    notifier.stop().await;
}

#[tokio::test]
async fn without_a_store_there_is_no_inbox_and_no_board() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.kind = StoreKind::None;
    let notifier = stack.notifier(config).await;
    for path in ["/api/inbox", "/api/tasks", "/api/tasks/t"] {
        let (status, body) = get(&notifier, path, "ann").await;
        assert_eq!((status, &body["error"]["code"]), (501, &json!("no_store")));
    }
    let (status, body) = post(&notifier, "/api/inbox/read", "ann", r#"{"up_to":1}"#).await;
    assert_eq!((status, &body["error"]["code"]), (501, &json!("no_store")));
    notifier.stop().await;
}
