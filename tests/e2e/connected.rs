//! Who is connected, over all instances that share a store.

use std::time::Duration;

use bellhop_notifier::{NotifierConfig, StoreKind};
use bellhop_tests::client::Client;
use bellhop_tests::program::Program;
use bellhop_tests::redis::OwnRedis;
use bellhop_tests::stack::{PATIENCE, Stack, admin_token, http, room_token, scoped_token, token};
use jiff::{Timestamp, ToSpan as _};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::time::{sleep, timeout};

async fn ask(at: SocketAddr, path: &str, token: &str) -> (u16, Value) {
    let url = format!("http://{at}{path}");
    let answer = http().get(url).bearer_auth(token).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// Waits until ann, as seen from here, has so many connections.
async fn has(at: SocketAddr, connections: u64) {
    let wants = json!({"online": connections > 0, "connections": connections});
    let shop = scoped_token("shop", "publish");
    let mut last = Value::Null;
    let asking = async {
        while last != wants {
            sleep(Duration::from_millis(20)).await;
            last = ask(at, "/api/users/ann/presence", &shop).await.1;
        }
    };
    let asked = timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "{connections} are wanted, there are {last}");
}

async fn list(at: SocketAddr, query: &str) -> (Vec<Value>, bool) {
    let path = format!("/api/connections{query}");
    let (status, mut answer) = ask(at, &path, &admin_token("boss")).await;
    assert_eq!(status, 200, "{answer}");
    let rows = serde_json::from_value(answer["connections"].take()).unwrap();
    (rows, answer["more"] == true)
}

fn named(stack: &Stack, name: &str) -> NotifierConfig {
    let mut config = stack.shared_config();
    config.instance = Some(name.into());
    config
}

#[tokio::test]
async fn a_user_is_online_anywhere_until_the_last_connection_goes() {
    let stack = Stack::shared();
    let one = stack.notifier(named(&stack, "one")).await;
    let two = stack.notifier(named(&stack, "two")).await;
    has(one.address, 0).await;
    let at_two = stack.client(&two, "ann").await;
    let (here, there) = (one.address, two.address);
    has(there, 1).await;
    has(here, 1).await;
    let at_one = stack.client(&one, "ann").await;
    let again_at_one = stack.client(&one, "ann").await;
    has(there, 3).await;
    has(here, 3).await;
    drop(again_at_one);
    at_two.close().await;
    has(there, 1).await;
    has(here, 1).await;
    // A stopped instance has nobody, whoever was there.
    drop(at_one);
    one.stop().await;
    has(there, 0).await;
    two.stop().await;
}

#[tokio::test]
async fn administrators_see_where_everybody_is() {
    let stack = Stack::shared();
    let one = stack.notifier(named(&stack, "one")).await;
    let two = stack.notifier(named(&stack, "two")).await;
    let began = Timestamp::now();
    let mut ann = Client::connect(two.address, &room_token("ann", &["*"])).await;
    let id = ann.next_of("connected").await["connection_id"].clone();
    for place in [json!({"room_id": "r"}), json!({"chat_id": "c"})] {
        let mut frame = place;
        frame["type"] = json!("subscribe");
        ann.send(&frame.to_string()).await;
        ann.next_of("subscribed").await;
    }
    let _bob = stack.client(&one, "bob").await;
    let _cat = stack.client(&two, "cat").await;
    for at in [one.address, two.address] {
        let is_known = async {
            loop {
                let (rows, _) = list(at, "?user=ann").await;
                if rows.first().is_some_and(|row| row["chats"] == json!(["c"])) {
                    return rows;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let rows = timeout(PATIENCE, is_known).await.expect("ann is known");
        let since: Timestamp = rows[0]["since"].as_str().unwrap().parse().unwrap();
        assert!(since > began - 2.seconds() && since < Timestamp::now() + 2.seconds());
        let wants = json!([{"connection_id": id, "user_id": "ann", "instance": "two",
            "since": rows[0]["since"], "rooms": ["r"], "chats": ["c"]}]);
        assert_eq!(json!(rows), wants);
        let all = async {
            while list(at, "").await.0.len() < 3 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, all).await.expect("all are known");
        let (rows, more) = list(at, "?limit=3").await;
        let mut users: Vec<_> = rows.iter().map(|row| row["user_id"].as_str()).collect();
        users.sort_unstable();
        assert_eq!((users.len(), more), (3, false));
        assert_eq!(users, [Some("ann"), Some("bob"), Some("cat")]);
        let (rows, more) = list(at, "?limit=2").await;
        assert_eq!((rows.len(), more), (2, true));
        assert_eq!(list(at, "?user=eve").await, (Vec::new(), false));
    }
    two.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn who_was_at_a_killed_instance_is_offline_when_it_is_forgotten() {
    let stack = Stack::shared();
    let one = stack.notifier(named(&stack, "one")).await;
    let config = stack.shared_config();
    let url = config.store.url.as_ref().unwrap().expose();
    let settings = [
        "store.kind=redis".to_owned(),
        format!("store.url={url}"),
        format!("store.prefix={}", stack.prefix),
        "store.forget_after=1s".to_owned(),
    ];
    let settings: Vec<_> = settings.iter().map(String::as_str).collect();
    let mut two = Program::start("notifier", &stack, &settings).await;
    let at_two = SocketAddr::from(([127, 0, 0, 1], two.port));
    let mut ann = Client::connect(at_two, &token("ann")).await;
    ann.next_of("connected").await;
    has(one.address, 1).await;
    // It goes on saying so: three signs of life and more.
    let end = tokio::time::Instant::now() + Duration::from_millis(1500);
    while tokio::time::Instant::now() < end {
        has(one.address, 1).await;
        sleep(Duration::from_millis(100)).await;
    }
    two.signal(Signal::KILL);
    two.ended().await;
    has(one.address, 0).await;
    assert_eq!(list(one.address, "").await, (Vec::new(), false));
    one.stop().await;
}

#[tokio::test]
async fn a_redis_that_forgot_is_told_again() {
    let stack = Stack::shared();
    let mut redis = OwnRedis::started().await;
    let config = |name, url: String| {
        let mut config = named(&stack, name);
        config.store.url = Some(bellhop_common::config::Secret::new(url));
        config.store.forget_after.0 = Duration::from_secs(1);
        config
    };
    let one = stack.notifier(config("one", redis.url())).await;
    let two = stack.notifier(config("two", redis.url())).await;
    let _ann = stack.client(&two, "ann").await;
    has(one.address, 1).await;
    redis.kill();
    let (status, answer) = ask(one.address, "/api/users/ann/presence", &token("ann")).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (503, &json!("store_unavailable"))
    );
    let redis = OwnRedis::started_instead_of(redis).await;
    has(one.address, 1).await;
    two.stop().await;
    one.stop().await;
    drop(redis);
}

#[tokio::test]
async fn an_instance_alone_knows_its_own() {
    for kind in [StoreKind::Sqlite, StoreKind::None] {
        let stack = Stack::shared();
        let mut config = stack.notifier_config();
        config.store.kind = kind;
        let notifier = stack.notifier(config).await;
        let at = notifier.address;
        has(at, 0).await;
        let ann = stack.client(&notifier, "ann").await;
        has(at, 1).await;
        let (rows, more) = list(at, "?user=ann").await;
        assert_eq!((&rows[0]["instance"], more), (&json!("test"), false));
        ann.close().await;
        has(at, 0).await;
        notifier.stop().await;
    }
}

#[tokio::test]
async fn who_is_connected_is_not_for_everybody() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let (ann, shop, boss) = (
        token("ann"),
        scoped_token("shop", "publish"),
        admin_token("boss"),
    );
    let own = "/api/users/ann/presence";
    for (path, token, status, code) in [
        (own, &ann, 200, None),
        (own, &shop, 200, None),
        (own, &boss, 200, None),
        (own, &token("eve"), 403, Some("forbidden")),
        (own, &String::new(), 401, Some("no_token")),
        ("/api/users/%zz/presence", &boss, 400, Some("bad_id")),
        ("/api/connections", &boss, 200, None),
        ("/api/connections", &shop, 403, Some("not_admin")),
        ("/api/connections", &ann, 403, Some("not_admin")),
        ("/api/connections?limit=0", &boss, 400, Some("bad_query")),
        ("/api/connections?limit=1001", &boss, 400, Some("bad_query")),
        ("/api/connections?x=1", &boss, 400, Some("bad_query")),
    ] {
        let (found, answer) = ask(notifier.address, path, token).await;
        assert_eq!(
            (found, answer["error"]["code"].as_str()),
            (status, code),
            "{path}"
        );
    }
    notifier.stop().await;
}
