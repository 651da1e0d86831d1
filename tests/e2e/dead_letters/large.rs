//! Many letters, many who look, and one who is killed in the middle.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bellhop_tests::program::command;
use bellhop_tests::rabbit::Rabbit;
use bellhop_tests::stack::PATIENCE;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::{sleep, timeout};

use super::{dead, prepared};

async fn fill(rabbit: &Rabbit, letters: usize, bytes: usize) {
    let headers = [
        ("x-bellhop-queue", "default"),
        ("x-bellhop-reason", "timeout"),
    ];
    let args = "x".repeat(bytes);
    // The confirms are awaited side by side; the messages go out one after the other.
    stream::iter(0..letters)
        .map(|n| json!({"id": format!("t{n:05}"), "kind": "k", "user_id": "ann", "args": args}))
        .map(|job| rabbit.publish_headers("dead", "default", job.to_string(), &headers))
        .buffered(100)
        .collect::<()>()
        .await;
}

fn names(letters: usize) -> Vec<String> {
    (0..letters).map(|n| format!("t{n:05}")).collect()
}

/// The most memory a process has held so far, in bytes.
fn peak_memory(pid: u32) -> Option<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[tokio::test]
async fn two_thousand_large_letters_are_listed_in_little_memory_and_in_order() {
    const LETTERS: usize = 2000;
    const BYTES: usize = 40 * 1024;
    let (stack, rabbit) = prepared().await;
    fill(&rabbit, LETTERS, BYTES).await;
    let mut list = command("worker", &stack);
    list.args(["dead", "list", "--json", "--limit", "5000"]);
    let mut child = list.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut ids, mut peak) = (Vec::new(), 0);
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            // Until its end is near it waits for us: a pipe holds less than what is to come.
            peak = peak_memory(child.id().unwrap()).unwrap_or(0).max(peak);
            let letter: Value = serde_json::from_str(&line).unwrap();
            ids.push(letter["id"].as_str().unwrap().to_owned());
        }
    };
    timeout(3 * PATIENCE, reading).await.unwrap();
    assert!(child.wait().await.unwrap().success());
    assert!(ids == names(LETTERS), "{} letters", ids.len());
    println!(
        "peak {} KiB for {} KiB of bodies",
        peak / 1024,
        LETTERS * BYTES / 1024
    );
    assert!((1..LETTERS * BYTES / 2).contains(&peak), "{peak} bytes");
    rabbit.settles_at("dead", 2000).await;
    let again = dead(&stack, &["list", "--json", "--limit", "3"])
        .await
        .ids();
    assert_eq!(again, names(3), "each is in its place again");
}

#[tokio::test]
async fn two_who_look_at_once_both_see_everything() {
    let (stack, rabbit) = prepared().await;
    fill(&rabbit, 300, 10).await;
    let arguments = ["list", "--json", "--limit", "1000"];
    let (first, second) = tokio::join!(dead(&stack, &arguments), dead(&stack, &arguments));
    assert_eq!(first.ids(), names(300));
    assert_eq!(second.ids(), names(300));
}

#[tokio::test]
async fn a_replay_that_is_killed_loses_nothing_and_doubles_one_at_most() {
    let (stack, rabbit) = prepared().await;
    fill(&rabbit, 300, 10).await;
    let mut replay = command("worker", &stack);
    let mut child = replay.args(["dead", "replay", "--all"]).spawn().unwrap();
    let begun = async {
        while rabbit.ready("jobs.default").await < 30 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, begun).await.unwrap();
    child.kill().await.unwrap();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let all = async {
        // The broker puts back what was held when it has seen the connection's end.
        while seen.len() < 300 {
            for queue in ["dead", "jobs.default"] {
                while let Some(taken) = rabbit.try_take(queue).await {
                    let job: Value = serde_json::from_slice(&taken.body).unwrap();
                    *seen
                        .entry(job["id"].as_str().unwrap().to_owned())
                        .or_default() += 1;
                }
            }
        }
    };
    timeout(PATIENCE, all).await.expect("none is lost");
    let doubled = seen.values().filter(|times| **times > 1).count();
    assert!(doubled <= 1, "{doubled} are there twice");
}
