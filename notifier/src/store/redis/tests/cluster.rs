use std::sync::{Arc, Weak};

use tokio::sync::Mutex;

use super::server::Server;
use super::{ann, keep};
use crate::store::conformance::conforms;
use crate::store::{SharedStore, StoreError, StreamName};

/// A cluster takes two seconds before it begins, so there is one for all cases.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

async fn server() -> Arc<Server> {
    let mut shared = SHARED.lock().await;
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(Server::start_in_cluster(0..=16383).await.server);
    server.says("CLUSTER INFO", "cluster_state:ok").await;
    *shared = Arc::downgrade(&server);
    server
}

async fn fresh() -> (SharedStore, Arc<Server>) {
    let server = server().await;
    (Arc::new(server.store()), server)
}

conforms!(one test, fresh);

#[tokio::test]
async fn the_keys_of_a_stream_are_in_one_slot() {
    let server = server().await;
    let store = server.store();
    let odd: StreamName = "room:{a}b}{%".parse().unwrap();
    for stream in [ann(), odd] {
        let slot = store.slot(&stream);
        let mut slots = Vec::new();
        for key in [
            "meta", "events", "ids", "read", "archived", "tasks", "ranks", "ages",
        ] {
            let question = format!("CLUSTER KEYSLOT {}", slot.key(key));
            slots.push(server.ask::<u32>(&question).await.unwrap());
        }
        assert!(slots.iter().all(|slot| *slot == slots[0]), "{slots:?}");
    }
}

#[tokio::test]
async fn a_part_of_a_larger_cluster_is_refused() {
    let one = Server::start_in_cluster(0..=8000).await;
    let other = Server::start_in_cluster(8001..=16383).await;
    let meet = format!("CLUSTER MEET 127.0.0.1 {}", one.port);
    other.server.ask::<()>(&meet).await.unwrap();
    one.server.says("CLUSTER INFO", "cluster_size:2").await;
    let error = keep(&one.server.store(), 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Unfit(_)), "{error:?}");
}
