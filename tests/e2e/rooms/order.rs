//! In which order the members of a room see what is said there.

use bellhop_notifier::Access;
use bellhop_tests::client::Client;
use bellhop_tests::stack::{Running, Stack};
use serde_json::json;
use tokio::sync::Semaphore;

use super::{member, say};

const FRAMES: u64 = 500;

/// How many of a sender's frames are under way at most; a lane of the notifier holds 128.
const AT_ONCE: usize = 40;

type Seen = Vec<(String, u64)>;

async fn pair(stack: &Stack) -> (Running, Running) {
    let config = |name: &str| {
        let mut config = stack.shared_config();
        config.instance = Some(name.into());
        config.rooms.access = Access::Open;
        config.websocket.frames_per_second = 10_000;
        config
    };
    let one = stack.notifier(config("one")).await;
    let two = stack.notifier(config("two")).await;
    (one, two)
}

async fn enter(notifier: &Running, user: &str) -> Client {
    let mut client = member(notifier, user, &[]).await;
    let join = json!({"type": "join_room", "room_id": "r"});
    assert_eq!(say(&mut client, join).await["type"], "subscribed");
    client
}

/// Reads all frames of both; a sender sends its own meanwhile.
async fn take_part(mut client: Client, sends: Option<&str>) -> Seen {
    let mut seen = Seen::new();
    let budget = Semaphore::new(AT_ONCE);
    let mut next = 0;
    while seen.len() < 2 * usize::try_from(FRAMES).unwrap() {
        while sends.is_some()
            && next < FRAMES
            && let Ok(permit) = budget.try_acquire()
        {
            permit.forget();
            let frame = json!({"type": "line", "payload": next}).to_string();
            client.send(&frame).await;
            next += 1;
        }
        let frame = client.next_of("line").await;
        let from = frame["from"].as_str().unwrap().to_owned();
        if sends == Some(&*from) {
            budget.add_permits(1);
        }
        seen.push((from, frame["payload"].as_u64().unwrap()));
    }
    seen
}

async fn conversation(first: &Running, second: &Running) -> [Seen; 4] {
    let (ann, bob) = (enter(first, "ann").await, enter(second, "bob").await);
    let (cid, dee) = (enter(first, "cid").await, enter(second, "dee").await);
    let all = tokio::join!(
        take_part(ann, Some("ann")),
        take_part(bob, Some("bob")),
        take_part(cid, None),
        take_part(dee, None),
    );
    all.into()
}

/// Each sender's frames are seen in the order they were sent.
fn each_in_order(seen: &Seen) {
    for sender in ["ann", "bob"] {
        let of_sender = seen.iter().filter(|(from, _)| from == sender);
        let numbers: Vec<u64> = of_sender.map(|(_, number)| *number).collect();
        assert!(
            numbers.iter().copied().eq(0..FRAMES),
            "{sender}: {numbers:?}"
        );
    }
}

/// All see the same.
fn agree(seen: &[&Seen]) {
    for other in seen {
        let differ = seen[0].iter().zip(*other).position(|(one, two)| one != two);
        assert_eq!(
            differ, None,
            "two members saw another order from this frame on"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_by_one_instance_is_seen_in_one_order_on_all() {
    let stack = Stack::shared();
    let (one, two) = pair(&stack).await;
    let (ann, bob) = (enter(&one, "ann").await, enter(&one, "bob").await);
    let (cid, dee) = (enter(&one, "cid").await, enter(&two, "dee").await);
    let all = tokio::join!(
        take_part(ann, Some("ann")),
        take_part(bob, Some("bob")),
        take_part(cid, None),
        take_part(dee, None),
    );
    let (ann, bob, cid, dee) = all;
    each_in_order(&ann);
    agree(&[&ann, &bob, &cid, &dee]);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_by_two_instances_keeps_each_senders_order_and_one_on_each() {
    let stack = Stack::shared();
    let (one, two) = pair(&stack).await;
    let [ann, bob, cid, dee] = conversation(&one, &two).await;
    for seen in [&ann, &bob] {
        each_in_order(seen);
    }
    // RabbitMQ promises no order between the queues of two instances.
    agree(&[&ann, &cid]);
    agree(&[&bob, &dee]);
    one.stop().await;
    two.stop().await;
}
