//! RabbitMQ: the one that `scripts/with-broker` runs for all tests, and nodes of a test's own.

use std::path::PathBuf;
use std::process::{Command, Output};

use uuid::Uuid;

/// A variable that `scripts/with-broker` sets.
pub fn setting(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/with-broker"))
}

/// The shared broker.
pub fn shared_url() -> String {
    setting("BELLHOP_TEST_AMQP_URL")
}

/// A prefix that no other test uses, so that tests share a broker without meeting.
pub fn fresh_prefix() -> String {
    format!("t-{}.", Uuid::now_v7().simple())
}

/// A node that the test may stop and kill. Gone, with its data, when dropped.
#[derive(Debug)]
pub struct OwnBroker {
    dir: PathBuf,
    port: u16,
}

impl OwnBroker {
    /// A port and a folder for a node that does not run yet.
    pub fn prepare() -> Self {
        let name = format!("bellhop-own-{}", Uuid::now_v7().simple());
        let dir = std::env::temp_dir().join(name);
        Self {
            dir,
            port: free_port(),
        }
    }

    /// A running node.
    pub async fn started() -> Self {
        let broker = Self::prepare();
        broker.start().await;
        broker
    }

    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    pub async fn start(&self) {
        let port = self.port.to_string();
        self.script(&["start", "DIR", "--port", &port]).await;
    }

    pub async fn stop(&self) {
        self.script(&["stop", "DIR"]).await;
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        self.script(&["kill", "DIR"]).await;
    }

    /// `rabbitmqctl`.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let all: Vec<_> = ["ctl", "DIR"].iter().chain(arguments).copied().collect();
        self.script(&all).await
    }

    async fn script(&self, arguments: &[&str]) -> String {
        let (dir, arguments) = (self.dir.clone(), own(arguments));
        let output = tokio::task::spawn_blocking(move || run(&dir, &arguments))
            .await
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rabbitmq script: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        for command in ["kill", "stop"] {
            drop(run(&self.dir, &own(&[command, "DIR"])));
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

fn own(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|&argument| argument.into()).collect()
}

fn run(dir: &std::path::Path, arguments: &[String]) -> Output {
    let mut command = Command::new(setting("BELLHOP_TEST_RABBITMQ"));
    for argument in arguments {
        match argument.as_str() {
            "DIR" => command.arg(dir),
            other => command.arg(other),
        };
    }
    command.output().expect("scripts/rabbitmq can be run")
}

/// A port that was free a moment ago, below those from which outgoing connections take theirs: a
/// broker that is gone for a moment finds it free when it comes back.
pub fn free_port() -> u16 {
    loop {
        let port = 15_000 + Uuid::new_v4().as_fields().1 % 16_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
