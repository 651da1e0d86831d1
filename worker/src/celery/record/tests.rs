use super::*;

const AT: &str = "2026-01-15T10:30:00Z";

fn record() -> Record {
    Record::new(Identity {
        node: "bellhop@h".into(),
        pid: 7,
        system: "Linux".into(),
    })
}

fn job() -> Job {
    Job::new("t1", "report", json!({"pages": 3}), "ann")
}

fn status(status: Status, attempt: u32, millis: i64) -> TaskStatus {
    let begin: Timestamp = AT.parse().unwrap();
    TaskStatus {
        task_id: "t1".into(),
        kind: "report".into(),
        title: None,
        user_id: "ann".into(),
        status,
        attempt,
        max_attempts: 5,
        rev: 1,
        progress: None,
        error: None,
        result: None,
        next_attempt_at: None,
        group: None,
        timestamp: begin + jiff::SignedDuration::from_millis(millis),
    }
}

fn failed(state: Status, code: &str) -> TaskStatus {
    TaskStatus {
        error: Some(TaskError::new(code, "no disk\nsecond line")),
        ..status(state, 1, 0)
    }
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name).collect()
}

#[test]
fn a_task_that_somebody_else_ended_is_not_active() {
    let (mut record, job) = (record(), job());
    record.tell(&status(Status::Running, 1, 0), &job, &job.args);
    assert_eq!(record.active().len(), 1);
    record.forget("t1");
    assert!(record.active().is_empty());
}

#[test]
fn a_task_is_received_started_and_succeeds() {
    let (mut record, job) = (record(), job());
    let events = record.tell(&status(Status::Running, 2, 0), &job, &job.args);
    assert_eq!(names(&events), ["task-received", "task-started"]);
    assert_eq!(
        events[0].fields,
        json!({
            "type": "task-received", "hostname": "bellhop@h", "pid": 7, "clock": 1,
            "timestamp": 1_768_473_000.0, "uuid": "t1", "name": "report", "args": "()",
            "kwargs": "{'pages': 3}", "root_id": "t1", "parent_id": null, "retries": 1,
            "eta": null, "expires": null
        })
    );
    let progress = record.tell(&status(Status::Running, 2, 50), &job, &job.args);
    assert!(progress.is_empty(), "progress is no event of Celery's");
    assert_eq!(record.active()[0]["name"], "report");
    let mut end = status(Status::Succeeded, 2, 1250);
    end.result = Some(json!({"done": true}));
    let events = record.tell(&end, &job, &job.args);
    assert_eq!(names(&events), ["task-succeeded"]);
    let fields = &events[0].fields;
    assert_eq!(fields["result"], "{'done': True}");
    assert_eq!(
        (&fields["runtime"], &fields["clock"]),
        (&json!(1.25), &json!(3))
    );
    assert!(record.active().is_empty());
}

#[test]
fn every_end_has_its_event() {
    for (end, name) in [
        (failed(Status::Failed, "exit_3"), "task-failed"),
        (failed(Status::Retrying, "exit_3"), "task-retried"),
        (failed(Status::Failed, "expired"), "task-revoked"),
        (failed(Status::Cancelled, "expired"), "task-revoked"),
        (status(Status::Cancelled, 1, 0), "task-revoked"),
    ] {
        let (mut record, job) = (record(), job());
        record.tell(&status(Status::Running, 1, 0), &job, &job.args);
        let events = record.tell(&end, &job, &job.args);
        assert_eq!(names(&events), [name]);
        let fields = &events[0].fields;
        assert_eq!(fields["uuid"], "t1");
        if name == "task-revoked" {
            assert_eq!(fields["terminated"], true);
            assert_eq!(fields["expired"], end.error.is_some());
        } else {
            assert_eq!(fields["exception"], "exit_3: no disk");
            assert_eq!(fields["traceback"], "no disk\nsecond line");
        }
    }
}

#[test]
fn a_task_that_never_began_is_named_before_its_end() {
    let mut record = record();
    let events = record.tell(&failed(Status::Failed, "unknown_kind"), &job(), &job().args);
    assert_eq!(names(&events), ["task-received", "task-failed"]);
    let events = record.tell(&status(Status::Cancelled, 0, 0), &job(), &job().args);
    assert_eq!(names(&events), ["task-received", "task-revoked"]);
    assert_eq!(events[1].fields["terminated"], false);
    assert_eq!(
        record
            .alive("worker-heartbeat", [0.0; 3], AT.parse().unwrap())
            .fields["processed"],
        0
    );
}

#[test]
fn a_scheduled_task_is_received_with_its_time() {
    let mut record = record();
    let mut scheduled = status(Status::Scheduled, 1, 0);
    scheduled.next_attempt_at = Some("2026-01-15T11:00:00Z".parse().unwrap());
    let events = record.tell(&scheduled, &job(), &job().args);
    assert_eq!(names(&events), ["task-received"]);
    assert_eq!(events[0].fields["eta"], "2026-01-15T11:00:00Z");
    assert!(
        record
            .tell(&status(Status::Queued, 0, 0), &job(), &job().args)
            .is_empty()
    );
}

#[test]
fn the_clock_is_above_every_clock_it_has_seen() {
    let mut record = record();
    record.adjust_clock(40);
    let event = record.alive("worker-online", [0.5, 0.25, 0.0], AT.parse().unwrap());
    assert_eq!(event.fields["clock"], 42);
    assert_eq!(event.fields["loadavg"], json!([0.5, 0.25, 0.0]));
    record.adjust_clock(3);
    assert_eq!(record.clock(), 43);
}

#[test]
fn a_second_attempt_starts_again() {
    let (mut record, job) = (record(), job());
    record.tell(&status(Status::Running, 1, 0), &job, &job.args);
    record.tell(&failed(Status::Retrying, "flaky"), &job, &job.args);
    let events = record.tell(&status(Status::Running, 2, 0), &job, &job.args);
    assert_eq!(names(&events), ["task-received", "task-started"]);
    assert_eq!(record.totals()["report"], 2);
}
