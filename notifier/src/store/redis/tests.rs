mod cluster;
mod failover;
mod moves;
mod nodes;
mod same;
mod server;
mod warnings;

use std::error::Error as _;
use std::sync::Arc;

use rustix::process::Signal;
use uuid::Uuid;

use self::server::Server;
use super::*;
use crate::store::SharedStore;
use crate::store::conformance::{RETENTION, conforms};

async fn fresh() -> (SharedStore, Server) {
    let server = Server::start(&[]).await;
    (Arc::new(server.store()), server)
}

conforms!(fresh);

/// Persists before it answers.
const LASTING: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];

fn ann() -> StreamName {
    StreamName::user("ann")
}

fn events(count: usize) -> Vec<NewEvent> {
    let event = |n: usize| NewEvent {
        stream: ann(),
        id: Uuid::now_v7(),
        body: n.to_string().into(),
        task: Some(TaskRecord {
            user_id: "ann".into(),
            task_id: n.to_string(),
            rev: 1,
            is_final: true,
            state: "{}".into(),
        }),
        group: None,
    };
    (0..count).map(event).collect()
}

async fn keep(store: &Redis, count: usize) -> Result<Vec<Kept>, StoreError> {
    store.append(&events(count), Timestamp::now()).await
}

async fn head(store: &Redis) -> Head {
    store.heads(&[ann()]).await.unwrap()[0]
}

#[tokio::test]
async fn what_was_answered_outlives_the_server() {
    let mut server = Server::start(&LASTING).await;
    let store = server.store();
    keep(&store, 3).await.unwrap();
    let unread = store.mark("ann", &Marked::UpTo(2), Mark::Read).await;
    assert_eq!(unread.unwrap().count, 1);
    let before = head(&store).await;
    server.kill();
    // Whoever asks meanwhile is told so.
    let error = keep(&store, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    assert!(error.source().is_some());
    let error = keep(&store, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    server.start_again().await;
    assert_eq!(head(&store).await, before);
    assert_eq!(keep(&store, 1).await.unwrap()[0].position.seq, 4);
    let task = store.task("ann".into(), "2".into()).await.unwrap();
    assert!(task.is_some());
}

#[tokio::test]
async fn a_server_that_forgot_everything_has_other_epochs() {
    let mut server = Server::start(&[]).await;
    let store = server.store();
    keep(&store, 3).await.unwrap();
    let before = head(&store).await;
    server.kill();
    server.start_again().await;
    // The connection that was lost shows only when it is used.
    drop(keep(&store, 1).await);
    let after = head(&store).await;
    assert_ne!(after.epoch, before.epoch);
    assert!(!after.has_all_since(before.position()));
}

#[tokio::test]
async fn a_server_that_hangs_is_not_waited_for() {
    let server = Server::start(&[]).await;
    let mut store = server.store();
    keep(&store, 1).await.unwrap();
    store.link.patience = Duration::from_millis(300);
    server.signal(Signal::STOP);
    for _ in 0..2 {
        // First on the connection there is, then on a new one.
        let error = keep(&store, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Timeout(_)), "{error:?}");
    }
    server.signal(Signal::CONT);
    store.link.patience = Duration::from_secs(30);
    keep(&store, 1).await.unwrap();
}

#[tokio::test]
async fn scripts_that_were_flushed_are_sent_again() {
    let server = Server::start(&[]).await;
    let store = server.store();
    keep(&store, 1).await.unwrap();
    server.ask::<()>("SCRIPT FLUSH").await.unwrap();
    let kept = keep(&store, 1).await.unwrap();
    assert!(kept[0].is_new && kept[0].position.seq == 2);
}

/// As a cluster's connection does when an answer was lost.
#[tokio::test]
async fn what_is_sent_twice_is_done_once() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let put = |token: &str| {
        let mut call = keys::PUT_DOCUMENT.call(&Slot::new(&store.prefix, "document:d"));
        call.arg(1).arg(token).arg(token);
        call
    };
    assert!(store.put_document("d", 0, b"first").await.unwrap());
    let calls = [put("ours"), put("ours"), put("theirs"), put("ours")];
    let answers: Vec<bool> = store.ask_each(calls.into_iter()).await.unwrap();
    assert_eq!(answers, [true, true, false, true]);
    let document = store.document("d").await.unwrap().unwrap();
    assert_eq!((document.version, &*document.body), (2, &b"ours"[..]));

    let event_id = Uuid::now_v7();
    let attempt = |body: &str| AttemptRecord {
        event_id,
        body: body.to_owned().into(),
    };
    let log = [attempt("1"), attempt("1"), attempt("2"), attempt("1")];
    store.log_attempts(&log).await.unwrap();
    assert_eq!(store.attempts(event_id).await.unwrap(), ["1", "2"]);
}

#[tokio::test]
async fn a_full_server_keeps_all_of_an_event_or_nothing() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let batch = events(1);
    server.ask::<()>("CONFIG SET maxmemory 1").await.unwrap();
    let error = store.append(&batch, Timestamp::now()).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    server.ask::<()>("CONFIG SET maxmemory 0").await.unwrap();
    let kept = store.append(&batch, Timestamp::now()).await.unwrap();
    assert!(kept[0].is_new);
}

#[tokio::test]
async fn what_is_left_of_a_stream_that_was_evicted_is_not_in_the_way() {
    let server = Server::start(&[]).await;
    let store = server.store();
    keep(&store, 3).await.unwrap();
    let before = head(&store).await;
    let meta = store.slot(&ann()).key("meta");
    server.ask::<()>(&format!("DEL {meta}")).await.unwrap();
    let kept = keep(&store, 1).await.unwrap();
    assert_eq!(kept[0].position.seq, 1);
    assert_ne!(kept[0].position.epoch, before.epoch);
    assert_eq!(store.read(&ann(), 0, 9, usize::MAX).await.unwrap().len(), 1);
}

#[tokio::test]
async fn several_notifiers_give_each_number_once() {
    let server = Server::start(&[]).await;
    let first = server.store();
    let second = Redis::open(&server.url(), &first.prefix, RETENTION).unwrap();
    let add = async |store: &Redis| {
        let mut seqs = Vec::new();
        for _ in 0..40 {
            seqs.push(keep(store, 1).await.unwrap()[0].position.seq);
        }
        seqs
    };
    let (mut seqs, more) = tokio::join!(add(&first), add(&second));
    seqs.extend(more);
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=80).collect::<Vec<_>>());
}

/// As they were before the board was in the order of what was kept when.
#[tokio::test]
async fn keys_of_an_earlier_version_go_on() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let slot = store.slot(&ann());
    let (tasks, ranks, ages) = (slot.key("tasks"), slot.key("ranks"), slot.key("ages"));
    for (at, id, rank) in [
        (1, "ended", "000017952341338734821"),
        (2, "waits", "000000000000000000010"),
        (3, "runs", "000017952341338734820"),
    ] {
        for command in [
            format!("HSET {tasks} {id} {rank}{{}}"),
            format!("ZADD {ranks} 0 {rank}{id}"),
            format!("ZADD {ages} {at} {id}"),
        ] {
            server.ask::<()>(&command).await.unwrap();
        }
    }
    let found = async |ended| -> Vec<String> {
        let query = TaskQuery {
            ended,
            before: None,
            limit: 9,
            max_bytes: 1000,
        };
        let page = store.tasks("ann", &query).await.unwrap();
        page.items.into_iter().map(|task| task.task_id).collect()
    };
    // It ends before anybody has looked at the board.
    let ends = TaskRecord {
        user_id: "ann".into(),
        task_id: "runs".into(),
        rev: u64::MAX,
        is_final: true,
        state: "{}".into(),
    };
    let later = Timestamp::from_millisecond(4).unwrap();
    store.put_tasks(&[ends], later).await.unwrap();
    assert_eq!(found(None).await, ["runs", "waits", "ended"]);
    assert_eq!(found(Some(false)).await, ["waits"]);
    assert_eq!(found(Some(true)).await, ["runs", "ended"]);
    let left: bool = server.ask(&format!("EXISTS {ranks}")).await.unwrap();
    assert!(!left, "nobody asks for them again");
}

#[tokio::test]
async fn nothing_is_left_of_what_went() {
    let server = Server::start(&[]).await;
    let store = server.store();
    let events = events(150);
    let (now, day) = (Timestamp::now(), jiff::SignedDuration::from_hours(24));
    store.append(&events, now).await.unwrap();
    let ids = events.iter().skip(140).map(|event| event.id).collect();
    let unread = store.mark("ann", &Marked::Ids(ids), Mark::Archived).await;
    assert_eq!(unread.unwrap().count, 90);
    let slot = store.slot(&ann());
    let ids: u64 = server
        .ask(&format!("HLEN {}", slot.key("ids")))
        .await
        .unwrap();
    assert_eq!(ids, 100, "the ids go with their events");
    while store.sweep(now + day * 2).await.unwrap().more {}
    let left: Vec<String> = server.ask("KEYS *").await.unwrap();
    assert_eq!(left, [slot.key("meta")], "its numbers go on");
    let expires: i64 = server.ask(&format!("PTTL {}", left[0])).await.unwrap();
    assert!(expires > 0);
    keep(&store, 1).await.unwrap();
    let expires: i64 = server.ask(&format!("PTTL {}", left[0])).await.unwrap();
    assert_eq!(expires, -1);
}

#[tokio::test]
async fn a_url_is_read_at_once_and_its_password_is_told_to_nobody() {
    for url in [
        "",
        "http://localhost",
        "redis://:secret@",
        "redis://:secret@h:x/",
    ] {
        let error = Redis::open(url, "", RETENTION).unwrap_err();
        assert!(matches!(error, StoreError::Url(_)), "{url}: {error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"), "{url}");
    }
    // A server that is not there is found missing when it is needed.
    let url = "redis://:secret@localhost:1/";
    let store = Redis::open(url, "", RETENTION).unwrap();
    let error = keep(&store, 1).await.unwrap_err();
    assert!(matches!(error, StoreError::Redis(_)), "{error:?}");
    assert!(!format!("{error:?} {error} {store:?}").contains("secret"));
    assert!(Redis::open("rediss://localhost/", "", RETENTION).is_ok());
}
