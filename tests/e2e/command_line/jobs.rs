//! What `worker enqueue` may say of a job, and `worker cron`.

use bellhop_tests::stack::Stack;
use bellhop_worker::Registry;
use serde_json::Value;

use super::{File, is_refused, run, run_at};

#[tokio::test]
async fn a_job_is_enqueued_once_for_a_key_and_the_first_ones_id_is_printed() {
    let stack = Stack::shared();
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    worker.stop().await;
    let unique = ["--unique-key", "k", "--unique-for", "1h"];
    let job = [&["enqueue", "count", "--user", "ann"], &unique[..]].concat();
    let first = [&job[..], &["--id", "first"]].concat();
    let ran = run_at(&stack, "worker", &first, &[]).await;
    assert_eq!((&*ran.out, &*ran.err), ("first\n", ""));
    let ran = run_at(&stack, "worker", &job, &[]).await;
    assert_eq!((ran.code, &*ran.out), (Some(0), "first\n"));
    assert!(ran.err.contains("nothing was put in"), "{}", ran.err);
    let rabbit = stack.rabbit().await;
    rabbit.take("jobs.default").await;
    assert_eq!(rabbit.ready("jobs.default").await, 0);
}

#[tokio::test]
async fn a_job_has_what_its_flags_say() {
    let stack = Stack::shared();
    let worker = stack.worker(stack.worker_config(), Registry::new()).await;
    worker.stop().await;
    let rabbit = stack.rabbit().await;
    let job = ["enqueue", "count", "--user", "ann"];
    let flags = [
        ("--run-at", "2026-12-24T18:00:00Z", "run_at"),
        ("--delay", "90s", "delay_s"),
        ("--expires-at", "2036-12-24T18:00:00Z", "expires_at"),
        ("--max-attempts", "3", "max_attempts"),
        ("--timeout", "2m", "timeout_s"),
        ("--priority", "7", "priority"),
        ("--room", "hall", "room_id"),
    ];
    for (flag, value, field) in flags {
        let ran = run_at(&stack, "worker", &[&job[..], &[flag, value]].concat(), &[]).await;
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        let taken: Value = serde_json::from_slice(&rabbit.take("jobs.default").await.body).unwrap();
        let wants = match value {
            "90s" => "90",
            "2m" => "120",
            value => value,
        };
        let found = taken[field].to_string();
        assert_eq!(found.trim_matches('"'), wants, "{taken}");
    }
    let both = ["--delay", "1s", "--run-at", "2026-12-24T18:00:00Z"];
    for (wrong, says) in [
        (&both[..], "--run-at"),
        (&["--run-at", "tomorrow"], "tomorrow"),
        (&["--unique-for", "1h"], "--unique-key"),
        (&["--max-attempts", "0"], "max_attempts"),
    ] {
        is_refused(
            &run_at(&stack, "worker", &[&job[..], wrong].concat(), &[]).await,
            &[says],
        );
    }
}

#[tokio::test]
async fn the_next_times_of_periodic_jobs_are_printed() {
    let nightly = "[cron.nightly]\nschedule = \"0 3 * * *\"\ntimezone = \"Asia/Tokyo\"\n\
                   kind = \"k\"\nuser_id = \"ann\"\n";
    let file = File::with(nightly);
    let ran = run(
        "worker",
        &["cron", "--next", "2", "--config", file.path()],
        &[],
    )
    .await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert!(lines[0].starts_with("nightly: k to default (0 3 * * *, Asia/Tokyo)"));
    assert!(
        lines[1..]
            .iter()
            .all(|line| line.ends_with("03:00:00 +09:00")),
        "{}",
        ran.out
    );
    assert_ne!(lines[1], lines[2]);

    for (right, wrong, says) in [
        ("Asia/Tokyo", "Asia/Tokio", "\"Asia/Tokio\""),
        ("0 3 * * *", "0 33 * * *", "hour field \"33\""),
        ("0 3 * * *", "0 3 30 2 *", "never fires"),
        ("user_id", "user", "user"),
    ] {
        let file = File::with(&nightly.replace(right, wrong));
        for command in [&["cron"][..], &["run", "--check-config"]] {
            let arguments = [command, &["--config", file.path()]].concat();
            is_refused(&run("worker", &arguments, &[]).await, &[says]);
        }
    }
}
