//! A user with a thousand devices: a stored event reaches each once, and what one has read is read on
//! all of them.

use bellhop_tests::client::{Client, request};
use bellhop_tests::crowd::{Came, all, percentile, size};
use bellhop_tests::program::Program;
use bellhop_tests::stack::{Stack, token};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

/// What comes next on all of them is one frame of a type; how long each waited.
async fn each_sees(devices: &mut [Client], kind: &str) -> Vec<serde_json::Value> {
    let seeing = devices.iter_mut().map(|device| device.until(kind));
    let frames = futures_util::future::join_all(seeing).await;
    let data = frames.into_iter().map(|frame| frame.data.unwrap());
    data.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_a_thousand_devices_sees_an_event_once_and_that_it_is_read() {
    let (stack, count) = (Stack::shared(), size(1000));
    let limit = format!("websocket.connections_per_user={count}");
    let settings = [limit.as_str(), "websocket.drain_window=0s"];
    let notifier = Program::start("notifier", &stack, &settings).await;
    let (before, bearer) = (notifier.resident_kib(), format!("Bearer {}", token("ann")));
    let (mut devices, took) = all(count, 20, |_| async {
        let request = request(notifier.address(), "/ws", &[("authorization", &bearer)]);
        let mut device = Client::try_open(request).await.unwrap();
        device.until("connected").await;
        device
    })
    .await;
    let grown = notifier.resident_kib().saturating_sub(before);
    eprintln!("{count} devices came in {took:.1?} and took {grown} KiB");

    let rabbit = stack.rabbit().await;
    let mut times = Vec::new();
    for n in 1..=10 {
        let event =
            json!({"type": "note", "id": Uuid::now_v7(), "time": Timestamp::now(), "data": n});
        let began = Instant::now();
        let key = "stored.user.ann.note";
        rabbit.publish("events", key, event.to_string()).await;
        assert_eq!(each_sees(&mut devices, "note").await, vec![json!(n); count]);
        times.push(began.elapsed());
    }
    let median = percentile(&mut times, 50);
    let grown = notifier.resident_kib().saturating_sub(before);
    eprintln!("an event reached all in {median:.1?} (median of 10); {grown} KiB");

    let began = Instant::now();
    devices[count / 2]
        .send(r#"{"type": "read", "up_to": 10}"#)
        .await;
    let told = each_sees(&mut devices, "inbox.updated").await;
    let epoch = &told[0]["epoch"];
    let read = json!({"unread": 0, "mark": "read", "up_to": 10, "epoch": epoch, "seq": 10});
    assert_eq!(told, vec![read; count]);
    eprintln!(
        "that one has read them reached all in {:.1?}",
        began.elapsed()
    );

    // Nothing came twice: the next that comes is the last.
    let key = "live.user.ann.end";
    let event = json!({"type": "end", "id": Uuid::now_v7(), "time": Timestamp::now(), "data": 1});
    rabbit.publish("events", key, event.to_string()).await;
    for device in &mut devices {
        let came = device.glance().await;
        assert!(
            matches!(&came, Came::Frame(frame) if frame.kind == "end"),
            "{came:?}"
        );
    }
}
