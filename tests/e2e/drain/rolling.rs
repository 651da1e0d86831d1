//! Two instances are replaced one after the other while events come all the time: nobody misses
//! one, and nobody is shown one twice.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::Access;
use bellhop_tests::client::{Client, request};
use bellhop_tests::crowd::{self, Came, Glance};
use bellhop_tests::stack::{Running, Stack, room_token};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How many clients share a room. An event is for one room, so that the work grows with the
/// events, not with the clients.
const IN_ROOM: usize = 100;

/// Between two events: 100 a second.
const EVENT_EVERY: Duration = Duration::from_millis(10);

/// Where the notifiers are; a client takes one of them by its number.
type Addresses = watch::Receiver<Vec<SocketAddr>>;

/// How many frames may wait for a client to look at them.
const WAITING: usize = 1024;

/// A client's way into its room, by as many connections as it takes.
#[derive(Clone)]
struct Way {
    number: usize,
    token: String,
    addresses: Addresses,
    frames: mpsc::Sender<Glance>,
}

/// What a client was shown.
#[derive(Debug, Default)]
struct Shown {
    numbers: Vec<u64>,
    again: usize,
    moves: usize,
}

impl Way {
    /// Opens a connection that is in the room, wherever one is taken; reads it to its end, which
    /// the notifier sets.
    async fn connect(&self) {
        let path = format!("/ws?room_id={}", room_of(self.number));
        let bearer = format!("Bearer {}", self.token);
        let mut client = loop {
            let address = {
                let addresses = self.addresses.borrow();
                addresses[self.number % addresses.len()]
            };
            let request = request(address, &path, &[("authorization", &bearer)]);
            if let Ok((client, _)) = Client::open(request).await {
                break client;
            }
            sleep(Duration::from_millis(50)).await;
        };
        client.until("subscribed").await;
        let frames = self.frames.clone();
        tokio::spawn(async move {
            loop {
                match client.glance().await {
                    Came::Frame(frame) => drop(frames.send(frame).await),
                    Came::End(code) => return assert_eq!(code, Some(1012), "not by a restart"),
                }
            }
        });
    }

    async fn connect_after(self, wait: Duration) {
        sleep(wait).await;
        self.connect().await;
    }
}

/// Follows one client up to the event that is said to be the last. What two connections bring is
/// shown once.
async fn travel(way: Way, mut frames: mpsc::Receiver<Glance>) -> (usize, Shown) {
    let (mut shown, mut known) = (Shown::default(), HashSet::new());
    loop {
        let frame = timeout(Duration::from_mins(1), frames.recv()).await;
        let frame = frame.expect("events go on").unwrap();
        match frame.kind.as_str() {
            "reconnect" => {
                shown.moves += 1;
                let wait = Duration::from_millis(frame.after_ms.unwrap());
                tokio::spawn(way.clone().connect_after(wait));
            }
            "tick" => {
                if known.insert(frame.id.unwrap().to_string()) {
                    shown.numbers.push(frame.data.unwrap().as_u64().unwrap());
                } else {
                    shown.again += 1;
                }
            }
            "end" => return (way.number, shown),
            _ => {}
        }
    }
}

fn room_of(number: usize) -> String {
    format!("room-{}", number / IN_ROOM)
}

fn body(kind: &str, number: u64) -> String {
    let (id, time) = (Uuid::now_v7(), jiff::Timestamp::now());
    json!({"type": kind, "id": id, "time": time, "data": number}).to_string()
}

/// Publishes to each room in turn until told to stop; answers how many each room got.
async fn publish(stack: Stack, rooms: usize, stop: CancellationToken) -> Vec<u64> {
    let rabbit = stack.rabbit().await;
    let mut sent = vec![0; rooms];
    let mut clock = tokio::time::interval(EVENT_EVERY);
    for room in (0..rooms).cycle() {
        clock.tick().await;
        if stop.is_cancelled() {
            break;
        }
        let key = format!("live.room.room-{room}.tick");
        rabbit
            .publish("events", &key, body("tick", sent[room]))
            .await;
        sent[room] += 1;
    }
    for room in 0..rooms {
        let key = format!("live.room.room-{room}.end");
        rabbit.publish("events", &key, body("end", 0)).await;
    }
    sent
}

async fn start(stack: &Stack, name: &str, window: Duration) -> Running {
    let mut config = stack.shared_config();
    config.instance = Some(name.into());
    config.rooms.access = Access::Open;
    // Who comes and goes is not what is looked at, and would be many frames.
    config.rooms.announce_up_to = 0;
    config.websocket.drain_window = HumanDuration(window);
    stack.notifier(config).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_misses_an_event_while_both_instances_are_replaced() {
    let count = crowd::size(300);
    let window = Duration::from_millis(2000.max(count as u64 * 4));
    let rooms = count.div_ceil(IN_ROOM);
    let stack = Stack::shared();
    let (one, two) = (
        start(&stack, "one", window).await,
        start(&stack, "two", window).await,
    );
    let (where_to, addresses) = watch::channel(vec![one.address, two.address]);
    let addresses = &addresses;
    let (travellers, took) = crowd::all(count, 50, async |number| {
        let (to, frames) = mpsc::channel(WAITING);
        let way = Way {
            number,
            token: room_token(&format!("u{number}"), &[]),
            addresses: addresses.clone(),
            frames: to,
        };
        way.connect().await;
        (way, frames)
    })
    .await;
    println!("{count} clients connected in {took:?}");
    let mut travelling = JoinSet::new();
    for (way, frames) in travellers {
        travelling.spawn(travel(way, frames));
    }
    let stop = CancellationToken::new();
    let publishing = tokio::spawn(publish(stack.clone(), rooms, stop.clone()));

    where_to.send_replace(vec![two.address]);
    one.stop_within(window + Duration::from_secs(20)).await;
    let three = start(&stack, "three", window).await;
    where_to.send_replace(vec![three.address]);
    two.stop_within(window + Duration::from_secs(20)).await;
    let four = start(&stack, "four", window).await;
    stop.cancel();
    let sent = publishing.await.unwrap();
    let (mut again, mut moves) = (0, 0);
    while let Some(shown) = travelling.join_next().await {
        let (number, mut shown) = shown.unwrap();
        let all = sent[number / IN_ROOM];
        // Between its two connections there is no order.
        shown.numbers.sort_unstable();
        assert!(
            shown.numbers.iter().copied().eq(0..all),
            "client {number} was to see {all} events, it saw {:?}",
            shown.numbers
        );
        again += shown.again;
        moves += shown.moves;
    }
    let events: u64 = sent.iter().sum();
    println!("{events} events, {moves} moves, {again} events came by both connections");
    assert!(events > 0 && moves >= count + count / 2 - 1);
    three.stop_within(window + Duration::from_secs(20)).await;
    four.stop().await;
}
