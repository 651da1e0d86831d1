//! What `store-writer` does with an SQLite file, step by step, for the test that kills it at each of
//! its system calls; and how the file has to look after so many steps.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bellhop_notifier::store::{
    Entry, GroupPart, InboxQuery, JobEnd, Mark, Marked, NewEvent, Position, Retention, Sqlite,
    Store, StoreError, StreamName, TaskQuery, TaskRecord,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// Small, so that events are trimmed.
const KEPT: u64 = 12;

/// How many events are kept in one step.
const TOGETHER: u64 = 4;

/// How many of these batches there are.
const BATCHES: u64 = 5;

/// How many tasks the events tell of.
const TASKS: u64 = 3;

const GROUP: u32 = 100;

/// One step; each is done whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Events, with the states of tasks and ends of a group's jobs.
    Append(u64),
    /// All up to a number.
    Read(u64),
    /// Of the user's client.
    Cursor(u64),
    /// What is too old, as long after the first event as an event is kept.
    Sweep,
    /// A document's next version.
    Document(u64),
}

/// All of them, in their order.
pub fn steps() -> Vec<Step> {
    let mut steps = Vec::new();
    for batch in 0..BATCHES {
        steps.push(Step::Append(batch));
        steps.push(Step::Read(batch * TOGETHER + 2));
        steps.push(Step::Cursor(batch * TOGETHER + 3));
        steps.push(Step::Document(batch));
    }
    steps.push(Step::Sweep);
    steps
}

fn start() -> Timestamp {
    "2026-01-15T10:30:00Z".parse().unwrap()
}

fn later(minutes: u64) -> Timestamp {
    start() + SignedDuration::from_mins(i64::try_from(minutes).unwrap())
}

fn ann() -> StreamName {
    StreamName::user("ann")
}

pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
    let age = Duration::from_hours(1);
    Sqlite::open(path, Retention { events: KEPT, age })
}

/// The `n`th event of Ann's, from 1.
fn event(n: u64) -> NewEvent {
    NewEvent {
        stream: ann(),
        id: Uuid::from_u128(u128::from(n)),
        body: Bytes::from(format!("{n} {}", "x".repeat(500))),
        task: Some(TaskRecord {
            user_id: "ann".into(),
            task_id: format!("task-{}", n % TASKS),
            rev: n,
            is_final: false,
            state: Bytes::from(n.to_string()),
        }),
        group: Some(GroupPart {
            owner: "ann".into(),
            group_id: "group".into(),
            size: GROUP,
            index: u32::try_from(n - 1).unwrap(),
            task_id: format!("job-{n}"),
            rev: n,
            end: if n.is_multiple_of(4) {
                JobEnd::Failed
            } else {
                JobEnd::Succeeded
            },
            result: Some(Bytes::from(n.to_string())),
        }),
    }
}

/// Does one step.
pub async fn take(store: &Sqlite, step: Step) -> Result<(), StoreError> {
    match step {
        Step::Append(batch) => {
            let numbers = batch * TOGETHER + 1..=(batch + 1) * TOGETHER;
            let mut events: Vec<_> = numbers.map(event).collect();
            // Another stream in the same step.
            events.push(NewEvent {
                stream: StreamName::all(),
                id: Uuid::from_u128(u128::from(1000 + batch)),
                body: Bytes::from(batch.to_string()),
                task: None,
                group: None,
            });
            store.append(events, later(batch)).await.map(drop)
        }
        Step::Read(up_to) => {
            let marked = Marked::UpTo(up_to);
            store.mark("ann".into(), marked, Mark::Read).await.map(drop)
        }
        Step::Cursor(seq) => {
            let epoch = store.heads(vec![ann()]).await?[0].epoch;
            store
                .move_cursors(vec![(ann(), Position { epoch, seq })])
                .await
        }
        Step::Sweep => store.sweep(later(60 + BATCHES - 1)).await.map(drop),
        Step::Document(version) => {
            let body = Bytes::from(version.to_string());
            store
                .put_document("wishes".into(), version, body)
                .await
                .map(drop)
        }
    }
}

/// What a file has, as far as the steps decide it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// First, last, cursor and unread of Ann's stream; first and last of everybody's.
    heads: (u64, u64, u64, u64, u64, u64),
    events: Vec<(u64, Bytes)>,
    read: Vec<(u64, bool)>,
    tasks: BTreeMap<String, u64>,
    jobs: Vec<(u32, JobEnd, Option<Bytes>)>,
    document: Option<(u64, Bytes)>,
}

/// Looks at all of it.
pub async fn content(store: &Sqlite) -> Result<Content, StoreError> {
    let heads = store.heads(vec![ann(), StreamName::all()]).await?;
    let (own, all) = (heads[0], heads[1]);
    let entries = store.read(ann(), 0, u64::MAX, usize::MAX).await?;
    let inbox = InboxQuery {
        before: None,
        unread_only: false,
        archived: false,
        limit: 1000,
        max_bytes: usize::MAX,
    };
    let inbox = store.inbox("ann".into(), inbox).await?.items;
    let tasks = TaskQuery {
        ended: None,
        before: None,
        limit: 1000,
        max_bytes: usize::MAX,
    };
    let tasks = store.tasks("ann".into(), tasks).await?.items;
    let group = store.group("ann".into(), "group".into()).await?;
    let document = store.document("wishes".into()).await?;
    Ok(Content {
        heads: (
            own.first, own.last, own.cursor, own.unread, all.first, all.last,
        ),
        events: entries
            .into_iter()
            .map(|Entry { seq, body }| (seq, body))
            .collect(),
        read: inbox
            .iter()
            .map(|entry| (entry.seq, entry.is_read))
            .collect(),
        tasks: tasks
            .into_iter()
            .map(|task| (task.task_id, task.rev))
            .collect(),
        jobs: group.map_or(Vec::new(), |group| {
            let jobs = group.jobs.into_iter();
            jobs.map(|job| (job.index, job.end, job.result)).collect()
        }),
        document: document.map(|document| (document.version, document.body)),
    })
}
