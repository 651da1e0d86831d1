//! Servers that go with their test.

use std::io::{BufRead as _, BufReader};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Client, Cmd, FromRedisValue};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::store::conformance::RETENTION;
use crate::store::redis::Redis;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server in a folder of its own, on a socket there.
pub(super) struct Server {
    folder: PathBuf,
    options: Vec<String>,
    process: Child,
}

/// A server of a cluster, and where others reach it.
pub(super) struct Node {
    pub(super) server: Server,
    pub(super) port: u16,
}

impl Server {
    /// Keeps nothing, but for the options.
    pub(super) async fn start(options: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("bellhop-redis-{}", Uuid::now_v7()));
        std::fs::create_dir(&folder).unwrap();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let process = spawn(&folder, &options).await;
        Self {
            folder,
            options,
            process,
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.folder.join("socket").display())
    }

    /// A store with a prefix of its own.
    pub(super) fn store(&self) -> Redis {
        let prefix = format!("{}:", Uuid::now_v7());
        Redis::open(&self.url(), &prefix, RETENTION).unwrap()
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let client = Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut words = Cmd::new();
        for word in command.split(' ') {
            words.arg(word);
        }
        words.query_async(&mut connection).await
    }

    /// One primary of a cluster, with a range of its slots.
    pub(super) async fn start_in_cluster(slots: RangeInclusive<u16>) -> Node {
        let port = free_port_of_cluster();
        let options = ["--port", &port.to_string(), "--cluster-enabled", "yes"];
        let server = Self::start(&options).await;
        // One by one: `ADDSLOTSRANGE` is of Redis 7.
        let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
        let add = format!("CLUSTER ADDSLOTS {}", slots.join(" "));
        server.ask::<()>(&add).await.unwrap();
        Node { server, port }
    }

    /// Waits until an answer has a text in it, of which Redis tells nobody by itself.
    pub(super) async fn says(&self, command: &str, wanted: &str) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer: String = self.ask(command).await.unwrap();
            if answer.contains(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{command}: {answer}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// It cannot write anything any more.
    pub(super) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub(super) async fn start_again(&mut self) {
        self.process = spawn(&self.folder, &self.options).await;
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.process);
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Nodes talk to each other at a port that is 10,000 above; only Redis 7 takes another.
fn free_port_of_cluster() -> u16 {
    loop {
        let port = free_port();
        let bus = port.checked_add(10_000);
        if bus.is_some_and(|bus| std::net::TcpListener::bind(("127.0.0.1", bus)).is_ok()) {
            return port;
        }
    }
}

/// Starts a server, and waits until it says that it is ready.
async fn spawn(folder: &Path, options: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.current_dir(folder);
    command.args(["--port", "0", "--unixsocket", "socket"]);
    command.args(["--save", "", "--appendonly", "no"]);
    command.args(options).stdout(Stdio::piped());
    let mut process = command.spawn().expect("redis-server is installed");
    // What it says later goes nowhere, and it does not mind.
    let says = BufReader::new(process.stdout.take().unwrap()).lines();
    let reading = spawn_blocking(move || {
        says.map_while(Result::ok)
            .any(|line| line.contains("eady to accept connections"))
    });
    let is_ready = timeout(DEADLINE, reading).await.unwrap().unwrap();
    assert!(is_ready, "redis-server has ended");
    process
}
