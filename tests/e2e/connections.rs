//! Who gets which event, and what becomes of a user's connections.

mod events;
mod liveness;

use bellhop_notifier::NotifierConfig;
use bellhop_tests::client::{Client, Raw, metric, metric_becomes};
use bellhop_tests::stack::{PATIENCE, Running, Stack, token};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

const CONNECTIONS: &str = "bellhop_notifier_connections";

/// An event's body.
fn event(kind: &str, data: &Value) -> String {
    let (id, time) = (Uuid::now_v7(), "2026-01-15T10:30:00Z");
    json!({"type": kind, "id": id, "time": time, "data": data}).to_string()
}

/// A notifier that lets a user have one connection.
async fn one_each(stack: &Stack, change: impl FnOnce(&mut NotifierConfig)) -> Running {
    let mut config = stack.notifier_config();
    config.websocket.connections_per_user = 1;
    change(&mut config);
    stack.notifier(config).await
}

async fn publish_note(stack: &Stack, n: u64) {
    let rabbit = stack.rabbit().await;
    rabbit
        .publish("events", "live.user.ann.note", event("note", &json!(n)))
        .await;
}

#[tokio::test]
async fn a_new_connection_replaces_the_old_and_gets_each_event_once() {
    let stack = Stack::shared();
    let notifier = one_each(&stack, |_| {}).await;
    let mut first = stack.client(&notifier, "ann").await;
    let mut bob = stack.client(&notifier, "bob").await;
    let mut second = stack.client(&notifier, "ann").await;
    assert_eq!(first.closed().await, Some((4500, "replaced".into())));
    for n in [1, 2] {
        publish_note(&stack, n).await;
    }
    for n in [1, 2] {
        assert_eq!(second.next().await["data"], n);
    }
    drop(first);
    // The first is gone altogether, and took nothing of the second with it.
    metric_becomes(&notifier, CONNECTIONS, 2).await;
    publish_note(&stack, 3).await;
    assert_eq!(second.next().await["data"], 3);
    bob.send(r#"{"type":"ping"}"#).await;
    assert_eq!(bob.next().await["type"], "pong", "no business of bob's");
    notifier.stop().await;
}

/// The old connection is one that takes nothing any more, as after a change of network: its task
/// is in the middle of a write when the new one comes, and cleans up only long after.
#[tokio::test]
async fn the_late_end_of_a_dead_connection_leaves_its_successor_registered() {
    let stack = Stack::shared();
    let notifier = one_each(&stack, |config| {
        config.websocket.write_wait.0 = std::time::Duration::from_secs(8);
        config.websocket.queue_size.0 = 64 << 20;
    })
    .await;
    let dead = Raw::connect(notifier.address, &token("ann")).await;
    let rabbit = stack.rabbit().await;
    let large = event("note", &json!("x".repeat(200_000)));
    // More than the sockets between the two can hold.
    for _ in 0..50 {
        rabbit.publish("events", "live.user.ann.note", &large).await;
    }
    metric_becomes(&notifier, "bellhop_notifier_deliveries_total", 50).await;
    let mut successor = stack.client(&notifier, "ann").await;
    assert_eq!(metric(&notifier, CONNECTIONS).await, 2);
    publish_note(&stack, 1).await;
    assert_eq!(successor.next().await["data"], 1);
    // Its write was given up: that it is replaced it never heard.
    let given_up = r#"bellhop_notifier_closes_total{reason="slow_consumer"}"#;
    metric_becomes(&notifier, given_up, 1).await;
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    publish_note(&stack, 2).await;
    assert_eq!(successor.next().await["data"], 2);
    drop(dead);
    notifier.stop().await;
}

/// Open files and running tasks of this process, which the notifier runs in.
pub(crate) fn footprint() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    (files, tasks)
}

#[tokio::test]
async fn two_hundred_quick_reconnects_leave_one_connection_and_nothing_else() {
    let stack = Stack::shared();
    let notifier = one_each(&stack, |_| {}).await;
    let mut client = stack.client(&notifier, "ann").await;
    // Once around before, so that what is made once is made.
    let first = std::mem::replace(&mut client, stack.client(&notifier, "ann").await);
    drop(first);
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    let before = settled_footprint(None).await;
    for n in 0..200 {
        let new = stack.client(&notifier, "ann").await;
        let mut old = std::mem::replace(&mut client, new);
        // Some leave in order, some are told to, some vanish.
        match n % 3 {
            0 => assert_eq!(old.closed().await, Some((4500, "replaced".into()))),
            1 => drop(old.socket().close(None).await),
            _ => drop(old),
        }
    }
    metric_becomes(&notifier, CONNECTIONS, 1).await;
    let after = settled_footprint(Some(before)).await;
    assert_eq!(after, before, "open files and tasks");
    publish_note(&stack, 1).await;
    assert_eq!(client.next().await["data"], 1);
    notifier.stop().await;
}

/// Waits until the footprint is as wanted, or stays the same for a while; what was asked by HTTP
/// before may still be on its way out.
pub(crate) async fn settled_footprint(wants: Option<(usize, usize)>) -> (usize, usize) {
    let settle = async {
        let mut last = footprint();
        let mut same = 0;
        while same < 20 && wants != Some(last) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let now = footprint();
            same = if now == last && wants.is_none() {
                same + 1
            } else {
                0
            };
            last = now;
        }
    };
    drop(timeout(PATIENCE, settle).await);
    footprint()
}

#[tokio::test]
async fn each_device_of_a_user_gets_each_event_and_one_more_replaces_the_oldest() {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.connections_per_user = 3;
    let notifier = stack.notifier(config).await;
    let mut devices: Vec<Client> = Vec::new();
    for _ in 0..3 {
        devices.push(stack.client(&notifier, "ann").await);
    }
    publish_note(&stack, 1).await;
    for device in &mut devices {
        assert_eq!(device.next().await["data"], 1);
    }
    let mut oldest = devices.remove(0);
    devices.push(stack.client(&notifier, "ann").await);
    assert_eq!(oldest.closed().await, Some((4500, "replaced".into())));
    // One leaves; the others stay.
    drop(devices.remove(0));
    drop(oldest);
    metric_becomes(&notifier, CONNECTIONS, 2).await;
    publish_note(&stack, 2).await;
    for device in &mut devices {
        assert_eq!(device.next().await["data"], 2);
    }
    notifier.stop().await;
}
