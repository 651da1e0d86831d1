//! Who watches tasks end: a queue that hears the events, and a client of a notifier.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellhop_common::amqp::{Consumer, Delivery, Source, Subscription, Topology};
use bellhop_common::config::AmqpConfig;
use bellhop_common::telemetry::Component;
use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;

use crate::client::{Client, request};
use crate::stack::{Running, token};

const ENDS: [&str; 3] = ["succeeded", "failed", "cancelled"];

/// An end as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub event_id: String,
    pub status: String,
    pub attempt: u32,
    pub code: Option<String>,
    pub time: String,
}

type Ends = HashMap<String, Vec<End>>;

/// Takes events from a quorum queue, in order, whatever happens to the broker. Not from a stream:
/// RabbitMQ before 4.0 may drop what it confirms for one whose leader changes.
pub struct QueueWatch {
    ends: Arc<Mutex<Ends>>,
    _reading: AbortOnDropHandle<()>,
    _consumer: Consumer,
}

impl QueueWatch {
    pub fn start(config: &AmqpConfig, queue: &str) -> Self {
        let (sender, mut deliveries) = mpsc::channel(100);
        let source = Source::Queue(format!("{}{queue}", config.prefix));
        let subscription = Subscription::new(source, 500, sender);
        let consumer = Consumer::start(
            config,
            "watch",
            Topology::default(),
            vec![subscription],
            Component::default(),
        );
        let ends = Arc::<Mutex<Ends>>::default();
        let shared = Arc::clone(&ends);
        let reading = tokio::spawn(async move {
            while let Some(delivery) = deliveries.recv().await {
                note(&mut shared.lock().unwrap(), &delivery);
                drop(delivery.receipt.ack().await);
            }
        });
        Self {
            ends,
            _reading: AbortOnDropHandle::new(reading),
            _consumer: consumer,
        }
    }

    /// How many tasks ended.
    pub fn ended(&self) -> usize {
        self.ends.lock().unwrap().len()
    }

    pub fn ends(&self) -> Ends {
        self.ends.lock().unwrap().clone()
    }
}

fn note(ends: &mut Ends, delivery: &Delivery) {
    let event: Value = serde_json::from_slice(&delivery.body).unwrap();
    let data = &event["data"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let status = text(&data["status"]).unwrap();
    if ENDS.contains(&status.as_str()) {
        let end = End {
            event_id: text(&event["id"]).unwrap(),
            status,
            attempt: u32::try_from(data["attempt"].as_u64().unwrap()).unwrap(),
            code: text(&data["error"]["code"]),
            time: text(&data["timestamp"]).unwrap(),
        };
        let told = ends.entry(text(&data["task_id"]).unwrap()).or_default();
        // Ours may be an answer that went with a connection.
        if !(delivery.redelivered && told.contains(&end)) {
            told.push(end);
        }
    }
}

/// A client that counts how often it sees each task end, and comes back when it loses the notifier.
pub struct ClientWatch {
    seen: Arc<Seen>,
    _reading: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    ends: Mutex<HashMap<String, usize>>,
    after_end: Mutex<BTreeSet<String>>,
    reconnects: AtomicUsize,
}

impl ClientWatch {
    pub async fn start(notifier: &Running, user: &str) -> Self {
        let (address, bearer) = (notifier.address, format!("Bearer {}", token(user)));
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let connect = async move || {
            let request = request(address, "/ws", &[("authorization", &bearer)]);
            Some(Client::open(request).await.ok()?.0)
        };
        let mut client = connect().await.unwrap();
        let reading = tokio::spawn(async move {
            loop {
                read(&mut client, &shared).await;
                shared.reconnects.fetch_add(1, Ordering::SeqCst);
                client = loop {
                    sleep(Duration::from_millis(50)).await;
                    if let Some(client) = connect().await {
                        break client;
                    }
                };
            }
        });
        Self {
            seen,
            _reading: AbortOnDropHandle::new(reading),
        }
    }

    /// How often each task's end was seen.
    pub fn ends(&self) -> HashMap<String, usize> {
        self.seen.ends.lock().unwrap().clone()
    }

    /// Waits until so many ends were seen.
    pub async fn until(&self, count: usize, patience: Duration) -> bool {
        let wait = async {
            while self.seen.ends.lock().unwrap().len() < count {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(patience, wait).await.is_ok()
    }

    /// What came after the end of its task.
    pub fn after_end(&self) -> Vec<String> {
        let events = self.seen.after_end.lock().unwrap();
        events.iter().cloned().collect()
    }

    pub fn reconnects(&self) -> usize {
        self.seen.reconnects.load(Ordering::SeqCst)
    }
}

async fn read(client: &mut Client, seen: &Seen) {
    while let Some(Ok(message)) = client.socket().next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        let Some(task_id) = frame["data"]["task_id"].as_str() else {
            continue;
        };
        let status = frame["data"]["status"].as_str().unwrap();
        let mut ends = seen.ends.lock().unwrap();
        if ENDS.contains(&status) {
            *ends.entry(task_id.to_owned()).or_default() += 1;
        } else if status != "queued" && ends.contains_key(task_id) {
            // `queued` is said by the producer, and may be late.
            let (attempt, time) = (&frame["data"]["attempt"], &frame["data"]["timestamp"]);
            let event = format!("{task_id}: {status} {attempt} at {time}");
            seen.after_end.lock().unwrap().insert(event);
        }
    }
}
