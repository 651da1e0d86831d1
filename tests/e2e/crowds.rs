//! Very many clients at once: those that vanish, and those that all come back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bellhop_tests::client::{Client, Raw, masked, metric_becomes, request};
use bellhop_tests::crowd::{self, Came, percentile};
use bellhop_tests::program::Program;
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

async fn enter(address: SocketAddr, user: String, room: String) -> Client {
    let path = format!("/ws?room_id={room}");
    let bearer = format!("Bearer {}", room_token(&user, &[]));
    let request = request(address, &path, &[("authorization", &bearer)]);
    let mut client = Client::open(request).await.unwrap().0;
    client.until("subscribed").await;
    client
}

/// Connects so many, waits for a word, and comes back with all at once; how long that took. On a
/// thread of its own, so that it is the notifier that is measured.
fn storm(address: SocketAddr, count: usize, go: &std::sync::Barrier) -> Duration {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    let one = |n: usize| enter(address, format!("storms{n}"), format!("r{}", n / 10));
    let (connected, _) = runtime.block_on(crowd::all(count, 50, one));
    go.wait();
    go.wait();
    drop(connected);
    let (back, took) = runtime.block_on(crowd::all(count, count, one));
    drop(back);
    took
}

/// The notifier is a program here: its clients are no load of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_storm_of_reconnects_is_served_and_disturbs_nobody_who_stayed() {
    let count = crowd::size(1000);
    let stack = Stack::shared();
    let settings = ["rooms.access=open", "rooms.announce_up_to=0"];
    let notifier = Program::start("notifier", &stack, &settings).await;
    let address = SocketAddr::from(([127, 0, 0, 1], notifier.port));
    let (stayers, _) = crowd::all(count / 10, 50, |n| {
        enter(address, format!("stays{n}"), "heart".to_owned())
    })
    .await;
    let go = Arc::new(std::sync::Barrier::new(2));
    let storming = tokio::task::spawn_blocking({
        let go = Arc::clone(&go);
        move || storm(address, count, &go)
    });
    tokio::task::block_in_place(|| go.wait());
    let stop = CancellationToken::new();
    let beating = tokio::spawn(beat(stack.clone(), stop.clone()));
    let listening: Vec<_> = stayers
        .into_iter()
        .map(|client| tokio::spawn(listen(client, stop.clone())))
        .collect();

    go.wait();
    let took = storming.await.unwrap();
    stop.cancel();
    beating.await.unwrap();
    let mut gaps = Vec::new();
    for stayed in listening {
        gaps.extend(stayed.await.unwrap());
    }
    let p99 = percentile(&mut gaps, 99);
    println!(
        "{count} were back after {took:?}; {} heartbeats to {} who stayed: median gap {:?}, p99 \
         {p99:?}, longest {:?}",
        gaps.len(),
        count / 10,
        percentile(&mut gaps, 50),
        percentile(&mut gaps, 100),
    );
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
    assert!(gaps.len() >= count / 10, "too few to say anything");
}
