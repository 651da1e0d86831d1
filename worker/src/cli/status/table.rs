//! A look at the system as tables for a terminal. Pure.

use std::cmp::Reverse;
use std::time::Duration;

use bellhop_common::amqp::Depth;
use bellhop_common::table::{self, aligned};
use bellhop_common::wire::{RunningTask, WorkerReport};
use jiff::Timestamp;

use super::Snapshot;

/// How many tasks are shown; `--json` has more.
const TASKS: usize = 20;

/// Longer ids and names are cut.
const WIDEST: usize = 40;

pub(super) fn table(snapshot: &Snapshot) -> String {
    let mut parts = Vec::new();
    if snapshot.workers.is_empty() {
        parts.push(format!(
            "no worker answered within {}: none with the prefix {:?} takes jobs from this broker\n",
            snapshot.waited, snapshot.prefix
        ));
    } else {
        parts.push(aligned(&workers(snapshot)));
    }
    if snapshot.unreadable > 0 {
        parts.push(format!(
            "{} answers are of another version, and are left out\n",
            snapshot.unreadable
        ));
    }
    parts.push("\n".into());
    parts.push(aligned(&queues(snapshot)));
    let tasks = tasks(snapshot);
    if tasks.len() > 1 {
        parts.push("\n".into());
        parts.push(aligned(&tasks));
    }
    let running: u64 = snapshot.workers.iter().map(|worker| worker.running).sum();
    let hidden = running.saturating_sub(TASKS as u64);
    if hidden > 0 {
        parts.push(format!("and {hidden} more\n"));
    }
    parts.concat().trim_end().to_owned()
}

type Row = Vec<String>;

fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.into_iter().map(str::to_owned).collect()
}

fn workers(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = vec![row([
        "WORKER", "VERSION", "UP", "RUNNING", "PER S", "ENDED", "QUEUES",
    ])];
    for worker in &snapshot.workers {
        let queues: Vec<_> = worker
            .queues
            .iter()
            .map(|(name, queue)| format!("{} {}/{}", clean(name), queue.running, queue.concurrency))
            .collect();
        let ended: Vec<_> = worker
            .totals
            .iter()
            .map(|(outcome, total)| format!("{} {total}", clean(outcome)))
            .collect();
        let per_second: f64 = worker.per_second.values().sum();
        rows.push(vec![
            format!("{}/{}", clean(&worker.host), worker.pid),
            clean(&worker.version),
            lasted(worker.started_at, worker.time),
            worker.running.to_string(),
            format!("{per_second:.1}"),
            or_dash(ended.join(", ")),
            queues.join(", "),
        ]);
    }
    rows
}

fn queues(snapshot: &Snapshot) -> Vec<Row> {
    let mut rows = vec![row(["QUEUE", "READY", "CONSUMERS", "RUNNING", "PLACES"])];
    for (name, depth) in &snapshot.queues {
        rows.push(queue(snapshot, name, *depth));
    }
    let alone = snapshot.quarantine.to_string();
    rows.push(row(["(quarantine)", &alone, "-", "-", "-"]));
    let delayed = snapshot.delayed.to_string();
    rows.push(row(["(delayed)", &delayed, "-", "-", "-"]));
    let dead = snapshot.dead.map(|depth| depth.ready.to_string());
    let dead = dead.unwrap_or_else(|| "-".into());
    rows.push(row(["(dead letters)", &dead, "-", "-", "-"]));
    rows
}

fn queue(snapshot: &Snapshot, name: &str, depth: Option<Depth>) -> Row {
    let served = || {
        let queues = snapshot.workers.iter().map(|worker| &worker.queues);
        queues.filter_map(|queues| queues.get(name))
    };
    let running: u64 = served().map(|queue| queue.running).sum();
    let places: u64 = served().map(|queue| queue.concurrency).sum();
    let (ready, consumers) = match depth {
        Some(depth) => (depth.ready.to_string(), depth.consumers.to_string()),
        None => ("no queue".into(), "-".into()),
    };
    let (running, places) = (running.to_string(), places.to_string());
    vec![clean(name), ready, consumers, running, places]
}

/// Those that have run longest, each by its own worker's clock.
fn tasks(snapshot: &Snapshot) -> Vec<Row> {
    let age = |worker: &WorkerReport, task: &RunningTask| worker.time.duration_since(task.since);
    let mut all: Vec<_> = snapshot
        .workers
        .iter()
        .flat_map(|worker| worker.tasks.iter().map(move |task| (worker, task)))
        .collect();
    all.sort_by_key(|(worker, task)| Reverse(age(worker, task)));
    let mut rows = vec![row([
        "TASK", "KIND", "OWNER", "ATTEMPT", "RUNS FOR", "%", "WORKER",
    ])];
    for (worker, task) in all.into_iter().take(TASKS) {
        rows.push(vec![
            clean(&task.task_id),
            clean(&task.kind),
            clean(&task.user_id),
            task.attempt.to_string(),
            lasted(task.since, worker.time),
            or_dash(
                task.percent
                    .map(|percent| format!("{percent:.0}"))
                    .unwrap_or_default(),
            ),
            format!("{}/{}", clean(&worker.host), worker.pid),
        ]);
    }
    rows
}

/// What others chose, fit for a terminal.
fn clean(text: &str) -> String {
    table::clean(text, WIDEST)
}

fn or_dash(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// `41s`, `5m 07s`, `3h 20m`, `2d 04h`.
fn lasted(from: Timestamp, to: Timestamp) -> String {
    let time = Duration::try_from(to.duration_since(from)).unwrap_or_default();
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bellhop_common::config::HumanDuration;
    use bellhop_common::wire::QueueReport;
    use uuid::Uuid;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn empty() -> Snapshot {
        Snapshot {
            time: at("2026-01-15T10:30:00Z"),
            prefix: "bellhop.".into(),
            waited: HumanDuration::from_secs(1),
            workers: Vec::new(),
            unreadable: 0,
            queues: [("default".to_owned(), None)].into(),
            dead: None,
            quarantine: 0,
            delayed: 0,
        }
    }

    fn worker(tasks: Vec<RunningTask>) -> WorkerReport {
        let queue = QueueReport {
            concurrency: 4,
            running: 1,
        };
        WorkerReport {
            id: Uuid::nil(),
            host: "box".into(),
            pid: 7,
            version: "0.1.0".into(),
            started_at: at("2026-01-15T08:27:00Z"),
            time: at("2026-01-15T10:30:00Z"),
            queues: [("default".to_owned(), queue)].into(),
            kinds: vec!["k".into()],
            totals: [("succeeded".to_owned(), 12)].into(),
            per_second: [("succeeded".to_owned(), 0.25)].into(),
            running: tasks.len() as u64,
            tasks,
        }
    }

    fn task(id: &str, since: &str) -> RunningTask {
        RunningTask {
            task_id: id.into(),
            kind: "k".into(),
            user_id: "ann".into(),
            queue: "default".into(),
            attempt: 2,
            since: at(since),
            percent: Some(40.0),
        }
    }

    #[test]
    fn that_nobody_answered_is_said() {
        let text = table(&empty());
        assert!(
            text.starts_with("no worker answered within 1s: none with the prefix \"bellhop.\""),
            "{text}"
        );
        assert!(text.contains("\ndefault         no queue  -"), "{text}");
    }

    #[test]
    fn a_look_is_three_tables() {
        let ready = Depth {
            ready: 120,
            consumers: 1,
        };
        let snapshot = Snapshot {
            workers: vec![worker(vec![
                task("young", "2026-01-15T10:29:19Z"),
                task("old", "2026-01-15T10:24:53Z"),
            ])],
            queues: [("default".to_owned(), Some(ready))].into(),
            quarantine: 0,
            delayed: 3,
            ..empty()
        };
        let wants = "\
WORKER  VERSION  UP      RUNNING  PER S  ENDED         QUEUES
box/7   0.1.0    2h 03m  2        0.2    succeeded 12  default 1/4

QUEUE           READY  CONSUMERS  RUNNING  PLACES
default         120    1          1        4
(quarantine)    0      -          -        -
(delayed)       3      -          -        -
(dead letters)  -      -          -        -

TASK   KIND  OWNER  ATTEMPT  RUNS FOR  %   WORKER
old    k     ann    2        5m 07s    40  box/7
young  k     ann    2        41s       40  box/7";
        assert_eq!(table(&snapshot), wants);
    }

    #[test]
    fn what_others_chose_does_not_steer_the_terminal() {
        let snapshot = Snapshot {
            workers: vec![worker(vec![task(
                &format!("\x1b[2J\u{202e}{}", "x".repeat(200)),
                "2026-01-15T10:29:19Z",
            )])],
            ..empty()
        };
        let text = table(&snapshot);
        assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
        assert!(
            text.lines().all(|line| line.chars().count() < 120),
            "{text}"
        );
    }

    #[test]
    fn long_lists_are_cut() {
        let tasks = (0..30).map(|n| task(&format!("t{n}"), "2026-01-15T10:29:19Z"));
        let snapshot = Snapshot {
            workers: vec![worker(tasks.collect())],
            ..empty()
        };
        assert!(table(&snapshot).ends_with("\nand 10 more"));
    }
}
