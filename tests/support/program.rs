//! The services as programs, for what only a process can do: be killed, get a signal.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
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
    address: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

/// Where a program runs, if that is somewhere special.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// Where it listens.
    pub address: SocketAddr,
    /// A command that becomes the program: `nsenter …`.
    pub by: Vec<String>,
    pub environment: Vec<(String, String)>,
}

impl Surroundings {
    /// Nothing special, at a port.
    pub fn usual(port: u16) -> Self {
        Self {
            address: ([127, 0, 0, 1], port).into(),
            by: Vec::new(),
            environment: Vec::new(),
        }
    }
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
    command_by(&[], name, stack)
}

/// The same, by way of another that becomes it.
pub fn command_by(by: &[String], name: &str, stack: &Stack) -> Command {
    let mut command = match by {
        [] => Command::new(path(name)),
        [first, others @ ..] => {
            let mut command = Command::new(first);
            command.args(others).arg(path(name));
            command
        }
    };
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
        Self::start_in(&Surroundings::usual(port), name, stack, settings)
    }

    /// The same somewhere special.
    pub fn start_in(place: &Surroundings, name: &str, stack: &Stack, settings: &[&str]) -> Self {
        let mut command = command_by(&place.by, name, stack);
        command
            .envs(place.environment.iter().cloned())
            .args(["run", "--set", &format!("http.listen={}", place.address)])
            .stderr(Stdio::piped());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().unwrap();
        // Its log goes into the test's output, which is shown when the test fails.
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let label = format!("{name} {}", child.id().unwrap_or_default());
        let log = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                eprintln!("[{label}] {line}");
                kept.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            port: place.address.port(),
            address: place.address,
            log,
        }
    }

    /// What it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The answer to a GET: status and body. 0 if there is none.
    pub async fn get(&self, path: &str) -> (u16, String) {
        let url = format!("http://{}{path}", self.address);
        match http().get(&url).send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                (status, answer.text().await.unwrap_or_default())
            }
            Err(_) => (0, String::new()),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The value of a series in `/metrics`, as `name{label="x"}`; 0 before it was touched.
    pub async fn metric(&self, series: &str) -> u64 {
        self.touched(series).await.unwrap_or_default()
    }

    /// The same; nothing before it was touched.
    pub async fn touched(&self, series: &str) -> Option<u64> {
        let (_, page) = self.get("/metrics").await;
        let mut lines = page.lines();
        let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        value.parse().ok()
    }

    /// Its memory, resident.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.unwrap().split_whitespace().nth(1);
        number.unwrap().parse().unwrap()
    }

    /// What `/readyz` says.
    pub async fn is_ready(&self) -> bool {
        self.get("/readyz").await.0 == 200
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
