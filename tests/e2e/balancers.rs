//! Several notifiers behind nginx and `HAProxy`, with the files in `deploy`.

mod crowd;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bellhop_common::config::{HumanDuration, Secret};
use bellhop_tests::balancer::{Balancer, Kind};
use bellhop_tests::broker::free_port;
use bellhop_tests::program::Program;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::{PATIENCE, Stack, http};
use futures_util::StreamExt as _;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use self::crowd::{Connection, Crowd, Way};

/// A notifier that moves its clients elsewhere in a second or two.
fn start(stack: &Stack, port: u16, name: &str) -> Program {
    let config = stack.shared_config();
    let url = config.store.url.as_ref().unwrap().expose();
    let settings = [
        "store.kind=redis".to_owned(),
        format!("store.url={url}"),
        format!("store.prefix={}", stack.prefix),
        "websocket.drain_window=500ms".to_owned(),
        "shutdown.deadline=2s".to_owned(),
        format!("instance={name}"),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    Program::start_on(port, "notifier", stack, &settings)
}

/// Waits until new clients come to an instance, as seen by one that comes from ever new addresses.
async fn leads_to(balancer: &Balancer, instance: &str) {
    let asking = async {
        for number in (100..200).cycle() {
            let mut way = Way::of(number, balancer.address);
            if way.instance().await == instance {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let asked = timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "nobody comes to {instance}");
}

/// Clients come, one notifier is stopped and started again, the other is killed: nobody misses or
/// sees twice what was stored, and nobody is ever refused.
async fn both_are_replaced(kind: Kind, is_sticky: bool) {
    let stack = Stack::shared();
    let ports = [free_port(), free_port()];
    let mut one = start(&stack, ports[0], "one");
    let mut two = start(&stack, ports[1], "two");
    one.wait_ready().await;
    two.wait_ready().await;
    let balancer = Balancer::start(kind, ports, is_sticky, &[]).await;
    for instance in ["one", "two"] {
        leads_to(&balancer, instance).await;
    }
    if is_sticky {
        stays_where_it_was(&balancer).await;
    }
    let mut crowd = Crowd::start(&stack, balancer.address).await;
    let instances: BTreeSet<_> = crowd
        .logs
        .iter()
        .filter_map(|log| log.at.as_deref())
        .collect();
    assert_eq!(instances, ["one", "two"].into(), "clients on both");
    crowd.sees_everything_once().await;

    one.signal(Signal::TERM);
    let status = crowd.store_during(one.ended()).await;
    assert!(status.success(), "{status}");
    crowd.has_left("one").await;
    let again = start(&stack, ports[0], "one-again");
    crowd.store_during(again.wait_ready()).await;
    leads_to(&balancer, "one-again").await;
    crowd.sees_everything_once().await;

    two.signal(Signal::KILL);
    crowd.store_during(two.ended()).await;
    crowd.has_left("two").await;
    let again = start(&stack, ports[1], "two-again");
    crowd.store_during(again.wait_ready()).await;
    leads_to(&balancer, "two-again").await;
    crowd.sees_everything_once().await;
}

async fn stays_where_it_was(balancer: &Balancer) {
    for number in 50..60 {
        let mut way = Way::of(number, balancer.address);
        let first = way.instance().await;
        for _ in 0..3 {
            assert_eq!(way.instance().await, first);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_leads_clients_to_a_notifier_that_is_there() {
    both_are_replaced(Kind::Nginx, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_nginx_leads_clients_to_a_notifier_that_is_there() {
    both_are_replaced(Kind::Nginx, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn haproxy_leads_clients_to_a_notifier_that_is_there() {
    both_are_replaced(Kind::Haproxy, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sticky_haproxy_leads_clients_to_a_notifier_that_is_there() {
    both_are_replaced(Kind::Haproxy, true).await;
}

#[tokio::test]
async fn addresses_of_clients_are_known_behind_nginx() {
    addresses_are_known(Kind::Nginx).await;
}

#[tokio::test]
async fn addresses_of_clients_are_known_behind_haproxy() {
    addresses_are_known(Kind::Haproxy).await;
}

/// Whatever clients say of themselves.
async fn addresses_are_known(kind: Kind) {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.connections_per_address = 2;
    config.http.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    let notifier = stack.notifier(config).await;
    let port = notifier.address.port();
    let balancer = Balancer::start(kind, [port, port], false, &[]).await;
    let mut connections = Vec::new();
    for (number, address) in [(10, "10.0.0.1"), (11, "10.0.0.1"), (12, "10.0.0.1")] {
        for count in 1..=3 {
            let mut way = Way::of(number, balancer.address);
            let claim = format!("{address}, 10.0.0.{count}");
            match way.open("", &[("x-forwarded-for", claim)]).await {
                Ok(connection) => connections.push(connection),
                Err(why) => assert!(why.contains("429") && count == 3, "{count}: {why}"),
            }
        }
    }
    assert_eq!(connections.len(), 6, "two from each address");
    for path in ["metrics", "readyz"] {
        let url = format!("http://{}/{path}", balancer.address);
        let answer = http().get(url).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path} is not for strangers");
    }
    drop(connections);
    notifier.stop().await;
}

#[tokio::test]
async fn haproxy_lets_new_clients_in_while_the_shared_store_is_away() {
    let mut redis = OwnRedis::started().await;
    let stack = Stack::shared();
    let mut config = stack.shared_config();
    config.store.url = Some(Secret::new(redis.url()));
    let notifier = stack.notifier(config).await;
    let port = notifier.address.port();
    let balancer = Balancer::start(Kind::Haproxy, [port, port], false, &[]).await;
    redis.kill();
    notifier.wait_ready(false).await;
    let ready = async |query: &str| {
        let url = format!("http://{}/readyz{query}", notifier.address);
        http().get(url).send().await.unwrap().status().as_u16()
    };
    assert_eq!(
        ready("?exclude=store.writes&exclude=store.reads").await,
        200
    );
    assert_eq!(ready("?exclude=store.write").await, 503);
    // It looks every second, and twice before it believes a no.
    let looked = Instant::now() + Duration::from_secs(4);
    for number in (0..100).cycle() {
        let mut way = Way::of(number, balancer.address);
        assert!(!way.instance().await.is_empty());
        sleep(Duration::from_millis(20)).await;
        if Instant::now() > looked {
            break;
        }
    }
    notifier.stop().await;
}

#[tokio::test]
async fn idle_connections_outlive_the_timeouts_of_nginx() {
    idle_connections_stay(Kind::Nginx).await;
}

#[tokio::test]
async fn idle_connections_outlive_the_timeouts_of_haproxy() {
    idle_connections_stay(Kind::Haproxy).await;
}

/// With all times a ninetieth of what they are.
async fn idle_connections_stay(kind: Kind) {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    config.websocket.ping_interval = HumanDuration(Duration::from_millis(330));
    let notifier = stack.notifier(config).await;
    let port = notifier.address.port();
    let balancer = Balancer::start(kind, [port, port], false, &[("90s", "1s")]).await;
    for number in [0, 10] {
        let mut way = Way::of(number, balancer.address);
        let mut connection = way.open("", &[]).await.unwrap();
        connection.next().await.expect("the first frame");
        for _ in 0..10 {
            match &mut connection {
                Connection::Sse(stream) => stream.comment().await,
                Connection::WebSocket(client) => {
                    let next = timeout(PATIENCE, client.socket().next()).await.unwrap();
                    assert!(matches!(next, Some(Ok(Message::Ping(_)))), "{next:?}");
                }
            }
        }
    }
    notifier.stop().await;
}
