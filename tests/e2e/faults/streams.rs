//! Notifiers, the broker and the store die while stored events come and clients come and go: every
//! client ends with every event once, in order, by its own log.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop_common::amqp::{Message, Names, Publisher, Route, Topology};
use bellhop_common::telemetry::Component;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::client::{Client, request};
use bellhop_tests::program::Program;
use bellhop_tests::random::Random;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::{Stack, token};
use futures_util::future::join_all;
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;

/// For everything to arrive.
const PATIENCE: Duration = Duration::from_mins(5);

/// The full number is that of the issue: 20,000 events for 200 users take a minute.
pub(super) fn size() -> (u64, u64) {
    let events = std::env::var("BELLHOP_TEST_EVENTS").ok();
    let events: u64 = events.map_or(3000, |events| events.parse().unwrap());
    (events, (events / 100).clamp(10, 200))
}

/// Where notifiers listen now.
pub(super) type Places = Arc<Mutex<Vec<SocketAddr>>>;

/// What one user was shown: number and data, in the order it came.
#[derive(Debug, Default)]
struct Log {
    shown: Vec<(u64, u64)>,
    epoch: Option<String>,
    /// It was told that events may be lost.
    lost: u64,
    connections: u64,
}

impl Log {
    fn since(&self) -> Option<String> {
        let (seq, _) = self.shown.last()?;
        Some(format!("user.{}.{seq}", self.epoch.as_ref()?))
    }

    #[expect(clippy::print_stderr, reason = "shown when the test fails")]
    fn told_of_loss(&mut self, frame: &Value) {
        eprintln!("after {:?}: {frame}", self.shown.last());
        self.lost += 1;
    }

    /// Whether it may go on: one that was told that something may be lost comes again, from where it
    /// was.
    fn take(&mut self, frame: &Value) -> bool {
        let lost = self.lost;
        match frame["type"].as_str() {
            Some("note") => {
                let number = |field: &str| frame[field].as_u64().unwrap();
                self.shown.push((number("seq"), number("data")));
                self.epoch = Some(frame["epoch"].as_str().unwrap().to_owned());
            }
            Some("resumed") if frame["recovered"] == false => self.told_of_loss(frame),
            Some("stream_reset") => self.told_of_loss(frame),
            _ => {}
        }
        self.lost == lost
    }
}

/// A user whose client comes and goes until it has seen `count` events.
async fn live(user: String, count: u64, places: Places, mut random: Random) -> Log {
    let mut log = Log::default();
    let bearer = format!("Bearer {}", token(&user));
    let end = Instant::now() + PATIENCE;
    while (log.shown.len() as u64) < count && Instant::now() < end {
        let place = {
            let places = places.lock().unwrap();
            let index = random.below(places.len().max(1) as u64);
            places.get(usize::try_from(index).unwrap()).copied()
        };
        let Some(address) = place else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        let path = log
            .since()
            .map_or("/ws".to_owned(), |since| format!("/ws?since={since}"));
        let request = request(address, &path, &[("authorization", &bearer)]);
        let opening = timeout(Duration::from_secs(10), Client::try_open(request));
        let Ok(Ok(mut client)) = opening.await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        log.connections += 1;
        let stays = Instant::now() + Duration::from_millis(200 + random.below(3000));
        while (log.shown.len() as u64) < count {
            match tokio::time::timeout_at(stays, client.try_next()).await {
                Ok(Some(frame)) if log.take(&frame) => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
    log
}

/// How many publish at once: one that waits for each confirm makes some hundred events a second.
const PRODUCERS: usize = 16;

/// For how long, at least: so that troubles meet events and clients, however fast these are shown.
const LASTS: Duration = Duration::from_secs(10);

/// Publishes so many events for each user, each with its number among them, mixed, some twice. One
/// that is not confirmed is published again, with the same id.
async fn produce(stack: &Stack, users: &[String], each: u64, mut random: Random) {
    let config = stack.notifier_config().amqp;
    let names = Names::new(&config);
    let health = Component::default();
    let (publisher, task) = Publisher::start(&config, "producer", Topology::base(&names), health);
    let parts = users.chunks(users.len().div_ceil(PRODUCERS));
    let producing = parts.map(|users| {
        let random = Random::seeded(random.number());
        produce_for(&publisher, names.events(), users, each, random)
    });
    join_all(producing).await;
    task.close().await;
}

/// The events of a user are published in their order, so that they are kept in it.
async fn produce_for(
    publisher: &Publisher,
    exchange: String,
    users: &[String],
    each: u64,
    mut random: Random,
) {
    let mut left: Vec<_> = users.iter().map(|user| (user.as_str(), 1)).collect();
    let mut ticks = interval(LASTS / u32::try_from(each * users.len() as u64).unwrap());
    while !left.is_empty() {
        ticks.tick().await;
        let index = usize::try_from(random.below(left.len() as u64)).unwrap();
        let (user, n) = left[index];
        let (id, time) = (Uuid::now_v7(), Timestamp::now());
        let body = json!({"type": "note", "id": id, "time": time, "data": n}).to_string();
        let key = format!("stored.user.{user}.note");
        let message = Message {
            body: body.into(),
            persistent: true,
            ..Message::default()
        };
        let route = Route {
            exchange: &exchange,
            key: &key,
            mandatory: true,
        };
        let times = if random.below(20) == 0 { 2 } else { 1 };
        for _ in 0..times {
            while publisher.publish(route, &message).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        }
        left[index].1 += 1;
        if n == each {
            left.swap_remove(index);
        }
    }
}

#[expect(clippy::print_stderr, reason = "shown with the test's output")]
fn report(events: u64, users: usize, connections: u64, troubles: u64, began: Instant) {
    eprintln!(
        "{events} events for {users} users, {connections} connections, {troubles} troubles, {:.0?}: each event once, in order",
        began.elapsed()
    );
}

/// Runs everything while `trouble` makes trouble; checks every log.
pub(super) async fn run<T: Future<Output = u64>>(
    stack: &Stack,
    places: &Places,
    random: &mut Random,
    trouble: impl FnOnce(Arc<AtomicBool>, Random) -> T,
) -> u64 {
    let (events, users) = size();
    let each = events / users;
    let users: Vec<_> = (0..users).map(|n| format!("user-{n}")).collect();
    let over = Arc::new(AtomicBool::new(false));
    let living = users.iter().map(|user| {
        let random = Random::seeded(random.number());
        tokio::spawn(live(user.clone(), each, Arc::clone(places), random))
    });
    let living: Vec<_> = living.collect();
    let producing = produce(stack, &users, each, Random::seeded(random.number()));
    let began = Instant::now();
    let all = async {
        producing.await;
        let logs = join_all(living).await;
        over.store(true, Ordering::SeqCst);
        logs
    };
    let troubles = trouble(Arc::clone(&over), Random::seeded(random.number()));
    let (logs, troubles) = tokio::join!(all, troubles);
    let mut connections = 0;
    let mut lost = 0;
    for (user, log) in users.iter().zip(logs) {
        let log = log.unwrap();
        connections += log.connections;
        lost += log.lost;
        let wants: Vec<_> = (1..=each).map(|n| (n, n)).collect();
        assert_eq!(log.shown, wants, "{user}, {} connections", log.connections);
    }
    report(
        each * users.len() as u64,
        users.len(),
        connections,
        troubles,
        began,
    );
    assert!(troubles > 0, "nothing happened");
    lost
}

pub(super) fn settings(stack: &Stack) -> Vec<String> {
    let config = stack.shared_config();
    let url = config.store.url.as_ref().unwrap().expose().to_owned();
    vec![
        "store.kind=redis".into(),
        format!("store.url={url}"),
        format!("store.prefix={}", stack.prefix),
        "websocket.drain_window=0s".into(),
    ]
}

async fn start(stack: &Stack, settings: &[String], name: &str) -> Program {
    let name = format!("instance={name}");
    let mut all: Vec<&str> = settings.iter().map(String::as_str).collect();
    all.push(&name);
    Program::start("notifier", stack, &all).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_notifier_that_writes_is_killed() {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let settings = settings(&stack);
    let (mut programs, places) = two(&stack, &settings).await;
    let (shared, held) = (Arc::clone(&places), stack.clone());
    let lost = run(
        &stack,
        &places,
        &mut random,
        async move |over, mut random| {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(300 + random.below(1500))).await;
                let index = usize::try_from(random.below(2)).unwrap();
                programs[index].signal(Signal::KILL);
                programs[index].ended().await;
                killed += 1;
                let again = start(&held, &settings, ["one", "two"][index]).await;
                shared.lock().unwrap()[index] = again.address();
                programs[index] = again;
            }
            killed
        },
    )
    .await;
    assert_eq!(lost, 0, "told that something was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_notifier_is_killed_and_goes_on_with_its_file() {
    let mut random = Random::of_test();
    let stack = Stack::shared();
    let settings = vec!["websocket.drain_window=0s".to_owned()];
    let mut program = start(&stack, &settings, "one").await;
    let places: Places = Arc::new(Mutex::new(vec![program.address()]));
    let (shared, held) = (Arc::clone(&places), stack.clone());
    let lost = run(
        &stack,
        &places,
        &mut random,
        async move |over, mut random| {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(200 + random.below(1500))).await;
                program.signal(Signal::KILL);
                program.ended().await;
                killed += 1;
                program = start(&held, &settings, "one").await;
                shared.lock().unwrap()[0] = program.address();
            }
            killed
        },
    )
    .await;
    assert_eq!(lost, 0, "told that something was lost");
    let found = bellhop_notifier::store::check(&stack.folder.0.join("store.db")).unwrap();
    assert_eq!(found, Vec::<String>::new());
}

/// Two notifiers on one store, and the places at which they listen.
async fn two(stack: &Stack, settings: &[String]) -> ([Program; 2], Places) {
    let programs = [
        start(stack, settings, "one").await,
        start(stack, settings, "two").await,
    ];
    let places = programs.iter().map(Program::address).collect();
    (programs, Arc::new(Mutex::new(places)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_broker_is_killed_while_events_are_stored() {
    let mut random = Random::of_test();
    let broker = OwnBroker::started().await;
    let stack = Stack::on(broker.url());
    let (_programs, places) = two(&stack, &settings(&stack)).await;
    // RabbitMQ 3.10 can lose a quorum queue that is killed within a second of being declared.
    sleep(Duration::from_secs(2)).await;
    let lost = run(
        &stack,
        &places,
        &mut random,
        async move |over, mut random| {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(500 + random.below(3000))).await;
                broker.kill().await;
                broker.start().await;
                killed += 1;
                sleep(Duration::from_secs(3)).await;
            }
            killed
        },
    )
    .await;
    assert_eq!(lost, 0, "told that something was lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_killed_while_events_are_stored() {
    let mut random = Random::of_test();
    let mut redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let mut settings = settings(&stack);
    settings.push(format!("store.url={}", redis.url()));
    let (_programs, places) = two(&stack, &settings).await;
    let lost = run(
        &stack,
        &places,
        &mut random,
        async move |over, mut random| {
            let mut killed = 0;
            while !over.load(Ordering::SeqCst) {
                sleep(Duration::from_millis(300 + random.below(2000))).await;
                redis.kill();
                sleep(Duration::from_millis(random.below(1000))).await;
                redis.start().await;
                killed += 1;
            }
            killed
        },
    )
    .await;
    // Who comes while the store is away cannot be told what he missed.
    assert!(lost > 0, "nobody came while the store was away");
}
