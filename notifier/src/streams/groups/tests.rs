use super::*;

fn state(data: &Value) -> Option<GroupPart> {
    let text = data.to_string();
    let state: State<'_> = serde_json::from_str(&text).unwrap();
    part_of("ann", &state)
}

fn end(status: &str, group: &Value) -> Value {
    json!({"task_id": "t", "rev": 7, "status": status, "group": group, "result": [1]})
}

fn touched(size: u32, succeeded: u32, failed: u32, cancelled: u32) -> Touched {
    let (id, owner) = ("g".into(), "ann".into());
    Touched {
        owner,
        id,
        count: GroupCount {
            size,
            succeeded,
            failed,
            cancelled,
            rev: 9,
            was_complete: false,
        },
        sequel: GroupSequel {
            room: Some("lobby".into()),
            queue: Some("slow".into()),
            then: vec![
                FollowUp::new("sum", json!({})),
                FollowUp::new("mail", json!({})),
            ],
            on_failure: vec![FollowUp::new("clean", json!({}))],
            ..GroupSequel::default()
        },
    }
}

fn record(ends: &[(JobEnd, Option<&str>)]) -> GroupRecord {
    let jobs = (0..).zip(ends);
    let jobs = jobs.map(|(index, (end, result))| GroupJob {
        index,
        task_id: format!("t{index}"),
        end: *end,
        result: result.map(|text| Bytes::copy_from_slice(text.as_bytes())),
    });
    GroupRecord {
        size: u32::try_from(ends.len()).unwrap(),
        jobs: jobs.collect(),
    }
}

#[test]
fn only_an_end_with_a_sound_group_counts() {
    let group = json!({"id": "g", "index": 1, "size": 2, "more": true});
    let part = state(&end("succeeded", &group)).unwrap();
    assert_eq!((part.size, part.index, part.rev), (2, 1, 7));
    assert_eq!(part.result.as_deref(), Some(&b"[1]"[..]));
    let part = state(&end("failed", &group)).unwrap();
    assert_eq!((part.end, part.result), (JobEnd::Failed, None));
    assert_eq!(state(&end("running", &group)), None);
    for odd in [
        json!("g"),
        json!(null),
        json!({"id": "g", "index": 2, "size": 2}),
        json!({"id": "g", "index": 0, "size": 10_001}),
        json!({"id": "", "index": 0, "size": 1}),
        json!({"id": "g", "index": -1, "size": 1}),
    ] {
        assert_eq!(state(&end("failed", &odd)), None, "{odd}");
    }
    assert_eq!(
        state(&json!({"task_id": "t", "rev": 1, "status": "failed"})),
        None
    );
}

#[test]
fn a_result_of_nothing_is_null_and_a_large_one_is_not_kept() {
    let group = json!({"id": "g", "index": 0, "size": 1});
    let mut end = end("succeeded", &group);
    end["result"] = json!("x".repeat(MAX_RESULT_BYTES));
    assert_eq!(state(&end).unwrap().result, None);
    end["result"] = Value::Null;
    assert_eq!(state(&end).unwrap().result.as_deref(), Some(&b"null"[..]));
}

#[test]
fn a_group_on_its_way_says_how_many_of_how_many() {
    let running = touched(50, 10, 2, 1).running(Timestamp::UNIX_EPOCH);
    let progress = running.progress.unwrap();
    assert_eq!((progress.done, progress.total), (Some(13), Some(50)));
    assert_eq!(progress.unit.as_deref(), Some("jobs"));
    assert_eq!(progress.message.as_deref(), Some("2 failed, 1 cancelled"));
    assert_eq!((running.kind.as_str(), running.rev), ("group", 9));
}

#[test]
fn success_has_the_results_in_order_or_says_that_it_has_not() {
    use JobEnd::Succeeded;
    let end = |record: GroupRecord| {
        touched(2, 2, 0, 0).ended(Status::Succeeded, &record, Timestamp::UNIX_EPOCH)
    };
    let status = end(record(&[
        (Succeeded, Some("{\"a\":1}")),
        (Succeeded, Some("null")),
    ]));
    let result = json!({"size": 2, "succeeded": 2, "results": [{"a": 1}, null]});
    assert_eq!(status.result, Some(result.clone()));
    let next = touched(2, 2, 0, 0).sequel(&status);
    assert_eq!(next.len(), 2);
    let (queue, job) = &next[0];
    assert_eq!((queue.as_str(), job.kind.as_str()), ("slow", "sum"));
    assert_eq!(job.args, json!({"result": result}));
    assert_eq!(
        (job.user_id.as_str(), job.room_id.as_deref()),
        ("ann", Some("lobby"))
    );
    assert_ne!(job.id, next[1].1.id);
    let omitted = json!({"size": 2, "succeeded": 2, "results_omitted": true});
    let status = end(record(&[(Succeeded, Some("1")), (Succeeded, None)]));
    assert_eq!(status.result, Some(omitted.clone()));
    // One is missing.
    let mut short = record(&[(Succeeded, Some("1"))]);
    short.size = 2;
    assert_eq!(end(short).result, Some(omitted));
}

#[test]
fn a_failure_names_the_first_and_counts_the_others() {
    use JobEnd::{Cancelled, Failed, Succeeded};
    let ends = [
        (Succeeded, Some("1")),
        (Failed, None),
        (Cancelled, None),
        (Failed, None),
    ];
    let group = touched(4, 1, 2, 1);
    let status = group.ended(Status::Failed, &record(&ends), Timestamp::UNIX_EPOCH);
    let error = status.error.clone().unwrap();
    assert_eq!(error.code, "group_failed");
    assert_eq!(error.message, "2 of 4 jobs failed, 1 cancelled: t1, t3");
    assert_eq!(status.result, None);
    let next = group.sequel(&status);
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].1.args["error"]["code"], "group_failed");
    let many = touched(7, 0, 7, 0);
    let status = many.ended(
        Status::Failed,
        &record(&[(Failed, None); 7]),
        Timestamp::UNIX_EPOCH,
    );
    let message = status.error.unwrap().message;
    assert_eq!(message, "7 of 7 jobs failed: t0, t1, t2, t3, t4 and 2 more");
}

#[test]
fn nothing_follows_a_cancelled_group() {
    let group = touched(2, 1, 0, 1);
    assert_eq!(group.count.end(), Some(Status::Cancelled));
    let ends = record(&[(JobEnd::Succeeded, Some("1")), (JobEnd::Cancelled, None)]);
    let status = group.ended(Status::Cancelled, &ends, Timestamp::UNIX_EPOCH);
    assert!(group.sequel(&status).is_empty());
    assert_eq!(touched(2, 1, 0, 0).count.end(), None);
    assert_eq!(touched(2, 0, 1, 1).count.end(), Some(Status::Failed));
}
