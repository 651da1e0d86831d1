//! What a cluster of three primaries does that nobody touches.

use std::sync::Arc;

use super::nodes::{Cluster, free_port};
use super::server::{Server, store_at};
use super::warnings::warnings;
use super::*;
use crate::store::conformance::conforms;

async fn fresh() -> (SharedStore, Arc<Cluster>) {
    let cluster = Cluster::shared().await;
    (Arc::new(cluster.store()), cluster)
}

conforms!(one test, fresh);

fn users(count: usize) -> Vec<StreamName> {
    (0..count)
        .map(|n| StreamName::user(&format!("u{n}")))
        .collect()
}

/// A batch with so many events of each of these users.
fn of_each(users: &[StreamName], count: usize) -> Vec<NewEvent> {
    let mut batch = Vec::new();
    for n in 0..count {
        for user in users {
            let mut event = events(1).remove(0);
            event.stream = user.clone();
            event.body = format!("{user} {n}").into();
            batch.push(event);
        }
    }
    batch
}

#[tokio::test]
async fn streams_are_on_all_primaries_and_each_has_its_events_in_order() {
    let cluster = Cluster::shared().await;
    let store = cluster.store();
    let users = users(60);
    let batch = of_each(&users, 3);
    let kept = store.append(&batch, Timestamp::now()).await.unwrap();
    let seqs: Vec<_> = kept.iter().map(|kept| kept.position.seq).collect();
    let wanted: Vec<_> = [[1; 60], [2; 60], [3; 60]].concat();
    assert_eq!(seqs, wanted, "as the batch was");
    let again = store.append(&batch, Timestamp::now()).await.unwrap();
    assert!(again.iter().all(|kept| !kept.is_new));

    let heads = store.heads(&users).await.unwrap();
    assert!(heads.iter().all(|head| head.last == 3 && head.unread == 3));
    let mut places = [0; 3];
    for (user, head) in users.iter().zip(heads) {
        let found = store.read(user, 0, 9, usize::MAX).await.unwrap();
        let bodies: Vec<_> = found.iter().map(|entry| entry.body.clone()).collect();
        assert_eq!(
            bodies,
            (0..3).map(|n| format!("{user} {n}")).collect::<Vec<_>>()
        );
        let place = cluster.place_of(&store.slot(user).key("meta"));
        places[place] += 1;
        let meta = format!("HGET {} epoch", store.slot(user).key("meta"));
        let epoch: u64 = cluster.nodes[place].ask(&meta).await;
        assert_eq!(Epoch::new(epoch), head.epoch);
    }
    assert!(places.iter().all(|count| *count > 0), "{places:?}");

    // All are noted, wherever the list is.
    let day = jiff::SignedDuration::from_hours(24);
    let mut swept = 0;
    loop {
        let some = store.sweep(Timestamp::now() + day * 2).await.unwrap();
        swept += some.events;
        if !some.more {
            break;
        }
    }
    assert_eq!(swept, 180);
}

#[tokio::test]
async fn one_server_is_enough_to_find_them_all_and_a_script_is_brought_to_each() {
    let cluster = Cluster::shared().await;
    let store = store_at(&cluster.nodes[1].url());
    let users = users(30);
    for turn in 1..=2 {
        let kept = store.append(&of_each(&users, 1), Timestamp::now()).await;
        assert!(kept.unwrap().iter().all(|kept| kept.position.seq == turn));
        cluster.nodes[2].ask::<()>("SCRIPT FLUSH").await;
    }
    assert!(
        store
            .heads(&users)
            .await
            .unwrap()
            .iter()
            .all(|head| head.last == 2)
    );
}

#[tokio::test]
async fn who_is_connected_elsewhere_is_known() {
    let cluster = Cluster::shared().await;
    let store = cluster.store();
    let now = Timestamp::now();
    let stays = Duration::from_mins(1);
    let instances: Vec<_> = (0..6).map(|_| Uuid::new_v4()).collect();
    for (number, instance) in instances.iter().enumerate() {
        let id = Uuid::new_v4();
        let connected = Connected {
            user_id: "ann".into(),
            since: now,
            instance: number.to_string(),
            rooms: Vec::new(),
            chats: Vec::new(),
        };
        let all = Connections {
            connections: vec![(id, connected)],
            gone: Vec::new(),
            users: vec![("ann".into(), vec![id])],
        };
        let put = store.put_all_connections(*instance, all, now, stays);
        put.await.unwrap();
    }
    let elsewhere = async |but| store.connections_elsewhere("ann", but).await.unwrap();
    assert_eq!(elsewhere(instances[0]).await, 5);
    for user in [Some("ann"), None] {
        let found = store.connected_elsewhere(user, instances[0], 9).await;
        let mut found: Vec<_> = found
            .unwrap()
            .into_iter()
            .map(|(_, row)| row.instance)
            .collect();
        found.sort();
        assert_eq!(found, ["1", "2", "3", "4", "5"], "{user:?}");
    }
    store.forget_connections(instances[5]).await.unwrap();
    assert_eq!(elsewhere(instances[0]).await, 4);
}

#[tokio::test]
async fn a_user_with_the_rights_of_the_manual_is_let_in_everywhere() {
    let cluster = Cluster::shared().await;
    let mut urls = Vec::new();
    for node in &cluster.nodes {
        let rights = "~b:* +@all -@dangerous +info +cluster|slots";
        let allow = format!("ACL SETUSER bellhop reset on >sec,ret {rights}");
        node.ask::<()>(&allow).await;
        urls.push(format!("redis://bellhop:sec,ret@127.0.0.1:{}", node.port));
    }
    let store = Redis::open(&urls.join(","), "b:", RETENTION).unwrap();
    let users = users(30);
    store
        .append(&of_each(&users, 1), Timestamp::now())
        .await
        .unwrap();
    while store.sweep(Timestamp::now()).await.unwrap().more {}
    assert_eq!(store.heads(&users).await.unwrap().len(), 30);
    assert!(!format!("{store:?}").contains("sec,ret"));

    let wrong = urls.join(",").replace("ret@", "rat@");
    let store = Redis::open(&wrong, "b:", RETENTION).unwrap();
    let error = store.heads(&users).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    assert!(!format!("{error:?} {error}").contains("sec,rat"));
}

#[tokio::test]
async fn a_server_that_may_throw_keys_away_is_warned_of_by_name() {
    let cluster = Cluster::shared().await;
    let policy = |name: &str| format!("CONFIG SET maxmemory-policy {name}");
    let (warned, _guard) = warnings();
    let odd = &cluster.nodes[2];
    odd.ask::<()>(&policy("allkeys-lru")).await;
    keep(&cluster.store(), 1).await.unwrap();
    odd.ask::<()>(&policy("noeviction")).await;
    keep(&cluster.store(), 1).await.unwrap();
    let warned = warned.lock().unwrap();
    let place = format!("127.0.0.1:{}", odd.port);
    let warned: Vec<_> = warned
        .iter()
        .filter(|text| text.contains("maxmemory-policy"))
        .collect();
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains(&place), "{warned:?}");
}

#[tokio::test]
async fn what_cannot_lead_to_a_cluster_is_refused_with_the_way_out() {
    let cluster = Cluster::shared().await;
    let error = keep(&cluster.nodes[0].server.store(), 1).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unfit(what) if what.contains("store.url")),
        "{error:?}"
    );

    let port = free_port().to_string();
    let alone = Server::start(&["--port", &port]).await;
    let urls = format!("redis://127.0.0.1:{port},redis://localhost:{port}");
    let error = keep(&store_at(&urls), 1).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unfit(what) if what.contains(&port)),
        "{error:?}"
    );
    drop(alone);
    for urls in [
        "redis://:a@h:1,redis://:b@h:2",
        "redis://h:1,rediss://h:2",
        "redis://h:1,unix:///a",
        "redis://h:1,",
    ] {
        let error = Redis::open(urls, "", RETENTION).unwrap_err();
        assert!(matches!(error, StoreError::Url(_)), "{urls}: {error:?}");
    }
}
