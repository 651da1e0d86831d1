//! Very many clients at once: those that vanish, and those that all come back.

use std::time::Duration;

use bellhop_notifier::Access;
use bellhop_tests::client::{Client, Raw, masked, metric_becomes, request};
use bellhop_tests::crowd::{self, Came, percentile};
use bellhop_tests::stack::{Running, Stack, room_token, token};
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connections::settled_footprint;

const CONNECTIONS: &str = "bellhop_notifier_connections";

/// Each in another way, at another place of a frame.
async fn half_a_frame_and_gone(notifier: &Running, n: usize) {
    let mut raw = Raw::connect(notifier.address, &token(&format!("u{n}"))).await;
    let whole = masked(0x81, &[b'x'; 300]);
    let half = match n % 4 {
        0 => vec![0x81],
        1 => whole[..5].to_vec(),
        2 => whole[..200].to_vec(),
        _ => masked(0x01, b"{\"type\""),
    };
    raw.send(&half).await;
    if n.is_multiple_of(3) {
        raw.vanish();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_that_send_half_a_frame_and_vanish_leave_nothing() {
    let count = 1000;
    crowd::allow_files(4000);
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    // Once around before, so that what is made once is made.
    crowd::all(8, 8, async |n| {
        half_a_frame_and_gone(&notifier, n).await;
    })
    .await;
    metric_becomes(&notifier, CONNECTIONS, 0).await;
    let before = settled_footprint(None).await;
    let (_, took) = crowd::all(count, 100, async |n| {
        half_a_frame_and_gone(&notifier, n).await;
    })
    .await;
    metric_becomes(&notifier, CONNECTIONS, 0).await;
    let after = settled_footprint(Some(before)).await;
    println!("{count} came and went in {took:?}; open files and tasks: {before:?}, {after:?}");
    assert_eq!(after, before, "open files and tasks");
    notifier.stop().await;
}

const BEAT: Duration = Duration::from_millis(50);

/// Publishes to a room twenty times a second until told to stop.
async fn beat(stack: Stack, stop: CancellationToken) {
    let rabbit = stack.rabbit().await;
    let mut clock = interval(BEAT);
    clock.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut number = 0;
    while !stop.is_cancelled() {
        clock.tick().await;
        let (id, time) = (Uuid::now_v7(), jiff::Timestamp::now());
        let body = json!({"type": "beat", "id": id, "time": time, "data": number});
        rabbit
            .publish("events", "live.room.heart.beat", body.to_string())
            .await;
        number += 1;
    }
}

/// Stays, and notes the time between one heartbeat and the next.
async fn listen(mut client: Client, stop: CancellationToken) -> Vec<Duration> {
    let mut gaps = Vec::new();
    let mut last = None;
    loop {
        let came = tokio::select! {
            came = client.glance() => came,
            () = stop.cancelled() => return gaps,
        };
        match came {
            Came::Frame(frame) if frame.kind == "beat" => {
                let now = Instant::now();
                if let Some(last) = last.replace(now) {
                    gaps.push(now - last);
                }
            }
            Came::Frame(_) => {}
            Came::End(code) => panic!("who stayed was closed with {code:?}"),
        }
    }
}

async fn enter(notifier: &Running, user: &str, room: &str) -> Client {
    let path = format!("/ws?room_id={room}");
    let bearer = format!("Bearer {}", room_token(user, &[]));
    let request = request(notifier.address, &path, &[("authorization", &bearer)]);
    let mut client = Client::open(request).await.unwrap().0;
    client.until("subscribed").await;
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reconnects_is_served_and_disturbs_nobody_who_stayed() {
    let count = crowd::size(1000);
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.rooms.access = Access::Open;
    config.rooms.announce_up_to = 0;
    let notifier = stack.notifier(config).await;
    let stop = CancellationToken::new();
    let (stayers, _) = crowd::all(count / 10, 50, async |n| {
        enter(&notifier, &format!("stays{n}"), "heart").await
    })
    .await;
    let storming =
        async |n: usize| enter(&notifier, &format!("storms{n}"), &format!("r{}", n / 10)).await;
    let (connected, _) = crowd::all(count, 50, storming).await;
    let beating = tokio::spawn(beat(stack.clone(), stop.clone()));
    let listening: Vec<_> = stayers
        .into_iter()
        .map(|client| tokio::spawn(listen(client, stop.clone())))
        .collect();

    drop(connected);
    let (back, took) = crowd::all(count, count, storming).await;
    stop.cancel();
    beating.await.unwrap();
    let mut gaps = Vec::new();
    for stayed in listening {
        gaps.extend(stayed.await.unwrap());
    }
    let p99 = percentile(&mut gaps, 99);
    println!(
        "{count} were back after {took:?}; {} heartbeats to {} who stayed: median gap {:?}, p99 {p99:?}, longest {:?}",
        gaps.len(),
        count / 10,
        percentile(&mut gaps, 50),
        percentile(&mut gaps, 100),
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    assert!(gaps.len() >= count / 10, "too few to say anything");
    drop(back);
    notifier.stop().await;
}
