//! A slot that moves from one primary to another. Meanwhile scripts are let at keys only if all that
//! they name are on one side: the others are told to try again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::nodes::{Cluster, Node, slot_of};
use super::*;

/// The slot of Ann's stream on its way.
struct Move<'a> {
    slot: usize,
    from: &'a Node,
    to: &'a Node,
    all: &'a [Node],
}

impl<'a> Move<'a> {
    fn of_anns(cluster: &'a Cluster, store: &Redis) -> Self {
        let key = store.slot(&ann()).key("meta");
        let place = cluster.place_of(&key);
        Self {
            slot: slot_of(&key),
            from: &cluster.nodes[place],
            to: &cluster.nodes[(place + 1) % 3],
            all: &cluster.nodes,
        }
    }

    async fn begins(&self) {
        let Self { slot, from, to, .. } = self;
        let importing = format!("CLUSTER SETSLOT {slot} IMPORTING {}", from.id);
        to.ask::<()>(&importing).await;
        let migrating = format!("CLUSTER SETSLOT {slot} MIGRATING {}", to.id);
        from.ask::<()>(&migrating).await;
    }

    async fn keys(&self) -> Vec<String> {
        let get = format!("CLUSTER GETKEYSINSLOT {} 100", self.slot);
        self.from.ask(&get).await
    }

    async fn moves(&self, key: &str) {
        let migrate = format!("MIGRATE 127.0.0.1 {} {key} 0 5000", self.to.port);
        self.from.ask::<()>(&migrate).await;
    }

    async fn ends(&self) {
        let node = format!("CLUSTER SETSLOT {} NODE {}", self.slot, self.to.id);
        self.to.ask::<()>(&node).await;
        self.from.ask::<()>(&node).await;
        for other in self.all {
            other.ask::<()>(&node).await;
        }
    }
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_while_a_slot_moves() {
    let cluster = Cluster::start(3, &[]).await;
    let store = cluster.store();
    keep(&store, 5).await.unwrap();
    let before = head(&store).await;
    let moving = Move::of_anns(&cluster, &store);
    let is_over = AtomicBool::new(false);
    let publish = async {
        let mut sent = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let batch = events(2);
            // As the writer does: until it is kept.
            while store.append(&batch, Timestamp::now()).await.is_err() {}
            sent.extend(batch);
        }
        sent
    };
    let reshard = async {
        moving.begins().await;
        moving.from.sends_scripts_away().await;
        for key in moving.keys().await {
            moving.moves(&key).await;
        }
        // What has one key is found on the other side already.
        let found = store.read(&ann(), 0, 9, usize::MAX).await.unwrap();
        assert!(found.len() >= 5, "{found:?}");
        let cursors = [(ann(), before.position())];
        store.move_cursors(&cursors).await.unwrap();
        moving.from.sends_scripts_away().await;
        moving.to.sends_scripts_away().await;
        moving.ends().await;
        keep(&store, 1).await.unwrap();
        is_over.store(true, Ordering::Relaxed);
    };
    let (sent, ()) = tokio::join!(publish, reshard);

    let after = head(&store).await;
    assert_eq!((after.epoch, after.cursor), (before.epoch, 5));
    let last = 5 + sent.len() as u64 + 1;
    assert_eq!((after.last, after.unread), (last, last));
    let kept = store.read(&ann(), 5, last, usize::MAX).await.unwrap();
    let seqs: Vec<_> = kept.iter().map(|entry| entry.seq).collect();
    assert_eq!(seqs, (6..=last).collect::<Vec<_>>());
    let again = store.append(&sent, Timestamp::now()).await.unwrap();
    let again: Vec<_> = again
        .iter()
        .map(|kept| (kept.position.seq, kept.is_new))
        .collect();
    assert!(again.iter().all(|(_, is_new)| !is_new), "{again:?}");
    assert!(again.is_sorted(), "in the order they came: {again:?}");
    let key = store.slot(&ann()).key("meta");
    let exists: bool = moving.to.ask(&format!("EXISTS {key}")).await;
    assert!(exists);
}

/// While a slot moves, a script may not ask for a key that it has emptied itself.
#[tokio::test]
async fn a_script_does_not_end_in_the_middle_while_its_slot_moves() {
    let cluster = Cluster::start(3, &[]).await;
    let mut store = cluster.store();
    store.retention.events = 5;
    let first = events(5);
    store.append(&first[..1], Timestamp::now()).await.unwrap();
    let oldest = Marked::Ids(vec![first[0].id]);
    store.mark("ann", &oldest, Mark::Archived).await.unwrap();
    let rest: Vec<_> = first[1..]
        .iter()
        .map(|event| NewEvent {
            task: None,
            ..event.clone()
        })
        .collect();
    store.append(&rest, Timestamp::now()).await.unwrap();
    let mut state = events(1).remove(0).task.unwrap();
    (state.task_id, state.is_final) = ("runs".into(), false);
    let runs = [state.clone()];
    store.put_tasks(&runs, Timestamp::now()).await.unwrap();
    let moving = Move::of_anns(&cluster, &store);
    moving.begins().await;

    // With the oldest goes all that is read and archived apart.
    let more: Vec<_> = events(3)
        .into_iter()
        .map(|event| NewEvent {
            task: None,
            ..event
        })
        .collect();
    let kept = store.append(&more, Timestamp::now()).await.unwrap();
    let kept: Vec<_> = kept
        .iter()
        .map(|kept| (kept.position.seq, kept.unread))
        .collect();
    assert_eq!(kept, [(6, Some(5)), (7, Some(5)), (8, Some(5))]);
    // The only one that had not ended does.
    (state.rev, state.is_final) = (2, true);
    store
        .put_tasks(&[state.clone()], Timestamp::now())
        .await
        .unwrap();
    for key in moving.keys().await {
        moving.moves(&key).await;
    }
    moving.ends().await;
    let tasks = TaskQuery {
        ended: None,
        before: None,
        limit: 1,
        max_bytes: 1000,
    };
    let page = store.tasks("ann", &tasks).await.unwrap();
    assert_eq!(page.items, [state]);
    let kept = keep(&store, 1).await.unwrap();
    assert_eq!(kept[0].position.seq, 9);
}
