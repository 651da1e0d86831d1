//! Servers that go with their test.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue};
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
        store_at(&self.url())
    }

    pub(super) async fn connection(&self) -> redis::RedisResult<MultiplexedConnection> {
        // Without it half a second, which a busy machine may take.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let client = Client::open(self.url())?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        connecting.await
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &str) -> redis::RedisResult<T> {
        let mut connection = self.connection().await?;
        let mut words = Cmd::new();
        for word in command.split(' ') {
            words.arg(word);
        }
        words.query_async(&mut connection).await
    }

    /// Waits until an answer has a text in it, of which Redis tells nobody by itself.
    pub(super) async fn says(&self, command: &str, wanted: &str) {
        self.until(command, |answer| answer.contains(wanted)).await;
    }

    /// Waits until an answer is as it should be.
    pub(super) async fn until(&self, command: &str, is_right: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer: String = self.ask(command).await.unwrap();
            if is_right(&answer) {
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

/// A store with a prefix of its own.
pub(super) fn store_at(url: &str) -> Redis {
    let prefix = format!("{}:", Uuid::now_v7());
    Redis::open(url, &prefix, RETENTION).unwrap()
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
