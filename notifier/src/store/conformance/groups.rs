//! Groups of jobs.

use bellhop_common::wire::Status;
use jiff::SignedDuration;

use super::{event, now};
use crate::store::{
    GroupJob, GroupPart, GroupRecord, JobEnd, MAX_RESULTS_BYTES, NewEvent, Store, StreamName,
};

fn part(group: &str, index: u32, rev: u64, end: JobEnd) -> GroupPart {
    GroupPart {
        owner: "ann".into(),
        group_id: group.into(),
        size: 3,
        index,
        task_id: format!("t{index}"),
        rev,
        end,
        result: (end == JobEnd::Succeeded).then(|| index.to_string().into()),
    }
}

fn ended(part: GroupPart) -> NewEvent {
    NewEvent {
        group: Some(part),
        ..event(&StreamName::user("ann"), "end")
    }
}

/// How many ended how, and whether all had before.
async fn counted(store: &dyn Store, events: Vec<NewEvent>) -> (u32, u32, u32, bool) {
    let kept = store.append(events, now()).await.unwrap();
    let count = kept.last().unwrap().group.unwrap();
    (
        count.succeeded,
        count.failed,
        count.cancelled,
        count.was_complete,
    )
}

pub(in crate::store) async fn ends_of_a_groups_jobs_are_counted_once(store: &dyn Store) {
    use JobEnd::{Cancelled, Failed, Succeeded};
    let first = ended(part("g", 0, 5, Succeeded));
    assert_eq!(counted(store, vec![first.clone()]).await, (1, 0, 0, false));
    assert_eq!(counted(store, vec![first.clone()]).await, (1, 0, 0, false));
    // One that is none of the group's, by its size.
    let odd = ended(part("g", 3, 5, Succeeded));
    let rest = vec![
        ended(part("g", 2, 5, Failed)),
        event(&StreamName::user("ann"), "no end"),
        odd,
        ended(part("g", 1, 5, Cancelled)),
    ];
    let kept = store.append(rest.clone(), now()).await.unwrap();
    // After the batch, with each of its events.
    assert_eq!(kept[0].group, kept[3].group);
    assert_eq!(kept[1].group, None);
    let count = kept[0].group.unwrap();
    assert_eq!((count.size, count.end()), (3, Some(Status::Failed)));
    let again = store.append(rest, now()).await.unwrap();
    let repeated = again[0].group.unwrap();
    assert!(repeated.was_complete && repeated.rev > count.rev);
    let jobs = [(0, Succeeded), (1, Cancelled), (2, Failed)].map(|(index, end)| GroupJob {
        index,
        task_id: format!("t{index}"),
        end,
        result: (end == Succeeded).then(|| "0".into()),
    });
    let group = store.group("ann".into(), "g".into()).await.unwrap();
    let jobs = jobs.to_vec();
    assert_eq!(group, Some(GroupRecord { size: 3, jobs }));
}

pub(in crate::store) async fn the_newest_end_of_a_job_counts(store: &dyn Store) {
    use JobEnd::{Failed, Succeeded};
    let batch = vec![
        ended(part("g", 0, 5, Succeeded)),
        ended(part("g", 1, 5, Failed)),
        ended(part("g", 2, 5, Failed)),
    ];
    assert_eq!(counted(store, batch).await, (1, 2, 0, false));
    let late = ended(part("g", 0, 4, Failed));
    assert_eq!(counted(store, vec![late]).await, (1, 2, 0, true));
    let replayed = ended(part("g", 1, u64::from(u32::MAX) << 20, Succeeded));
    assert_eq!(counted(store, vec![replayed]).await, (2, 1, 0, true));
    let both = vec![
        ended(part("g", 2, 7, Succeeded)),
        ended(part("g", 2, 6, Failed)),
    ];
    assert_eq!(counted(store, both).await, (3, 0, 0, true));
}

pub(in crate::store) async fn a_group_is_its_owners(store: &dyn Store) {
    let anns = ended(part("g", 0, 5, JobEnd::Succeeded));
    let mut bobs = ended(part("g", 0, 5, JobEnd::Failed));
    bobs.stream = StreamName::user("bob");
    bobs.group.as_mut().unwrap().owner = "bob".into();
    let other = ended(part("{g}:ü", 0, 5, JobEnd::Cancelled));
    let kept = store.append(vec![anns, bobs, other], now()).await.unwrap();
    let done: Vec<_> = kept
        .iter()
        .map(|kept| kept.group.unwrap())
        .map(|count| (count.succeeded, count.failed, count.cancelled))
        .collect();
    assert_eq!(done, [(1, 0, 0), (0, 1, 0), (0, 0, 1)]);
    let group = |user: &str, id: &str| store.group(user.into(), id.into());
    let bobs = group("bob", "g").await.unwrap().unwrap();
    assert_eq!(bobs.jobs[0].end, JobEnd::Failed);
    assert!(group("ann", "{g}:ü").await.unwrap().is_some());
    assert_eq!(group("bob", "{g}:ü").await.unwrap(), None);
}

pub(in crate::store) async fn a_group_keeps_no_more_results_than_it_may(store: &dyn Store) {
    let most = usize::try_from(MAX_RESULTS_BYTES).unwrap();
    let with = |index, rev, bytes: usize| {
        let mut part = part("g", index, rev, JobEnd::Succeeded);
        part.result = Some("r".repeat(bytes).into());
        ended(part)
    };
    let batch = vec![with(0, 1, most - 1), with(1, 1, 2), with(2, 1, 1)];
    assert_eq!(counted(store, batch).await, (3, 0, 0, false));
    let kept = async || -> Vec<_> {
        let group = store.group("ann".into(), "g".into()).await.unwrap();
        let jobs = group.unwrap().jobs.into_iter();
        jobs.map(|job| job.result.map(|result| result.len()))
            .collect()
    };
    assert_eq!(kept().await, [Some(most - 1), None, Some(1)]);
    // What is replaced makes room.
    store.append(vec![with(0, 2, 5)], now()).await.unwrap();
    store.append(vec![with(1, 2, 10)], now()).await.unwrap();
    assert_eq!(kept().await, [Some(5), Some(10), Some(1)]);
}

pub(in crate::store) async fn a_group_of_long_ago_goes(store: &dyn Store) {
    let old = ended(part("old", 0, 5, JobEnd::Failed));
    store.append(vec![old], now()).await.unwrap();
    let later = now() + SignedDuration::from_hours(20);
    let new = vec![
        ended(part("new", 0, 5, JobEnd::Failed)),
        ended(part("new", 1, 5, JobEnd::Failed)),
    ];
    store.append(new, later).await.unwrap();
    let swept = store.sweep(now() + SignedDuration::from_hours(25)).await;
    assert_eq!(swept.unwrap().groups, 1);
    let left = |id: &str| store.group("ann".into(), id.into());
    assert_eq!(left("old").await.unwrap(), None);
    assert_eq!(left("new").await.unwrap().unwrap().jobs.len(), 2);
    // It begins anew.
    let again = ended(part("old", 1, 5, JobEnd::Failed));
    assert_eq!(counted(store, vec![again]).await, (0, 1, 0, false));
    let swept = store.sweep(later + SignedDuration::from_hours(25)).await;
    assert_eq!(swept.unwrap().groups, 2);
}
