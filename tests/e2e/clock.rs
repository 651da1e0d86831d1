//! The clock of a notifier jumps two days ahead and back: no event is lost, doubled, late, or removed
//! before its time.

use std::time::Duration;

use bellhop_tests::broker::free_port;
use bellhop_tests::client::{Client, request};
use bellhop_tests::faked_time::FakedTime;
use bellhop_tests::program::{Program, Surroundings};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Stack, token};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

const SWEPT: &str = r#"bellhop_notifier_swept_total{what="events"}"#;

const DEFERRED: &str = "bellhop_notifier_deferred_events_total";

/// Sweeps come once a minute.
const UNTIL_SWEPT: Duration = Duration::from_secs(75);

struct Scene {
    notifier: Program,
    rabbit: Rabbit,
    place: Surroundings,
    clock: FakedTime,
}

impl Scene {
    async fn new(store: &[String], stack: &Stack) -> Self {
        let clock = FakedTime::right();
        let place = Surroundings {
            environment: clock.environment(),
            ..Surroundings::usual(free_port())
        };
        // Heartbeats are faster than the test, and an hour is less than a jump.
        let settings = [
            "store.keep=1h",
            "websocket.drain_window=0s",
            "websocket.ping_interval=1s",
            "websocket.pong_wait=3s",
            "rooms.callback_timeout=1s",
        ];
        let settings: Vec<_> = store.iter().map(String::as_str).chain(settings).collect();
        let notifier = Program::start_in(&place, "notifier", stack, &settings);
        notifier.wait_ready().await;
        Self {
            notifier,
            rabbit: stack.rabbit().await,
            place,
            clock,
        }
    }

    async fn publish(&self, data: u64, deliver_at: Option<Timestamp>) {
        let (id, time) = (Uuid::now_v7(), Timestamp::now());
        let mut event = json!({"type": "note", "id": id, "time": time, "data": data});
        if let Some(at) = deliver_at {
            event["deliver_at"] = json!(at);
        }
        let key = "stored.user.ann.note";
        self.rabbit.publish("events", key, event.to_string()).await;
    }

    async fn open(&self, path: &str) -> Result<Client, Error> {
        let bearer = format!("Bearer {}", token("ann"));
        let request = request(self.place.address, path, &[("authorization", &bearer)]);
        Client::try_open(request).await
    }

    /// Publishes notes with these numbers, and sees them come.
    async fn notes(&self, ann: &mut Client, numbers: std::ops::RangeInclusive<u64>) {
        for n in numbers {
            self.publish(n, None).await;
            let frame = ann.next_of("note").await;
            assert_eq!((&frame["data"], &frame["seq"]), (&json!(n), &json!(n)));
        }
    }

    /// Waits until a series is there; its value.
    async fn until(&self, series: &str, patience: Duration) -> u64 {
        let wait = async {
            loop {
                if let Some(count) = self.notifier.touched(series).await {
                    return count;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(patience, wait).await.expect(series)
    }
}

/// A frame that is due at a time comes then, and not another time.
async fn comes_once(ann: &mut Client, data: u64, due: Instant) -> Value {
    // Pings come all the time, so that the client alone would wait for ever.
    let frame = timeout(PATIENCE, ann.next_of("note"))
        .await
        .expect("it comes");
    assert_eq!(frame["data"], data);
    let late = Instant::now().saturating_duration_since(due);
    assert!(
        Instant::now() >= due && late < Duration::from_secs(5),
        "{late:?} late"
    );
    frame
}

async fn jump(store: &[String], stack: &Stack) {
    let scene = Scene::new(store, stack).await;
    let mut ann = scene.open("/ws").await.unwrap();
    ann.next_of("connected").await;
    scene.notes(&mut ann, 1..=20).await;
    let wait = SignedDuration::from_secs(12);
    let due = Instant::now() + wait.unsigned_abs();
    scene.publish(61, Some(Timestamp::now() + wait)).await;
    scene.until(DEFERRED, PATIENCE).await;

    scene.clock.set("+2d");
    scene.notes(&mut ann, 21..=40).await;
    // The tokens of everybody have expired, by this clock.
    let Err(Error::Http(refused)) = scene.open("/ws").await else {
        panic!("a token of ten minutes holds for two days");
    };
    assert_eq!(refused.status(), 401);

    scene.clock.set("-2d");
    scene.notes(&mut ann, 41..=60).await;
    let mut other = scene.open("/ws").await.expect("a token that is good");
    other.next_of("connected").await;
    // It waits in RabbitMQ, whose clock is right, and is not sent to wait again.
    let frame = comes_once(&mut ann, 61, due).await;
    let since = format!("/ws?since=user.{}.0", frame["epoch"].as_str().unwrap());

    // What was noted two days ago is looked at two days ahead.
    scene.clock.set("+2d");
    let swept = tokio::select! {
        swept = scene.until(SWEPT, UNTIL_SWEPT) => swept,
        // It answers pings meanwhile.
        frame = ann.try_next() => panic!("nothing comes, and the connection stays: {frame:?}"),
    };
    assert_eq!(swept, 0, "nothing is an hour old");
    scene.clock.set("+0");
    let mut again = scene.open(&since).await.unwrap();
    for n in 1..=61 {
        let frame = again.next_of("note").await;
        assert_eq!((&frame["data"], &frame["seq"]), (&json!(n), &json!(n)));
    }
    // The first of the connections has outlived everything, with its pings.
    scene.notes(&mut ann, 62..=62).await;
}

#[tokio::test]
async fn a_jump_of_the_clock_harms_no_events_in_a_file() {
    jump(&[], &Stack::shared()).await;
}

#[tokio::test]
async fn a_jump_of_the_clock_harms_no_events_in_redis() {
    let stack = Stack::shared();
    let config = stack.shared_config();
    let url = config.store.url.as_ref().unwrap().expose().to_owned();
    let store = [
        "store.kind=redis".into(),
        format!("store.url={url}"),
        format!("store.prefix={}", stack.prefix),
    ];
    jump(&store, &stack).await;
}
