//! Prints what an idle, authenticated connection costs the notifier in resident memory.
//!
//! `make idle-memory`, or with a broker at hand
//! `BELLHOP_TEST_AMQP_URL=amqp://… target/release/idle-memory [CONNECTIONS]`. Ends with status 1
//! when it is more than the bar.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a measuring program: a panic is how it reports"
)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bellhop_tests::client::Client;
use bellhop_tests::program::Program;
use bellhop_tests::stack::{Stack, token};

/// The design's bar, in KiB a connection.
const BAR: f64 = 6.0;

/// As many handshakes at once as a busy server sees.
const AT_ONCE: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let count: usize = match std::env::args().nth(1) {
        Some(count) => count.parse().expect("the number of connections"),
        None => 5_000,
    };
    let stack = Stack::shared();
    let notifier = Program::start("notifier", &stack, &["log.level=warn"]).await;
    // Once through everything, so that what is allocated once is not counted.
    drop(connect(&notifier, 0, 500).await);
    settle(&notifier).await;
    let before = resident_kib(notifier.pid());
    let began = Instant::now();
    let clients = connect(&notifier, 500, count).await;
    let took = began.elapsed();
    settle(&notifier).await;
    let after = resident_kib(notifier.pid());
    let each = (after as f64 - before as f64) / clients.len() as f64;
    println!(
        "{} idle connections, each logged in by token: {each:.2} KiB resident each \
         ({before} KiB before, {after} KiB with them; bar {BAR} KiB); opened in {took:.1?}",
        clients.len()
    );
    ExitCode::from(u8::from(each > BAR))
}

async fn connect(notifier: &Program, first: usize, count: usize) -> Vec<Client> {
    let mut clients = Vec::with_capacity(count);
    let address = ([127, 0, 0, 1], notifier.port).into();
    let users: Vec<usize> = (first..first + count).collect();
    for some in users.chunks(AT_ONCE) {
        let opening = some.iter().map(|user| async move {
            let mut client = Client::connect(address, &token(&format!("user-{user}"))).await;
            client.next_of("connected").await;
            client
        });
        clients.extend(futures_util::future::join_all(opening).await);
    }
    clients
}

/// Waits until the process's memory stands still.
async fn settle(notifier: &Program) {
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = resident_kib(notifier.pid());
        if now == last {
            return;
        }
        last = now;
    }
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let value = line.unwrap().split_whitespace().nth(1);
    value.unwrap().parse().unwrap()
}
