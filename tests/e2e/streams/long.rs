//! A stream of very many events: it gets no slower, is resumed from near its end alone, and paged
//! through to its beginning.

use std::time::Duration;

use bellhop_tests::client::{Client, request};
use bellhop_tests::program::Program;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::{Stack, http, token};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::event;

const KEPT: &str = r#"bellhop_notifier_kept_events_total{outcome="new"}"#;

/// More are not replayed to who comes back.
const REPLAYED_AT_MOST: u64 = 1000;

/// How many events: a million takes ten minutes.
fn size() -> u64 {
    let size = std::env::var("BELLHOP_TEST_STREAM").ok();
    size.map_or(20_000, |size| {
        size.parse().expect("BELLHOP_TEST_STREAM is a number")
    })
}

/// Adds events; how long it took until they were kept.
async fn add(
    notifier: &Program,
    rabbit: &Rabbit,
    numbers: std::ops::RangeInclusive<u64>,
) -> Duration {
    let (began, last) = (Instant::now(), *numbers.end());
    let numbers: Vec<_> = numbers.collect();
    for some in numbers.chunks(5000) {
        let bodies = some.iter().map(|n| event("note", &json!(n)).1.into_bytes());
        let key = "stored.user.ann.note";
        rabbit.publish_all("events", key, bodies.collect()).await;
    }
    while notifier.metric(KEPT).await < last {
        sleep(Duration::from_millis(20)).await;
        assert!(began.elapsed() < Duration::from_mins(5), "they are kept");
    }
    began.elapsed()
}

/// Comes back from a number on; what is said of it, and a client that has been told.
async fn resumed(notifier: &Program, epoch: &str, seq: u64) -> (bool, Vec<u64>) {
    let bearer = format!("Bearer {}", token("ann"));
    let path = format!("/ws?since=user.{epoch}.{seq}");
    let request = request(notifier.address(), &path, &[("authorization", &bearer)]);
    let mut client = Client::open(request).await.unwrap().0;
    let mut notes = Vec::new();
    loop {
        let frame = client.next().await;
        match frame["type"].as_str() {
            Some("note") => notes.push(frame["seq"].as_u64().unwrap()),
            Some("resumed") => return (frame["recovered"] == true, notes),
            _ => {}
        }
    }
}

/// A page of the inbox.
async fn page(http: &reqwest::Client, notifier: &Program, before: Option<u64>) -> Value {
    let before = before.map_or(String::new(), |before| format!("&before={before}"));
    let url = format!("http://{}/api/inbox?limit=200{before}", notifier.address());
    let answer = http.get(url).bearer_auth(token("ann")).send().await;
    answer.unwrap().json().await.unwrap()
}

/// Goes through the whole inbox; the numbers in it, and the time of the first and the last tenth.
async fn paged(
    http: &reqwest::Client,
    notifier: &Program,
    count: u64,
) -> (Vec<u64>, [Duration; 2]) {
    let (mut seqs, mut before) = (Vec::new(), None);
    let (mut tenths, mut began) = ([Duration::ZERO; 2], Instant::now());
    loop {
        let page = page(http, notifier, before).await;
        let items = page["items"].as_array().unwrap().iter();
        seqs.extend(items.map(|item| item["seq"].as_u64().unwrap()));
        before = page["next"].as_u64();
        let done = seqs.len() as u64;
        if tenths[0].is_zero() && done >= count / 10 {
            tenths[0] = began.elapsed();
        }
        if done <= count - count / 10 {
            began = if tenths[0].is_zero() {
                began
            } else {
                Instant::now()
            };
        }
        if before.is_none() {
            tenths[1] = began.elapsed();
            return (seqs, tenths);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_very_long_stream_is_as_fast_as_a_short_one() {
    let (stack, count) = (Stack::shared(), size());
    let limit = format!("store.keep_events={count}");
    let settings = [limit.as_str(), "websocket.drain_window=0s"];
    let notifier = Program::start("notifier", &stack, &settings).await;
    let (rabbit, http) = (stack.rabbit().await, http());
    let tenth = count / 10;
    let mut times = Vec::new();
    for part in 0..10 {
        let numbers = part * tenth + 1..=(part + 1) * tenth;
        times.push(add(&notifier, &rabbit, numbers).await);
    }
    eprintln!(
        "{count} events, by tenths: {times:.1?}; {} KiB",
        notifier.resident_kib()
    );
    // The last is compared with an early one, with room for what else the machine does.
    let slow = 4 * times[1] + Duration::from_secs(2);
    assert!(times[9] < slow, "{times:?}");

    let first = page(&http, &notifier, None).await;
    let epoch = first["epoch"].as_str().unwrap();
    assert_eq!(first["unread"], count);
    for seq in [0, 1, count - REPLAYED_AT_MOST - 1] {
        let (recovered, notes) = resumed(&notifier, epoch, seq).await;
        assert!(!recovered && notes.is_empty(), "from {seq}: never a part");
    }
    let (recovered, notes) = resumed(&notifier, epoch, count - REPLAYED_AT_MOST).await;
    let all: Vec<_> = (count - REPLAYED_AT_MOST + 1..=count).collect();
    assert!(recovered && notes == all, "{recovered}");

    let began = Instant::now();
    let (seqs, [newest, oldest]) = paged(&http, &notifier, count).await;
    eprintln!(
        "paged through in {:.1?}; the newest tenth {newest:.1?}, the oldest {oldest:.1?}",
        began.elapsed()
    );
    assert!(seqs.iter().copied().eq((1..=count).rev()), "each once");
    // One more, and the oldest goes.
    add(&notifier, &rabbit, count + 1..=count + 1).await;
    let newest = page(&http, &notifier, None).await;
    assert_eq!(
        (&newest["unread"], &newest["items"][0]["seq"]),
        (&json!(count), &json!(count + 1))
    );
}
