//! The end of an instance: its clients are told when to come back, and go over a window of time.

mod rolling;

use std::time::{Duration, Instant};

use bellhop_common::config::HumanDuration;
use bellhop_tests::client::{Client, Raw, metric, metric_becomes};
use bellhop_tests::crowd::{self, Came};
use bellhop_tests::stack::{Stack, token};
use serde_json::json;
use uuid::Uuid;

use crate::handshake::refused;

const CONNECTIONS: &str = "bellhop_notifier_connections";
const WINDOW: Duration = Duration::from_secs(5);

/// How long a connection stays beyond the time at which its client was to open another.
const OVERLAP: Duration = Duration::from_secs(5);

/// A client that does nothing until it is sent away: when it was to go, and when it had to.
struct Sent {
    after: Duration,
    closed_at: Instant,
    code: Option<u16>,
}

async fn stay(mut client: Client) -> Sent {
    let told = client.until("reconnect").await;
    let after = Duration::from_millis(told.after_ms.unwrap());
    let code = loop {
        match client.glance().await {
            Came::Frame(frame) => assert_eq!(frame.kind, "note"),
            Came::End(code) => break code,
        }
    };
    let closed_at = Instant::now();
    Sent {
        after,
        closed_at,
        code,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_when_to_come_back_and_go_one_after_the_other() {
    let count = crowd::size(300);
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.drain_window = HumanDuration(WINDOW);
    let notifier = stack.notifier(config).await;
    let address = notifier.address;
    let (clients, _) = crowd::all(count, 50, async |n| {
        let mut client = Client::connect(address, &token(&format!("u{n}"))).await;
        client.until("connected").await;
        client
    })
    .await;
    let began = Instant::now();
    notifier.begin_stop();
    let staying: Vec<_> = clients
        .into_iter()
        .map(|it| tokio::spawn(stay(it)))
        .collect();
    let (status, body, headers) = refused(&notifier, "/ws", &[]).await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("stopping")));
    assert!(headers.contains("retry-after"), "{headers}");
    notifier.wait_ready(false).await;
    let still = metric(&notifier, CONNECTIONS).await;
    assert!(still > count as u64 / 2, "only {still} are left");
    // Who is still here is still told what happens.
    let rabbit = stack.rabbit().await;
    let note = json!({"type": "note", "id": Uuid::now_v7(), "time": jiff::Timestamp::now()});
    rabbit
        .publish("events", "live.all.all.note", note.to_string())
        .await;

    let mut in_tenth = [0; 10];
    for sent in staying {
        let sent = sent.await.unwrap();
        assert!(sent.after < WINDOW, "{:?}", sent.after);
        assert_eq!(sent.code, Some(1012));
        let went = sent.closed_at - began;
        assert!(went >= sent.after + OVERLAP, "{went:?} of {:?}", sent.after);
        let tenth = went.saturating_sub(OVERLAP).as_millis() * 10 / WINDOW.as_millis();
        in_tenth[usize::try_from(tenth.min(9)).unwrap()] += 1;
    }
    println!("{count} clients went in tenths of the window: {in_tenth:?}");
    assert!(in_tenth.iter().all(|here| here * 3 < count), "{in_tenth:?}");
    notifier.stop().await;
}

/// Takes nothing, and has more coming than the sockets can hold.
#[tokio::test]
async fn who_does_not_read_cannot_hold_the_end_up() {
    let deadline = Duration::from_secs(4);
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.drain_window = HumanDuration::from_secs(1);
    config.websocket.write_wait = HumanDuration::from_secs(60);
    config.websocket.queue_size.0 = 64 << 20;
    config.shutdown.deadline = HumanDuration(deadline);
    let notifier = stack.notifier(config).await;
    let deaf = Raw::connect(notifier.address, &token("ann")).await;
    let rabbit = stack.rabbit().await;
    let large = json!({"type": "note", "id": Uuid::now_v7(), "time": jiff::Timestamp::now(),
        "data": "x".repeat(200_000)});
    for _ in 0..50 {
        rabbit
            .publish("events", "live.user.ann.note", large.to_string())
            .await;
    }
    metric_becomes(&notifier, "bellhop_notifier_deliveries_total", 50).await;
    let began = Instant::now();
    notifier.stop().await;
    let took = began.elapsed();
    assert!(took >= deadline, "{took:?}: nobody was waited for");
    assert!(took < deadline + Duration::from_secs(5), "{took:?}");
    drop(deaf);
}
