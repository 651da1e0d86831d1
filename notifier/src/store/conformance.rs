//! What every store must do. Each case gets a fresh, empty store.

mod groups;

use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::*;

pub(super) use groups::*;

/// Small, so that cases reach it.
pub(super) const RETENTION: Retention = Retention {
    events: 100,
    age: Duration::from_hours(24),
};

/// Makes a test of each case, for a store that `$fresh` makes with the [`RETENTION`]; or one test
/// of all, where what `$fresh` needs takes long to start.
macro_rules! conforms {
    (one test, $fresh:path: $($case:ident)*) => {
        #[tokio::test]
        async fn it_conforms() {
            $(
                let (store, _place) = $fresh().await;
                $crate::store::conformance::$case(&*store).await;
            )*
        }
    };
    (tests, $fresh:path: $($case:ident)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (store, _place) = $fresh().await;
                $crate::store::conformance::$case(&*store).await;
            }
        )*
    };
    ($fresh:path) => {
        $crate::store::conformance::conforms!(tests, $fresh);
    };
    ($($how:ident)*, $fresh:path) => {
        $crate::store::conformance::conforms!($($how)*, $fresh:
            numbers_grow_without_gaps_each_stream_for_itself
            the_same_event_again_keeps_its_number
            a_batch_may_hold_the_same_event_twice
            odd_names_are_streams_of_their_own
            what_is_read_is_what_was_kept
            a_long_stream_loses_its_oldest
            what_is_too_old_goes
            a_cursor_never_goes_back
            reading_counts_once
            who_looks_before_the_first_event_reads_it_like_others
            reading_up_to_here_leaves_what_comes_later
            what_is_put_away_is_found_among_the_archived
            an_inbox_is_paged_from_the_newest
            the_newest_state_of_a_task_stays
            an_end_is_not_undone
            a_users_tasks_are_his_own
            tasks_are_paged_from_the_one_that_changed_last
            tasks_of_one_moment_are_each_on_a_page
            what_is_read_at_once_is_bounded_in_bytes
            ends_of_a_groups_jobs_are_counted_once
            the_newest_end_of_a_job_counts
            a_group_is_its_owners
            a_group_keeps_no_more_results_than_it_may
            a_group_of_long_ago_goes
            a_document_is_changed_by_who_knows_its_version
            the_tries_to_deliver_an_event_are_kept_in_order
        );
    };
}
pub(super) use conforms;

fn now() -> Timestamp {
    "2026-01-15T10:30:00Z".parse().unwrap()
}

fn event(stream: &StreamName, text: &str) -> NewEvent {
    NewEvent {
        stream: stream.clone(),
        id: Uuid::now_v7(),
        body: Bytes::copy_from_slice(text.as_bytes()),
        task: None,
        group: None,
    }
}

async fn fill(store: &dyn Store, stream: &StreamName, count: u64) -> Vec<Uuid> {
    let events: Vec<_> = (1..=count).map(|n| event(stream, &n.to_string())).collect();
    let ids = events.iter().map(|event| event.id).collect();
    store.append(events, now()).await.unwrap();
    ids
}

async fn head(store: &dyn Store, stream: &StreamName) -> Head {
    store.heads(vec![stream.clone()]).await.unwrap()[0]
}

fn seqs(kept: &[Kept]) -> Vec<u64> {
    kept.iter().map(|kept| kept.position.seq).collect()
}

fn every(limit: u32) -> InboxQuery {
    InboxQuery {
        before: None,
        unread_only: false,
        archived: false,
        limit,
        max_bytes: usize::MAX,
    }
}

fn nothing() -> Unread {
    Unread {
        count: 0,
        counted_at: None,
    }
}

async fn inbox(store: &dyn Store, query: InboxQuery) -> Vec<u64> {
    let page = store.inbox("ann".into(), query).await.unwrap();
    page.items.iter().map(|entry| entry.seq).collect()
}

pub(super) async fn numbers_grow_without_gaps_each_stream_for_itself(store: &dyn Store) {
    let (ann, room) = (StreamName::user("ann"), "room:r".parse().unwrap());
    assert_eq!(head(store, &ann).await.last, 0);
    let first = vec![event(&ann, "1"), event(&room, "a"), event(&ann, "2")];
    let kept = store.append(first, now()).await.unwrap();
    assert_eq!(seqs(&kept), [1, 1, 2]);
    assert!(kept.iter().all(|kept| kept.is_new));
    let unread: Vec<_> = kept.iter().map(|kept| kept.unread).collect();
    assert_eq!(unread, [Some(1), None, Some(2)]);
    let next = store.append(vec![event(&room, "b")], now()).await.unwrap();
    assert_eq!(seqs(&next), [2]);
    assert_eq!(
        next[0].position.epoch, kept[1].position.epoch,
        "the life goes on"
    );
    let heads = store.heads(vec![room.clone(), ann.clone()]).await.unwrap();
    assert_eq!((heads[0].last, heads[1].last), (2, 2));
    assert_eq!((heads[0].first, heads[1].unread), (1, 2));
    assert_eq!(heads[0].epoch, kept[1].position.epoch);
}

pub(super) async fn the_same_event_again_keeps_its_number(store: &dyn Store) {
    let (ann, bob) = (StreamName::user("ann"), StreamName::user("bob"));
    let (one, two) = (event(&ann, "1"), event(&ann, "2"));
    let both = vec![one.clone(), two.clone()];
    let first = store.append(both.clone(), now()).await.unwrap();
    let again = store.append(both, now()).await.unwrap();
    assert_eq!(seqs(&again), seqs(&first));
    assert!(again.iter().all(|kept| !kept.is_new));
    assert_eq!(again[1].unread, Some(2));
    // To another audience it is another event.
    let mut copy = one;
    copy.stream = bob;
    let kept = store.append(vec![copy], now()).await.unwrap();
    assert!(kept[0].is_new && kept[0].position.seq == 1);
    assert_eq!(store.read(ann, 0, 10, usize::MAX).await.unwrap().len(), 2);
}

pub(super) async fn a_batch_may_hold_the_same_event_twice(store: &dyn Store) {
    let ann = StreamName::user("ann");
    let (one, two) = (event(&ann, "1"), event(&ann, "2"));
    let batch = vec![one.clone(), one.clone(), two, one];
    let kept = store.append(batch, now()).await.unwrap();
    assert_eq!(seqs(&kept), [1, 1, 2, 1]);
    assert_eq!(head(store, &ann).await.last, 2);
}

pub(super) async fn odd_names_are_streams_of_their_own(store: &dyn Store) {
    let ids = [
        "a", "A", "a ", "a:b", "a.b", "{a}", "a}b{c", "*", "%00", "ünï", "…", "'; --", "a\u{0}b",
        "\n", "\"", "\\",
    ];
    let streams: Vec<_> = ids.iter().map(|id| StreamName::user(id)).collect();
    for (n, stream) in streams.iter().enumerate() {
        fill(store, stream, n as u64 + 1).await;
    }
    let heads = store.heads(streams.clone()).await.unwrap();
    for (n, head) in heads.iter().enumerate() {
        assert_eq!(head.last, n as u64 + 1, "{:?}", ids[n]);
    }
    let room: StreamName = "room:a".parse().unwrap();
    assert_eq!(head(store, &room).await.last, 0);
}

pub(super) async fn what_is_read_is_what_was_kept(store: &dyn Store) {
    let room: StreamName = "room:r".parse().unwrap();
    fill(store, &room, 5).await;
    let read = |after, up_to| store.read(room.clone(), after, up_to, usize::MAX);
    let entries = read(1, 4).await.unwrap();
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.seq, &entry.body[..]))
        .collect();
    let wants: [(u64, &[u8]); 3] = [(2, b"2"), (3, b"3"), (4, b"4")];
    assert_eq!(found, wants);
    assert!(read(5, 5).await.unwrap().is_empty());
    assert_eq!(read(4, u64::MAX).await.unwrap().len(), 1);
    let nothing = "room:none".parse().unwrap();
    assert!(
        store
            .read(nothing, 0, 10, usize::MAX)
            .await
            .unwrap()
            .is_empty()
    );
    // Bytes of any kind come back as they were.
    let bytes: Vec<u8> = (0..=255).collect();
    let mut event = event(&room, "");
    event.body = bytes.clone().into();
    store.append(vec![event], now()).await.unwrap();
    assert_eq!(read(5, 6).await.unwrap()[0].body, bytes);
}

pub(super) async fn a_long_stream_loses_its_oldest(store: &dyn Store) {
    let ann = StreamName::user("ann");
    fill(store, &ann, 130).await;
    let head = head(store, &ann).await;
    assert_eq!((head.first, head.last, head.unread), (31, 130, 100));
    let entries = store.read(ann.clone(), 0, 200, usize::MAX).await.unwrap();
    assert_eq!((entries.len(), entries[0].seq), (100, 31));
    let at = |seq| Position {
        epoch: head.epoch,
        seq,
    };
    assert!(head.has_all_since(at(30)) && !head.has_all_since(at(29)));
    // What was read and went does not count twice.
    let unread = store.mark("ann".into(), Marked::UpTo(80), Mark::Read);
    assert_eq!(unread.await.unwrap().count, 50);
    fill(store, &ann, 60).await;
    let head = store.heads(vec![ann]).await.unwrap()[0];
    assert_eq!((head.first, head.unread), (91, 100));
}

pub(super) async fn what_is_too_old_goes(store: &dyn Store) {
    let (ann, room) = (StreamName::user("ann"), "room:r".parse().unwrap());
    fill(store, &ann, 3).await;
    fill(store, &room, 1).await;
    let task = TaskRecord {
        user_id: "ann".into(),
        task_id: "old".into(),
        rev: 1,
        is_final: true,
        state: "{}".into(),
    };
    store.put_tasks(vec![task], now()).await.unwrap();
    let hour = SignedDuration::from_hours(1);
    let later = now() + hour * 20;
    store.append(vec![event(&ann, "4")], later).await.unwrap();
    let swept = store.sweep(now() + hour * 23).await.unwrap();
    assert_eq!((swept.events, swept.tasks), (0, 0), "nothing is too old");
    while store.sweep(now() + hour * 25).await.unwrap().more {}
    let heads = store.heads(vec![ann.clone(), room.clone()]).await.unwrap();
    assert_eq!((heads[0].first, heads[0].last, heads[0].unread), (4, 4, 1));
    assert_eq!((heads[1].first, heads[1].last), (2, 1));
    let old = store.task("ann".into(), "old".into()).await.unwrap();
    assert_eq!(old, None);
    // The numbers go on.
    let kept = store.append(vec![event(&room, "2")], later).await.unwrap();
    assert_eq!(seqs(&kept), [2]);
    assert_eq!(kept[0].position.epoch, heads[1].epoch);
}

pub(super) async fn a_cursor_never_goes_back(store: &dyn Store) {
    let ann = StreamName::user("ann");
    fill(store, &ann, 5).await;
    let epoch = head(store, &ann).await.epoch;
    for (epoch, seq, wants) in [
        (epoch, 3, 3),
        (epoch, 2, 3),
        (Epoch::new(!epoch.number()), 5, 3),
        (epoch, 99, 5),
    ] {
        let position = Position { epoch, seq };
        let moving = store.move_cursors(vec![(ann.clone(), position)]);
        moving.await.unwrap();
        assert_eq!(head(store, &ann).await.cursor, wants);
    }
    // Of a stream that does not exist yet.
    let bob = StreamName::user("bob");
    let position = Position { epoch, seq: 1 };
    let moving = store.move_cursors(vec![(bob.clone(), position)]);
    moving.await.unwrap();
    assert_eq!(head(store, &bob).await.cursor, 0);
}

pub(super) async fn reading_counts_once(store: &dyn Store) {
    let ids = fill(store, &StreamName::user("ann"), 5).await;
    let mark = |ids: Vec<Uuid>| store.mark("ann".into(), Marked::Ids(ids), Mark::Read);
    assert_eq!(
        mark(vec![ids[1], ids[1], Uuid::now_v7()])
            .await
            .unwrap()
            .count,
        4
    );
    assert_eq!(mark(vec![ids[1], ids[4]]).await.unwrap().count, 3);
    let up_to = store.mark("ann".into(), Marked::UpTo(2), Mark::Read);
    assert_eq!(up_to.await.unwrap().count, 2);
    let again = store.mark("ann".into(), Marked::UpTo(1), Mark::Read);
    assert_eq!(again.await.unwrap().count, 2);
    let unread = InboxQuery {
        unread_only: true,
        ..every(10)
    };
    assert_eq!(inbox(store, unread).await, [4, 3]);
    assert_eq!(inbox(store, every(10)).await, [5, 4, 3, 2, 1]);
    assert_eq!(mark(ids).await.unwrap().count, 0);
    let nobody = store.mark("nobody".into(), Marked::UpTo(9), Mark::Read);
    assert_eq!(nobody.await.unwrap(), nothing());
}

pub(super) async fn who_looks_before_the_first_event_reads_it_like_others(store: &dyn Store) {
    let ann = StreamName::user("ann");
    let before = store.heads(vec![ann.clone()]).await.unwrap();
    let unread = store.mark("ann".into(), Marked::UpTo(9), Mark::Read);
    assert_eq!(unread.await.unwrap(), nothing());
    let ids = fill(store, &ann, 2).await;
    let after = store.heads(vec![ann.clone()]).await.unwrap();
    assert_eq!(after[0].epoch, before[0].epoch);
    assert_eq!((after[0].first, after[0].last, after[0].unread), (1, 2, 2));
    let read = store.mark("ann".into(), Marked::Ids(vec![ids[1]]), Mark::Read);
    assert_eq!(read.await.unwrap().count, 1);
    assert_eq!(inbox(store, every(10)).await, [2, 1]);
}

pub(super) async fn reading_up_to_here_leaves_what_comes_later(store: &dyn Store) {
    let ann = StreamName::user("ann");
    fill(store, &ann, 2).await;
    let epoch = head(store, &ann).await.epoch;
    let of = |count, seq| Unread {
        count,
        counted_at: Some(Position { epoch, seq }),
    };
    let unread = store.mark("ann".into(), Marked::UpTo(u64::MAX), Mark::Read);
    assert_eq!(unread.await.unwrap(), of(0, 2));
    let kept = store.append(vec![event(&ann, "3")], now()).await.unwrap();
    assert_eq!(kept[0].unread, Some(1));
    let unread = store.mark("ann".into(), Marked::UpTo(1), Mark::Read);
    assert_eq!(
        unread.await.unwrap(),
        of(1, 3),
        "also of what is not marked"
    );
    let unread = store.mark("ann".into(), Marked::UpTo(3), Mark::Read);
    assert_eq!(unread.await.unwrap(), of(0, 3));
}

pub(super) async fn what_is_put_away_is_found_among_the_archived(store: &dyn Store) {
    let ids = fill(store, &StreamName::user("ann"), 4).await;
    let marked = Marked::Ids(vec![ids[0], ids[2]]);
    let unread = store.mark("ann".into(), marked.clone(), Mark::Archived);
    assert_eq!(unread.await.unwrap().count, 2);
    assert_eq!(inbox(store, every(10)).await, [4, 2]);
    let archived = InboxQuery {
        archived: true,
        ..every(10)
    };
    assert_eq!(inbox(store, archived).await, [3, 1]);
    // What is put away stays so.
    let unread = store.mark("ann".into(), marked, Mark::Read);
    assert_eq!(unread.await.unwrap().count, 2);
    assert_eq!(inbox(store, archived).await, [3, 1]);
    let unread = store.mark("ann".into(), Marked::UpTo(4), Mark::Archived);
    assert_eq!(unread.await.unwrap().count, 0);
    assert_eq!(inbox(store, archived).await, [4, 3, 2, 1]);
    let entries = store.inbox("ann".into(), archived).await.unwrap().items;
    assert!(
        entries
            .iter()
            .all(|entry| entry.is_read && entry.is_archived)
    );
    assert_eq!(entries[0].stored_at, now());
    // A stream is as long as before: nobody misses an event because another device put it away.
    let ann = StreamName::user("ann");
    let stream = store.read(ann, 0, 4, usize::MAX).await.unwrap();
    assert_eq!(stream.len(), 4);
}

pub(super) async fn an_inbox_is_paged_from_the_newest(store: &dyn Store) {
    fill(store, &StreamName::user("ann"), 25).await;
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let query = InboxQuery {
            before,
            ..every(10)
        };
        let page = inbox(store, query).await;
        before = page.last().copied();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 10);
        seen.extend(page);
    }
    assert_eq!(seen, (1..=25).rev().collect::<Vec<_>>());
    assert!(inbox(store, every(0)).await.is_empty());
}

fn task(user: &str, id: &str, rev: u64, is_final: bool) -> TaskRecord {
    TaskRecord {
        user_id: user.into(),
        task_id: id.into(),
        rev,
        is_final,
        state: format!("{{\"rev\":{rev}}}").into(),
    }
}

pub(super) async fn the_newest_state_of_a_task_stays(store: &dyn Store) {
    let states = [5, 9, 7].map(|rev| task("ann", "t", rev, false));
    store.put_tasks(states.to_vec(), now()).await.unwrap();
    let found = store.task("ann".into(), "t".into()).await.unwrap();
    assert_eq!(found, Some(task("ann", "t", 9, false)));
    // With an event, in the same step.
    let mut event = event(&StreamName::user("ann"), "end");
    event.task = Some(task("ann", "t", 10, true));
    store.append(vec![event], now()).await.unwrap();
    let found = store.task("ann".into(), "t".into()).await.unwrap();
    assert_eq!(found, Some(task("ann", "t", 10, true)));
}

pub(super) async fn an_end_is_not_undone(store: &dyn Store) {
    // Two runs of a worker that was cut off may overlap.
    let states = [task("ann", "t", 5, true), task("ann", "t", 6, false)];
    store.put_tasks(states.to_vec(), now()).await.unwrap();
    let found = store.task("ann".into(), "t".into()).await.unwrap();
    assert_eq!(found, Some(task("ann", "t", 5, true)));
}

fn all_tasks(limit: u32) -> TaskQuery {
    TaskQuery {
        ended: None,
        before: None,
        limit,
        max_bytes: usize::MAX,
    }
}

/// Ann's tasks, page by page.
async fn task_pages(store: &dyn Store, mut query: TaskQuery) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    loop {
        let page = store.tasks("ann".into(), query.clone()).await.unwrap();
        pages.push(page.items.into_iter().map(|task| task.task_id).collect());
        query.before = page.next;
        if query.before.is_none() {
            return pages;
        }
        assert!(pages.len() < 100, "{query:?} has no end");
    }
}

pub(super) async fn a_users_tasks_are_his_own(store: &dyn Store) {
    let states = vec![task("ann", "t1", 1, false), task("bob", "t1", 100, false)];
    store.put_tasks(states, now()).await.unwrap();
    assert_eq!(task_pages(store, all_tasks(9)).await, [["t1"]]);
    let bobs = store.task("ann".into(), "t7".into()).await.unwrap();
    assert_eq!(bobs, None);
    let same_id = store.task("bob".into(), "t1".into()).await.unwrap();
    assert_eq!(same_id, Some(task("bob", "t1", 100, false)));
    let nobodys = store.tasks("cy".into(), all_tasks(9)).await.unwrap();
    assert_eq!(nobodys, Page::empty());
}

/// Whatever their `rev`s are: those say only which state of one task is the newest.
pub(super) async fn tasks_are_paged_from_the_one_that_changed_last(store: &dyn Store) {
    let after = |seconds| now() + SignedDuration::from_secs(seconds);
    for (n, rev) in (0..).zip([900, 1, 1, 500, 1, 2]) {
        let state = task("ann", &format!("t{n}"), rev, n % 2 == 1);
        store.put_tasks(vec![state], after(n)).await.unwrap();
    }
    assert_eq!(
        task_pages(store, all_tasks(4)).await,
        [&["t5", "t4", "t3", "t2"][..], &["t1", "t0"]]
    );
    // One that changes is the last to have changed, one whose state is late is not.
    let states = vec![task("ann", "t2", 2, false), task("ann", "t0", 3, false)];
    store.put_tasks(states, after(10)).await.unwrap();
    assert_eq!(
        task_pages(store, all_tasks(3)).await,
        [["t2", "t5", "t4"], ["t3", "t1", "t0"]]
    );
    let with = |ended, limit| TaskQuery {
        ended: Some(ended),
        ..all_tasks(limit)
    };
    assert_eq!(
        task_pages(store, with(true, 2)).await,
        [&["t5", "t3"][..], &["t1"]]
    );
    assert_eq!(
        task_pages(store, with(false, 2)).await,
        [&["t2", "t4"][..], &["t0"]]
    );
    // It ends, and between two pages another changes.
    let first = store.tasks("ann".into(), all_tasks(2)).await.unwrap();
    let states = vec![task("ann", "t5", 9, true), task("ann", "t4", 9, true)];
    store.put_tasks(states, after(20)).await.unwrap();
    let rest = TaskQuery {
        before: first.next,
        ..all_tasks(9)
    };
    assert_eq!(task_pages(store, rest).await, [["t3", "t1", "t0"]]);
    assert_eq!(task_pages(store, with(false, 9)).await, [["t2", "t0"]]);
    assert_eq!(
        task_pages(store, with(true, 9)).await,
        [["t5", "t4", "t3", "t1"]]
    );
    let none = store.tasks("ann".into(), all_tasks(0)).await.unwrap();
    assert_eq!(none, Page::empty());
}

/// Many that wait are told together, and all have the same `rev`.
pub(super) async fn tasks_of_one_moment_are_each_on_a_page(store: &dyn Store) {
    // By their bytes, in which capitals come first and `ü` after all others.
    let mut ids: Vec<_> = (0..210).map(|n| format!("t{n}")).collect();
    ids.extend(["", "T", "a", "b c", "t1.x", "z", "ü", "Ü"].map(str::to_owned));
    let states = ids.iter().map(|id| task("ann", id, 1, id.len() % 2 == 0));
    store.put_tasks(states.collect(), now()).await.unwrap();
    ids.sort_unstable();
    ids.reverse();
    for limit in [7, 100, 500] {
        assert_eq!(task_pages(store, all_tasks(limit)).await.concat(), ids);
        for ended in [true, false] {
            let query = TaskQuery {
                ended: Some(ended),
                ..all_tasks(limit)
            };
            let found = task_pages(store, query).await.concat();
            let wants = ids.iter().filter(|id| (id.len() % 2 == 0) == ended);
            assert!(found.iter().eq(wants), "{ended}: {found:?}");
        }
    }
}

pub(super) async fn what_is_read_at_once_is_bounded_in_bytes(store: &dyn Store) {
    let ann = StreamName::user("ann");
    let sizes = [5, 50, 5, 5, 5, 5, 80];
    let events = sizes.map(|size| event(&ann, &"x".repeat(size)));
    store.append(events.to_vec(), now()).await.unwrap();
    for (n, size) in (0..).zip(sizes) {
        let state = TaskRecord {
            state: "x".repeat(size).into(),
            ..task("ann", &n.to_string(), 1, false)
        };
        let at = now() + SignedDuration::from_secs(n);
        store.put_tasks(vec![state], at).await.unwrap();
    }
    let inbox = async |before, max_bytes| {
        let query = InboxQuery {
            before,
            max_bytes,
            ..every(9)
        };
        let page = store.inbox("ann".into(), query).await.unwrap();
        (page.items.len(), page.next)
    };
    assert_eq!(inbox(None, 15).await, (1, Some(7)));
    assert_eq!(inbox(Some(7), 15).await, (3, Some(4)));
    assert_eq!(inbox(Some(4), 15).await, (1, Some(3)));
    assert_eq!(inbox(Some(3), 15).await, (1, Some(2)));
    assert_eq!(inbox(Some(2), 0).await, (1, None));
    assert_eq!(inbox(None, 160).await, (7, None));
    let few = TaskQuery {
        max_bytes: 15,
        ..all_tasks(9)
    };
    assert_eq!(
        task_pages(store, few).await,
        [&["6"][..], &["5", "4", "3"], &["2"], &["1"], &["0"]]
    );
    let read = async |after, up_to, max_bytes| -> Vec<u64> {
        let entries = store.read(ann.clone(), after, up_to, max_bytes).await;
        entries.unwrap().iter().map(|entry| entry.seq).collect()
    };
    assert_eq!(read(0, 9, 15).await, [1]);
    assert_eq!(read(2, 9, 15).await, [3, 4, 5]);
    assert_eq!(read(2, 4, 15).await, [3, 4]);
    assert_eq!(read(6, 9, 15).await, [7]);
    assert_eq!(read(0, 9, 155).await, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(read(0, 9, 154).await, [1, 2, 3, 4, 5, 6]);
}

pub(super) async fn a_document_is_changed_by_who_knows_its_version(store: &dyn Store) {
    let put = |name: &str, expected, body: &'static str| {
        store.put_document(name.into(), expected, Bytes::from(body))
    };
    assert_eq!(store.document("a".into()).await.unwrap(), None);
    assert!(!put("a", 1, "early").await.unwrap());
    assert!(put("a", 0, "1").await.unwrap());
    assert!(!put("a", 0, "again").await.unwrap());
    assert!(put("a", 1, "2").await.unwrap());
    assert!(!put("a", 1, "late").await.unwrap());
    assert!(put("{odd} ü", 0, "").await.unwrap());
    let found = store.document("a".into()).await.unwrap();
    let wants = Document {
        version: 2,
        body: "2".into(),
    };
    assert_eq!(found, Some(wants));
    let odd = store.document("{odd} ü".into()).await.unwrap();
    assert_eq!(odd.map(|odd| odd.version), Some(1));
    // It does not grow old.
    let later = now() + SignedDuration::from_hours(24 * 365);
    store.sweep(later).await.unwrap();
    assert!(store.document("a".into()).await.unwrap().is_some());
}

pub(super) async fn the_tries_to_deliver_an_event_are_kept_in_order(store: &dyn Store) {
    let (event, other) = (Uuid::now_v7(), Uuid::now_v7());
    let attempt = |event_id, n: u32| AttemptRecord {
        event_id,
        body: n.to_string().into(),
    };
    let first = vec![attempt(event, 0), attempt(other, 0), attempt(event, 1)];
    store.log_attempts(first, now()).await.unwrap();
    store.log_attempts(Vec::new(), now()).await.unwrap();
    assert_eq!(store.attempts(event).await.unwrap(), ["0", "1"]);
    // Once more, because the answer was lost.
    let again = vec![attempt(event, 0), attempt(other, 0), attempt(event, 1)];
    store.log_attempts(again, now()).await.unwrap();
    assert_eq!(store.attempts(event).await.unwrap(), ["0", "1"]);
    let more = (2..ATTEMPTS_MAX + 5).map(|n| attempt(event, n)).collect();
    store.log_attempts(more, now()).await.unwrap();
    let last: Vec<_> = (5..ATTEMPTS_MAX + 5).map(|n| n.to_string()).collect();
    assert_eq!(store.attempts(event).await.unwrap(), last);
    assert_eq!(store.attempts(other).await.unwrap(), ["0"]);
    assert!(store.attempts(Uuid::now_v7()).await.unwrap().is_empty());
}
