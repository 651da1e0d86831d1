//! The services as programs, for what only a process can do: be killed, get a signal.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::broker::free_port;
use crate::stack::{PATIENCE, SECRET, Stack, http};

/// A running program. Killed when dropped.
pub struct Program {
    child: Child,
    pub port: u16,
}

/// The path of a program of the workspace: beside our own, or above, as tests are in `deps`.
pub fn path(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap()
    } else {
        folder
    };
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not built: run cargo build",
        path.display()
    );
    path
}

/// A command with nothing of this process's environment but the way to find programs.
pub fn command(name: &str, stack: &Stack) -> Command {
    let mut command = Command::new(path(name));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("BELLHOP_AMQP__URL", &stack.url)
        .env("BELLHOP_AMQP__PREFIX", &stack.prefix)
        .kill_on_drop(true);
    if name == "notifier" {
        command
            .env("BELLHOP_AUTH__SECRET", SECRET)
            .env("BELLHOP_STORE__PATH", stack.folder.0.join("store.db"));
    }
    command
}

impl Program {
    /// Starts `<name> run` with settings (`key=value`), and waits until it is ready.
    pub async fn start(name: &str, stack: &Stack, settings: &[&str]) -> Self {
        let program = Self::start_unready(name, stack, settings);
        program.wait_ready().await;
        program
    }

    /// The same without waiting.
    pub fn start_unready(name: &str, stack: &Stack, settings: &[&str]) -> Self {
        Self::start_on(free_port(), name, stack, settings)
    }

    /// The same on a port, perhaps that of an earlier one, where others look for it.
    pub fn start_on(port: u16, name: &str, stack: &Stack, settings: &[&str]) -> Self {
        let mut command = command(name, stack);
        command
            .args(["run", "--set", &format!("http.listen=127.0.0.1:{port}")])
            .stderr(Stdio::piped());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().unwrap();
        // Its log goes into the test's output, which is shown when the test fails.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let label = format!("{name} {}", child.id().unwrap_or_default());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("[{label}] {line}");
            }
        });
        Self { child, port }
    }

    /// What `/readyz` says.
    pub async fn is_ready(&self) -> bool {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let answer = http().get(&url).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    pub async fn wait_ready(&self) {
        self.wait_until_ready_is(true).await;
    }

    /// Waits until it is ready no more: it stops.
    pub async fn wait_unready(&self) {
        self.wait_until_ready_is(false).await;
    }

    async fn wait_until_ready_is(&self, ready: bool) {
        let wait = async {
            while self.is_ready().await != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait)
            .await
            .expect("the program is as ready as it should be");
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        timeout(Duration::from_mins(1), self.child.wait())
            .await
            .expect("the program ends")
            .unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }
}
