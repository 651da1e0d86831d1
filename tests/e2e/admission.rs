//! How many connections there may be, in all and from one address, and who counts as whom.

use bellhop_notifier::NotifierConfig;
use bellhop_tests::client::{Client, metric, metric_becomes, request};
use bellhop_tests::stack::{Running, Stack, token};

use crate::handshake::refused;

async fn notifier(change: impl FnOnce(&mut NotifierConfig)) -> (Stack, Running) {
    let stack = Stack::shared();
    let mut config = stack.notifier_config();
    change(&mut config);
    let notifier = stack.notifier(config).await;
    (stack, notifier)
}

/// Connects as if by a proxy that says who it was.
async fn connect_for(notifier: &Running, forwarded: &str) -> Client {
    let bearer = format!("Bearer {}", token("ann"));
    let headers = [("authorization", &*bearer), ("x-forwarded-for", forwarded)];
    let request = request(notifier.address, "/ws", &headers);
    let mut client = Client::open(request).await.unwrap().0;
    client.next_of("connected").await;
    client
}

/// Answers with the error's code.
async fn refused_for(notifier: &Running, forwarded: &str) -> String {
    let bearer = format!("Bearer {}", token("ann"));
    let headers = [("authorization", &*bearer), ("x-forwarded-for", forwarded)];
    let (status, body, headers) = refused(notifier, "/ws", &headers).await;
    assert_eq!(status, 429);
    assert!(headers.contains("retry-after"), "{headers}");
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_full_instance_says_so_until_one_leaves() {
    let (stack, notifier) = notifier(|config| config.websocket.connections = 2).await;
    let ann = stack.client(&notifier, "ann").await;
    // Who has not logged in yet has a place as well.
    let nobody = Client::open(request(notifier.address, "/ws", &[])).await;
    for _ in 0..3 {
        let (status, body, headers) = refused(&notifier, "/ws", &[]).await;
        assert_eq!(status, 503);
        assert_eq!(body["error"]["code"], "too_many_connections");
        assert!(headers.contains(r#""retry-after": "5""#), "{headers}");
    }
    let refused = r#"bellhop_notifier_refused_handshakes_total{reason="too_many_connections"}"#;
    assert_eq!(metric(&notifier, refused).await, 3);
    drop(ann);
    metric_becomes(&notifier, "bellhop_notifier_connections", 1).await;
    stack.client(&notifier, "bob").await;
    drop(nobody);
    notifier.stop().await;
}

/// A refused handshake gives its place back, however it is refused.
#[tokio::test]
async fn who_is_refused_takes_no_place() {
    let (stack, notifier) = notifier(|config| {
        config.websocket.connections = 2;
        config.websocket.connections_per_address = 2;
    })
    .await;
    for _ in 0..5 {
        let bad = [("authorization", "Bearer no-token")];
        assert_eq!(refused(&notifier, "/ws", &bad).await.0, 401);
        assert_eq!(refused(&notifier, "/ws?room_id=", &[]).await.0, 400);
        let old = [("sec-websocket-version", "8")];
        assert_eq!(refused(&notifier, "/ws", &old).await.0, 426);
    }
    stack.client(&notifier, "ann").await;
    stack.client(&notifier, "bob").await;
    notifier.stop().await;
}

#[tokio::test]
async fn without_a_trusted_proxy_only_the_peers_own_address_counts() {
    let (_stack, notifier) = notifier(|config| {
        config.websocket.connections_per_address = 2;
    })
    .await;
    let _one = connect_for(&notifier, "192.0.2.1").await;
    let _two = connect_for(&notifier, "192.0.2.2").await;
    let code = refused_for(&notifier, "192.0.2.3").await;
    assert_eq!(code, "too_many_from_address");
    notifier.stop().await;
}

#[tokio::test]
async fn behind_trusted_proxies_the_last_address_that_is_none_of_them_counts() {
    let (_stack, notifier) = notifier(|config| {
        config.websocket.connections_per_address = 1;
        let proxies = ["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32"];
        config.http.trusted_proxies = proxies.map(|it| it.parse().unwrap()).into();
    })
    .await;
    let _one = connect_for(&notifier, "192.0.2.1").await;
    let _two = connect_for(&notifier, "192.0.2.2, 10.1.2.3").await;
    let _six = connect_for(&notifier, "2001:db9::1").await;
    for same in [
        "192.0.2.1",
        "198.51.100.7, 192.0.2.2",
        "10.9.9.9,192.0.2.1 , 10.0.0.1",
        "2001:db9::1, 2001:db8::5",
    ] {
        assert_eq!(refused_for(&notifier, same).await, "too_many_from_address");
    }
    let _three = connect_for(&notifier, "192.0.2.1, 192.0.2.3").await;
    notifier.stop().await;
}
