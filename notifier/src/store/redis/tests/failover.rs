//! A primary that is gone, and its replica that takes over.

use std::time::Instant;

use super::nodes::{Cluster, Node};
use super::server::store_at;
use super::*;

/// Soon, for a test.
const OPTIONS: [&str; 6] = [
    "--cluster-node-timeout",
    "1000",
    "--cluster-replica-validity-factor",
    "0",
    "--repl-diskless-sync-delay",
    "0",
];

/// How long a failover may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Three primaries, and a replica of the one that has Ann's stream, whose place this is.
async fn cluster() -> (Cluster, usize) {
    let mut cluster = Cluster::start(3, &OPTIONS).await;
    let place = cluster.place_of("{user:ann}");
    cluster.add_replica(place, &OPTIONS).await;
    (cluster, place)
}

async fn keep_and_copy(store: &Redis, batch: &[NewEvent], primary: &Node) -> Head {
    store.append(batch, Timestamp::now()).await.unwrap();
    // `WAIT` is for what was written before on the same connection, and so for what came before that.
    let mut written = redis::pipe();
    written.set("{user:ann}", "").ignore();
    written.cmd("WAIT").arg(1).arg(10_000);
    let mut connection = primary.server.connection().await.unwrap();
    let copied: (u64,) = written.query_async(&mut connection).await.unwrap();
    assert_eq!(copied, (1,), "the replica has it");
    head(store).await
}

/// Tries until it is kept, as the writer does; how often it could not be.
async fn keep_at_last(store: &Redis, batch: &[NewEvent]) -> usize {
    let (begun, mut failed) = (Instant::now(), 0);
    while let Err(error) = store.append(batch, Timestamp::now()).await {
        assert!(begun.elapsed() < DEADLINE, "nobody takes over: {error:?}");
        failed += 1;
    }
    failed
}

/// All that was answered is there, in its order and once.
async fn has_all(store: &Redis, before: Head, sent: &[NewEvent]) {
    let after = head(store).await;
    let last = sent.len() as u64;
    assert_eq!((after.epoch, after.last), (before.epoch, last));
    let found = store.read(&ann(), 0, last, usize::MAX).await.unwrap();
    assert_eq!(found.len(), sent.len());
    let again = store.append(sent, Timestamp::now()).await.unwrap();
    let seqs: Vec<_> = again.iter().map(|kept| kept.position.seq).collect();
    assert_eq!(seqs, (1..=last).collect::<Vec<_>>());
    assert!(again.iter().all(|kept| !kept.is_new));
}

#[tokio::test]
async fn a_replica_takes_over_from_a_primary_that_dies() {
    let (mut cluster, place) = cluster().await;
    let mut store = cluster.store();
    let mut sent = events(3);
    let before = keep_and_copy(&store, &sent, &cluster.nodes[place]).await;
    let patience = store.link.patience;
    // Less than it takes.
    store.link.patience = Duration::from_millis(500);
    cluster.nodes[place].server.kill();
    let batch = events(3);
    let failed = keep_at_last(&store, &batch).await;
    assert!(failed > 0, "nobody has the slot for a while");
    store.link.patience = patience;
    sent.extend(batch);
    has_all(&store, before, &sent).await;
}

#[tokio::test]
async fn a_replica_takes_over_from_a_primary_that_hangs() {
    let (cluster, place) = cluster().await;
    let primary = &cluster.nodes[place];
    // The others are known from it, and found again without it.
    let store = store_at(&primary.url());
    let mut sent = events(3);
    let before = keep_and_copy(&store, &sent, primary).await;
    primary.server.signal(Signal::STOP);
    let batch = events(3);
    keep_at_last(&store, &batch).await;
    sent.extend(batch);
    has_all(&store, before, &sent).await;

    primary.server.signal(Signal::CONT);
    primary.server.says("INFO replication", "role:slave").await;
    let batch = events(3);
    keep_at_last(&store, &batch).await;
    sent.extend(batch);
    has_all(&store, before, &sent).await;
}

#[tokio::test]
async fn a_cluster_that_was_away_as_a_whole_is_found_again() {
    let mut cluster = Cluster::start(3, &[]).await;
    let store = store_at(&cluster.nodes[0].url());
    keep(&store, 1).await.unwrap();
    for node in &mut cluster.nodes {
        node.server.kill();
    }
    let error = keep(&store, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    // The one that is named comes last.
    for node in cluster.nodes.iter_mut().rev() {
        node.server.start_again().await;
    }
    let batch = events(1);
    keep_at_last(&store, &batch).await;
    assert_eq!(head(&store).await.last, 1, "they kept nothing");
}
