//! The shared store on a Redis Cluster: streams lie on several servers, and nobody notices.

use bellhop_common::config::Secret;
use bellhop_tests::client::Client;
use bellhop_tests::redis_cluster::RedisCluster;
use bellhop_tests::stack::{Stack, token};

use super::{cursor, event, notes, open};

/// How many users there are, so that each server has some.
const USERS: usize = 20;

fn user(number: usize) -> String {
    format!("u{number}")
}

#[tokio::test]
async fn each_user_is_shown_his_own_in_order_on_either_notifier() {
    let cluster = RedisCluster::starting();
    let stack = Stack::shared();
    let mut notifiers = Vec::new();
    for instance in ["one", "two"] {
        let mut config = stack.shared_config();
        config.store.url = Some(Secret::new(cluster.urls()));
        config.instance = Some(instance.into());
        notifiers.push(stack.notifier(config).await);
    }
    let rabbit = stack.rabbit().await;
    let publish = async |numbers: std::ops::RangeInclusive<u64>| {
        for number in numbers {
            for to in (0..USERS).map(user) {
                let (_, body) = event("note", &number.into());
                let key = format!("stored.user.{to}.note");
                rabbit.publish("events", &key, body).await;
            }
        }
    };
    let mut clients = Vec::new();
    for number in 0..USERS {
        let address = notifiers[number % 2].address;
        let mut client = Client::connect(address, &token(&user(number))).await;
        client.next_of("connected").await;
        clients.push(client);
    }
    publish(1..=4).await;
    let mut last = Vec::new();
    for client in &mut clients {
        assert_eq!(notes(client, 3).await, [1, 2, 3]);
        let frame = client.next_of("note").await;
        assert_eq!((&frame["seq"], &frame["unread"]), (&4.into(), &4.into()));
        last.push(frame);
    }
    drop(clients);

    publish(5..=7).await;
    for (number, last) in last.iter().enumerate() {
        // At the other one.
        let notifier = &notifiers[(number + 1) % 2];
        let since = format!("/ws?since={}", cursor("user", last));
        let mut client = open(notifier, &since, &token(&user(number))).await;
        assert_eq!(notes(&mut client, 3).await, [5, 6, 7]);
    }
    let keys = cluster.keys();
    assert!(keys.iter().all(|count| *count > 0), "{keys:?}");
    for notifier in notifiers {
        notifier.stop().await;
    }
    assert_eq!(rabbit.ready("inbox").await, 0);
}
