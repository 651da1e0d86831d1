//! Stored events: kept, numbered, shown once and in order, and shown to those who come back.

mod cluster;
mod long;
mod only_one;
mod trouble;

use bellhop_notifier::StoreKind;
use bellhop_tests::client::{Client, Raw, metric, request};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{Running, Stack, http, room_token, token};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

fn event(kind: &str, data: &Value) -> (Uuid, String) {
    let id = Uuid::now_v7();
    let body = json!({"type": kind, "id": id, "time": Timestamp::now(), "data": data});
    (id, body.to_string())
}

/// Publishes events with the numbers of a range as data.
async fn publish(rabbit: &Rabbit, key: &str, numbers: std::ops::RangeInclusive<u64>) {
    for n in numbers {
        let (_, body) = event("note", &json!(n));
        rabbit.publish("events", key, body).await;
    }
}

async fn open(notifier: &Running, path: &str, token: &str) -> Client {
    let bearer = format!("Bearer {token}");
    let request = request(notifier.address, path, &[("authorization", &bearer)]);
    Client::open(request).await.unwrap().0
}

/// The data of the next so many `note`s, and that they are numbered one after the other.
async fn notes(client: &mut Client, count: u64) -> Vec<u64> {
    let mut notes: Vec<(u64, u64)> = Vec::new();
    for _ in 0..count {
        let frame = client.next_of("note").await;
        let note = (
            frame["seq"].as_u64().unwrap(),
            frame["data"].as_u64().unwrap(),
        );
        if let Some((last, _)) = notes.last() {
            assert_eq!(note.0, last + 1, "numbers without gaps");
        }
        notes.push(note);
    }
    notes.into_iter().map(|(_, data)| data).collect()
}

fn cursor(kind: &str, frame: &Value) -> String {
    let (epoch, seq) = (
        frame["epoch"].as_str().unwrap(),
        frame["seq"].as_u64().unwrap(),
    );
    format!("{kind}.{epoch}.{seq}")
}

#[tokio::test]
async fn stored_events_have_numbers_and_live_ones_have_none() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = Client::connect(notifier.address, &token("ann")).await;
    let connected = ann.next_of("connected").await;
    let streams = connected["streams"].as_array().unwrap();
    let names: Vec<_> = streams
        .iter()
        .map(|stream| {
            (
                stream["audience"].as_str().unwrap(),
                stream["id"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(names, [("user", "ann"), ("all", "all")]);
    assert_eq!(connected["unread"], 0);
    assert_eq!(connected["tasks"], json!([]));

    publish(&rabbit, "stored.user.ann.note", 1..=3).await;
    for n in 1..=3 {
        let frame = ann.next_of("note").await;
        assert_eq!((&frame["seq"], &frame["unread"]), (&json!(n), &json!(n)));
        assert_eq!(frame["epoch"], streams[0]["epoch"]);
    }
    publish(&rabbit, "stored.all.all.note", 4..=4).await;
    let frame = ann.next_of("note").await;
    assert_eq!((&frame["seq"], &frame["unread"]), (&json!(1), &Value::Null));
    // Whatever its sender says.
    let body = json!({"type": "note", "id": Uuid::now_v7(), "time": Timestamp::now(), "data": 5,
        "seq": 99, "epoch": "x", "unread": 7});
    rabbit
        .publish("events", "live.user.ann.note", body.to_string())
        .await;
    let frame = ann.next_of("note").await;
    for field in ["seq", "epoch", "unread"] {
        assert_eq!(frame[field], Value::Null, "{frame}");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn who_comes_back_is_shown_what_was_missed_and_then_what_comes() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let ann_token = room_token("ann", &["room:*"]);
    let mut ann = open(&notifier, "/ws?room_id=a.b", &ann_token).await;
    let subscribed = ann.next_of("subscribed").await;
    assert_eq!(subscribed["seq"], 0);
    publish(&rabbit, "stored.user.ann.note", 1..=2).await;
    publish(&rabbit, "stored.room.a%2Eb.note", 11..=12).await;
    let (mut own, mut room) = (Value::Null, Value::Null);
    for _ in 0..4 {
        let frame = ann.next_of("note").await;
        let newest = if frame["room_id"] == "a.b" {
            &mut room
        } else {
            &mut own
        };
        *newest = frame;
    }
    drop(ann);
    // Bob sees that they are kept.
    let bob_token = room_token("bob", &["room:*"]);
    let mut bob = open(&notifier, "/ws?room_id=a.b", &bob_token).await;
    bob.next_of("subscribed").await;
    publish(&rabbit, "stored.user.ann.note", 3..=5).await;
    publish(&rabbit, "stored.room.a%2Eb.note", 13..=14).await;
    assert_eq!(notes(&mut bob, 2).await, [13, 14]);

    let since = format!("{},{}", cursor("user", &own), cursor("room.a%252Eb", &room));
    let path = format!("/ws?room_id=a.b&since={since}");
    let mut ann = open(&notifier, &path, &ann_token).await;
    let connected = ann.next().await;
    assert_eq!(connected["type"], "connected");
    assert_eq!(connected["streams"][0]["seq"], 5);
    assert_eq!(notes(&mut ann, 3).await, [3, 4, 5]);
    let resumed = ann.next().await;
    assert_eq!(
        (&resumed["type"], &resumed["recovered"]),
        (&json!("resumed"), &json!(true))
    );
    let subscribed = ann.next().await;
    assert_eq!(
        (&subscribed["type"], &subscribed["recovered"]),
        (&json!("subscribed"), &json!(true))
    );
    assert_eq!(notes(&mut ann, 2).await, [13, 14]);
    publish(&rabbit, "stored.user.ann.note", 6..=6).await;
    let last = ann.next_of("note").await;
    assert_eq!(last["data"], 6);

    resume_by_a_frame(&notifier, &last, &own).await;
    notifier.stop().await;
}

/// Once it is connected.
async fn resume_by_a_frame(notifier: &Running, last: &Value, own: &Value) {
    let path = format!("/ws?since={}", cursor("user", last));
    let mut again = open(notifier, &path, &token("ann")).await;
    assert_eq!(again.next_of("resumed").await["recovered"], true);
    let (epoch, seq) = (&own["epoch"], 4);
    let wanted = json!({"type": "resume", "id": "r",
        "streams": [{"audience": "user", "epoch": epoch, "seq": seq}]});
    again.send(&wanted.to_string()).await;
    assert_eq!(notes(&mut again, 2).await, [5, 6]);
    let resumed = again.next_of("resumed").await;
    assert_eq!(
        (&resumed["id"], &resumed["recovered"]),
        (&json!("r"), &json!(true))
    );
    // Rooms one is not in are nobody's business.
    let wanted = json!({"type": "resume", "id": "s",
        "streams": [{"audience": "room", "id": "a.b", "epoch": epoch, "seq": 0}]});
    again.send(&wanted.to_string()).await;
    assert_eq!(again.next_of("error").await["code"], "not_subscribed");
}

/// They lie in memory until they are written: no more of all streams together than of one.
#[tokio::test]
async fn one_frame_asks_for_a_thousand_events_at_most() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=600).await;
    publish(&rabbit, "stored.all.all.note", 1..=600).await;
    let (mut user, mut all) = (Value::Null, Value::Null);
    while user["data"] != 600 || all["data"] != 600 {
        let note = ann.next_of("note").await;
        let is_own = note["unread"].is_u64();
        let last = if is_own { &mut user } else { &mut all };
        *last = note;
    }
    let since = format!("{},{}", cursor("user", &user), cursor("all", &all));
    let mut ann = open(&notifier, &format!("/ws?since={since}"), &token("ann")).await;
    assert_eq!(ann.next_of("resumed").await["recovered"], true);
    let at = |last: &Value, audience: &str, seq: u64| {
        let epoch = &last["epoch"];
        json!({"audience": audience, "epoch": epoch, "seq": seq})
    };
    for (from, recovered) in [(0, [true, false]), (200, [true, true])] {
        let streams = [at(&user, "user", from), at(&all, "all", from)];
        let wanted = json!({"type": "resume", "streams": streams});
        ann.send(&wanted.to_string()).await;
        let shown = if recovered[1] { 800 } else { 600 };
        for _ in 0..shown {
            assert_eq!(ann.next().await["type"], "note");
        }
        let resumed = ann.next().await;
        assert_eq!(resumed["type"], "resumed");
        let each = [0, 1].map(|n: usize| resumed["streams"][n]["recovered"].as_bool().unwrap());
        assert_eq!(each, recovered);
    }
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_not_all_there_is_said_to_be_lost() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.keep_events = 3;
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=1).await;
    let first = ann.next_of("note").await;
    publish(&rabbit, "stored.user.ann.note", 2..=6).await;
    assert_eq!(notes(&mut ann, 5).await, [2, 3, 4, 5, 6]);
    let other_life = format!("user.{:016x}.6", 7);
    let future = cursor("user", &first).replace(".1", ".7");
    for since in [
        cursor("user", &first),
        other_life,
        future.clone(),
        "nonsense".into(),
    ] {
        let mut again = open(&notifier, &format!("/ws?since={since}"), &token("ann")).await;
        assert_eq!(again.next().await["type"], "connected");
        let resumed = again.next().await;
        assert_eq!(resumed["type"], "resumed", "nothing before it: {since}");
        assert_eq!(resumed["recovered"], false, "{since}");
    }
    let kept = cursor("user", &first).replace(".1", ".3");
    let kept = kept.trim_end_matches(".1");
    assert!(kept.ends_with(".3"), "{kept}");
    let mut again = open(&notifier, &format!("/ws?since={kept}"), &token("ann")).await;
    assert_eq!(notes(&mut again, 3).await, [4, 5, 6]);
    assert_eq!(again.next_of("resumed").await["recovered"], true);
    // A number that nobody gave yet keeps nothing out of what comes next.
    let mut ahead = open(&notifier, &format!("/ws?since={future}"), &token("ann")).await;
    assert_eq!(ahead.next_of("resumed").await["recovered"], false);
    publish(&rabbit, "stored.user.ann.note", 7..=7).await;
    assert_eq!(notes(&mut ahead, 1).await, [7]);
    notifier.stop().await;
}

/// It waits beside `websocket.queue_size`, so it has a measure of its own.
#[tokio::test]
async fn what_was_missed_is_replayed_up_to_four_mib_and_an_inbox_paged_by_one() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    let mut cursors = Vec::new();
    for _ in 0..18 {
        let (_, body) = event("note", &json!("x".repeat(250 * 1024)));
        rabbit.publish("events", "stored.user.ann.note", body).await;
        cursors.push(cursor("user", &ann.next_of("note").await));
    }
    for (since, wants) in [(0, None), (2, Some(15)), (17, Some(0))] {
        let path = format!("/ws?since={}", cursors[since]);
        let mut again = open(&notifier, &path, &token("ann")).await;
        again.next_of("connected").await;
        let mut missed = 0;
        let resumed = loop {
            let frame = again.next().await;
            if frame["type"] == "resumed" {
                break frame;
            }
            missed += 1;
        };
        let found = (resumed["recovered"] == true).then_some(missed);
        assert_eq!(found, wants, "since {since}");
    }
    let (mut before, mut counts) = (String::new(), Vec::new());
    loop {
        let url = notifier.url(&format!("/api/inbox?limit=200{before}"));
        let answer = http().get(url).bearer_auth(token("ann")).send().await;
        let page: Value = answer.unwrap().json().await.unwrap();
        counts.push(page["items"].as_array().unwrap().len());
        let Some(next) = page["next"].as_u64() else {
            break;
        };
        before = format!("&before={next}");
    }
    assert_eq!(counts, [4, 4, 4, 4, 2]);
    notifier.stop().await;
}

#[tokio::test]
async fn who_was_away_is_shown_what_came_meanwhile_without_asking() {
    let stack = Stack::shared();
    let rabbit = stack.rabbit().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    // Before he ever came.
    publish(&rabbit, "stored.user.ann.note", 1..=3).await;
    let mut other = stack.client(&notifier, "bob").await;
    publish(&rabbit, "stored.user.bob.note", 1..=1).await;
    other.next_of("note").await;
    let mut ann = stack.client(&notifier, "ann").await;
    assert_eq!(notes(&mut ann, 3).await, [1, 2, 3]);
    ann.close().await;
    publish(&rabbit, "stored.user.ann.note", 4..=5).await;
    publish(&rabbit, "stored.user.bob.note", 2..=2).await;
    other.next_of("note").await;
    let mut ann = stack.client(&notifier, "ann").await;
    assert_eq!(notes(&mut ann, 2).await, [4, 5]);
    // The notifier itself was away.
    notifier.stop().await;
    publish(&rabbit, "stored.user.ann.note", 6..=7).await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut again = stack.client(&notifier, "ann").await;
    assert_eq!(notes(&mut again, 2).await, [6, 7]);
    notifier.stop().await;
}

/// Otherwise the share of what is lost would be that of all who come.
#[tokio::test]
async fn only_who_says_where_he_was_counts_as_one_who_resumes() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    publish(&rabbit, "stored.user.ann.note", 1..=1).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let note = ann.next_of("note").await;
    let resumes = async || {
        let series = |outcome| format!(r#"bellhop_notifier_resumes_total{{outcome="{outcome}"}}"#);
        let recovered = metric(&notifier, &series("recovered")).await;
        (recovered, metric(&notifier, &series("lost")).await)
    };
    assert_eq!(resumes().await, (0, 0));
    for (since, wants) in [
        (cursor("user", &note), (1, 0)),
        (format!("user.{:016x}.1", 7), (1, 1)),
    ] {
        let mut again = open(&notifier, &format!("/ws?since={since}"), &token("ann")).await;
        again.next_of("resumed").await;
        assert_eq!(resumes().await, wants);
    }
    let wanted = json!({"type": "resume", "streams": [
        {"audience": "user", "epoch": note["epoch"], "seq": 0}]});
    ann.send(&wanted.to_string()).await;
    assert_eq!(ann.next_of("resumed").await["recovered"], true);
    assert_eq!(resumes().await, (2, 1));
    notifier.stop().await;
}

/// Nobody knows what of that was still on its way: where a network was cut, it never arrived.
#[tokio::test]
async fn who_left_without_a_goodbye_is_shown_again_what_was_written() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut raw = Raw::connect(notifier.address, &token("ann")).await;
    publish(&rabbit, "stored.user.ann.note", 1..=1).await;
    let (_, frame) = raw.frame().await.unwrap();
    assert!(String::from_utf8_lossy(&frame).contains("note"));
    raw.end().await;
    publish(&rabbit, "stored.user.ann.note", 2..=2).await;
    let mut ann = stack.client(&notifier, "ann").await;
    assert_eq!(notes(&mut ann, 2).await, [1, 2]);
    notifier.stop().await;
}

#[tokio::test]
async fn an_event_that_is_published_twice_is_one() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    let (_, twice) = event("note", &json!(1));
    for _ in 0..3 {
        rabbit
            .publish("events", "stored.user.ann.note", &twice)
            .await;
    }
    publish(&rabbit, "stored.user.ann.note", 2..=2).await;
    assert_eq!(notes(&mut ann, 2).await, [1, 2]);
    notifier.stop().await;
}

#[tokio::test]
async fn what_one_device_reads_is_read_on_all() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut phone = stack.client(&notifier, "ann").await;
    let mut laptop = stack.client(&notifier, "ann").await;
    publish(&rabbit, "stored.user.ann.note", 1..=4).await;
    let (mut ids, mut epoch) = (Vec::new(), Value::Null);
    for n in 1..=4 {
        let frame = phone.next_of("note").await;
        assert_eq!(frame["unread"], n);
        ids.push(frame["id"].clone());
        epoch = frame["epoch"].clone();
    }
    let read = json!({"type": "read", "ids": [ids[0], ids[2]], "id": 1});
    phone.send(&read.to_string()).await;
    for device in [&mut phone, &mut laptop] {
        let updated = device.next_of("inbox.updated").await;
        assert_eq!(
            updated["data"],
            json!({"unread": 2, "mark": "read", "ids": [ids[0], ids[2]], "epoch": epoch, "seq": 4})
        );
    }
    laptop.send(r#"{"type":"read","up_to":4,"id":"all"}"#).await;
    let updated = phone.next_of("inbox.updated").await;
    assert_eq!(
        updated["data"],
        json!({"unread": 0, "mark": "read", "up_to": 4, "epoch": epoch, "seq": 4})
    );
    let answer = laptop.next_of("read").await;
    assert_eq!(answer, json!({"type": "read", "unread": 0, "id": "all"}));
    let mut tablet = Client::connect(notifier.address, &token("ann")).await;
    assert_eq!(tablet.next_of("connected").await["unread"], 0);
    // What has arrived is a cursor, shared as well.
    phone.send(r#"{"type":"ack","seq":4,"id":2}"#).await;
    assert_eq!(phone.next_of("acked").await["id"], 2);
    notifier.stop().await;
}

#[tokio::test]
async fn where_nothing_is_kept_that_is_said() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.store.kind = StoreKind::None;
    let notifier = stack.notifier(config).await;
    let rabbit = stack.rabbit().await;
    let mut ann = Client::connect(notifier.address, &token("ann")).await;
    assert_eq!(ann.next_of("connected").await.get("streams"), None);
    let (_, twice) = event("note", &json!(1));
    for _ in 0..2 {
        rabbit
            .publish("events", "stored.user.ann.note", &twice)
            .await;
    }
    publish(&rabbit, "stored.user.ann.note", 2..=2).await;
    for n in 1..=2 {
        let frame = ann.next_of("note").await;
        assert_eq!((&frame["data"], frame.get("seq")), (&json!(n), None));
    }
    for text in [r#"{"type":"ack","seq":1}"#, r#"{"type":"read","up_to":1}"#] {
        ann.send(text).await;
        assert_eq!(ann.next_of("error").await["code"], "no_store", "{text}");
    }
    ann.send(r#"{"type":"resume","streams":[{"audience":"user","epoch":"1","seq":1}]}"#)
        .await;
    assert_eq!(ann.next_of("resumed").await["recovered"], false);
    notifier.stop().await;
}

#[tokio::test]
async fn what_is_for_later_comes_when_it_is_due() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let rabbit = stack.rabbit().await;
    let mut ann = stack.client(&notifier, "ann").await;
    let due = Timestamp::now() + jiff::SignedDuration::from_secs(3);
    let later = |data: u64, at: &str| {
        json!({"type": "note", "id": Uuid::now_v7(), "time": Timestamp::now(), "data": data,
            "deliver_at": at})
        .to_string()
    };
    let body = later(2, &due.to_string());
    rabbit
        .publish("events", "stored.user.a%2Eb.note", &body)
        .await;
    rabbit
        .publish("events", "stored.user.ann.note", &body)
        .await;
    // What is past or cannot be read is for now.
    for (data, at) in [(0, "2020-01-01T00:00:00Z"), (1, "soon")] {
        let body = later(data, at);
        rabbit.publish("events", "stored.user.ann.note", body).await;
        assert_eq!(notes(&mut ann, 1).await, [data]);
    }
    // It waits in the broker, and not in a notifier.
    notifier.stop().await;
    let notifier = stack.notifier(stack.notifier_config()).await;
    let mut ann = stack.client(&notifier, "ann").await;
    let late = ann.next_of("note").await;
    assert_eq!((&late["data"], &late["seq"]), (&json!(2), &json!(3)));
    assert!(Timestamp::now() >= due, "not before its time");
    let mut other = stack.client(&notifier, "a.b").await;
    assert_eq!(notes(&mut other, 1).await, [2]);
    notifier.stop().await;
}
