//! The disk of the SQLite file is full: live events go on, stored ones wait in RabbitMQ, and when there
//! is room again, each arrives once and in order.

use std::ops::RangeInclusive;
use std::time::Duration;

use bellhop_tests::broker::free_port;
use bellhop_tests::client::{Client, request};
use bellhop_tests::disk::TinyDisk;
use bellhop_tests::program::{Program, Surroundings, command_by};
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{PATIENCE, Stack, token};
use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const FAILED: &str = r#"bellhop_notifier_kept_events_total{outcome="failed"}"#;

/// Publishes stored events for Ann, each with its number and a kilobyte of words.
async fn publish(rabbit: &Rabbit, numbers: RangeInclusive<u64>) {
    let bodies = numbers.map(|n| {
        let (id, time, words) = (Uuid::now_v7(), Timestamp::now(), "x".repeat(1024));
        let event = json!({"type": "note", "id": id, "time": time, "data": n, "words": words});
        event.to_string().into_bytes()
    });
    let bodies = bodies.collect();
    rabbit
        .publish_all("events", "stored.user.ann.note", bodies)
        .await;
}

/// The numbers of the next so many notes, which are those of the stream.
async fn expect_notes(client: &mut Client, numbers: RangeInclusive<u64>) {
    for n in numbers {
        let frame = client.next_of("note").await;
        assert_eq!((&frame["seq"], &frame["data"]), (&json!(n), &json!(n)));
    }
}

async fn until_log_says(program: &Program, words: &str) {
    let wait = async {
        while !program.log().iter().any(|line| line.contains(words)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect(words);
}

fn warnings(program: &Program) -> Vec<String> {
    let lines = program.log().into_iter();
    lines
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .collect()
}

/// A notifier whose file is on a tiny disk, and how it is started.
struct Scene {
    stack: Stack,
    disk: TinyDisk,
    place: Surroundings,
}

impl Scene {
    async fn new() -> Self {
        let disk = TinyDisk::mounted(4096).await;
        let place = Surroundings {
            by: disk.inside(),
            ..Surroundings::usual(free_port())
        };
        Self {
            stack: Stack::shared(),
            disk,
            place,
        }
    }

    fn path(&self) -> String {
        format!("store.path={}", self.disk.folder.join("store.db").display())
    }

    fn start_unready(&self) -> Program {
        let settings = [self.path(), "websocket.drain_window=0s".into()];
        let settings: Vec<_> = settings.iter().map(String::as_str).collect();
        Program::start_in(&self.place, "notifier", &self.stack, &settings)
    }

    async fn start(&self) -> Program {
        let notifier = self.start_unready();
        notifier.wait_ready().await;
        notifier
    }

    async fn client(&self, since: &str) -> Client {
        let bearer = format!("Bearer {}", token("ann"));
        let path = format!("/ws{since}");
        let request = request(self.place.address, &path, &[("authorization", &bearer)]);
        Client::open(request).await.unwrap().0
    }

    /// Fills the disk and publishes until the notifier says that it cannot keep events.
    async fn fill(&self, notifier: &Program, rabbit: &Rabbit, numbers: RangeInclusive<u64>) {
        self.disk.fill();
        publish(rabbit, numbers).await;
        notifier.wait_unready().await;
        let (status, page) = notifier.get("/readyz").await;
        assert!(status == 503 && page.contains("store.writes"), "{page}");
        assert!(notifier.metric(FAILED).await > 0);
    }

    async fn check_file(&self) {
        let mut check = command_by(&self.disk.inside(), "notifier", &self.stack);
        check.args(["store", "check", "--set", &self.path()]);
        let found = check.output().await.unwrap();
        let said = String::from_utf8_lossy(&found.stdout);
        assert!(found.status.success(), "{said}");
    }
}

#[tokio::test]
async fn a_full_disk_holds_stored_events_back_and_loses_none() {
    let scene = Scene::new().await;
    let (notifier, rabbit) = (scene.start().await, scene.stack.rabbit().await);
    let mut ann = scene.client("").await;
    publish(&rabbit, 1..=100).await;
    expect_notes(&mut ann, 1..=100).await;

    let before = warnings(&notifier).len();
    scene.fill(&notifier, &rabbit, 101..=600).await;
    let time = Timestamp::now();
    for n in 1..=20 {
        let event = json!({"type": "hello", "id": Uuid::now_v7(), "time": time, "data": n});
        let key = "live.user.ann.hello";
        rabbit.publish("events", key, event.to_string()).await;
        let frame = ann.next_of("hello").await;
        assert_eq!(frame["data"], n, "live ones go on");
        // Long enough for many attempts.
        sleep(Duration::from_millis(250)).await;
    }
    let said = &warnings(&notifier)[before..];
    let clear = said.iter().filter(|line| line.contains("disk is full"));
    assert!(clear.count() == 1 && said.len() == 1, "{said:#?}");

    scene.disk.make_room();
    expect_notes(&mut ann, 101..=600).await;
    until_log_says(&notifier, "the store works again").await;
    notifier.wait_ready().await;
    assert_eq!(rabbit.ready("inbox").await, 0);
    scene.check_file().await;
}

#[tokio::test]
async fn what_a_full_disk_did_not_keep_comes_again_after_a_kill() {
    let scene = Scene::new().await;
    let (mut notifier, rabbit) = (scene.start().await, scene.stack.rabbit().await);
    let mut ann = scene.client("").await;
    publish(&rabbit, 1..=100).await;
    expect_notes(&mut ann, 1..=99).await;
    let last = ann.next_of("note").await;
    let since = format!("?since=user.{}.100", last["epoch"].as_str().unwrap());

    scene.fill(&notifier, &rabbit, 101..=600).await;
    notifier.signal(Signal::KILL);
    notifier.ended().await;
    // The next begins on a disk that is still full, and waits as this one did.
    let notifier = scene.start_unready();
    until_log_says(&notifier, "disk is full").await;
    scene.disk.make_room();
    notifier.wait_ready().await;
    let mut ann = scene.client(&since).await;
    expect_notes(&mut ann, 101..=600).await;
    scene.check_file().await;
}
