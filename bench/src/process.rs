//! What is measured, as a process group of its own: its memory, its processor time, its end.

use std::fs;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use bellhop_common::cli::health_check;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

/// How long a process may take until it is ready.
const START: Duration = Duration::from_secs(20);
/// How long a process may take to end in order.
const END: Duration = Duration::from_secs(20);

/// A running process and all that it started. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Pid,
    name: String,
    log: PathBuf,
    ended: bool,
}

/// What a group has used.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Processor time since its start.
    pub(crate) cpu: Duration,
    /// Resident now, over all its processes, in KiB.
    pub(crate) resident_kib: u64,
}

impl Group {
    /// Starts it. What it says on standard error goes to `log`, and is shown when it ends badly.
    pub(crate) fn start(mut command: Command, name: &str, log: PathBuf) -> anyhow::Result<Self> {
        let file =
            fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .with_context(|| format!("{name} ended at once"))?;
        Ok(Self {
            child,
            leader,
            name: name.to_owned(),
            log,
            ended: false,
        })
    }

    /// An error with its last words if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended with {status}: {}", self.name, self.last_words());
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        rustix::process::kill_process(self.leader, Signal::TERM)?;
        match timeout(END, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("{} ended with {status}: {}", self.name, self.last_words());
                }
                self.ended = true;
                Ok(())
            }
            Err(_) => bail!("{} did not end within {END:?}", self.name),
        }
    }

    /// What its processes use now.
    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage {
            cpu: Duration::ZERO,
            resident_kib: 0,
        };
        for pid in members(self.leader) {
            usage.resident_kib += status_kib(pid, "VmRSS:").unwrap_or(0);
            usage.cpu += cpu_time(pid).unwrap_or_default();
        }
        usage
    }

    /// The most that the leader had resident so far, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        status_kib(self.leader.as_raw_nonzero().get(), "VmHWM:").unwrap_or(0)
    }

    /// What is resident once it stands still for two seconds, in KiB.
    pub(crate) async fn settled_kib(&mut self) -> anyhow::Result<u64> {
        let (mut last, mut since) = (0, Instant::now());
        while since.elapsed() < Duration::from_secs(2) {
            sleep(Duration::from_millis(100)).await;
            self.check()?;
            let now = self.usage().resident_kib;
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        Ok(last)
    }

    /// Waits until something it does is done.
    pub(crate) async fn until(&mut self, done: impl Fn() -> bool) -> anyhow::Result<()> {
        let until = Instant::now() + START;
        while !done() {
            self.check()?;
            if Instant::now() > until {
                bail!("{} is not ready after {START:?}", self.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until a service of ours says that it is ready.
    pub(crate) async fn until_ready(&mut self, address: SocketAddr) -> anyhow::Result<()> {
        let until = Instant::now() + START;
        while let Err(error) = health_check(address).await {
            self.check()?;
            if Instant::now() > until {
                bail!("{} is not ready after {START:?}: {error}", self.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let mut text = String::new();
        if let Ok(mut log) = fs::File::open(&self.log) {
            drop(log.read_to_string(&mut text));
        }
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(12);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // An error says that all of it is gone already.
        let _gone = kill_process_group(self.leader, Signal::KILL);
    }
}

/// The processes of a group.
fn members(leader: Pid) -> Vec<i32> {
    let group = leader.as_raw_nonzero().get();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat_field(pid, 2) == Some(i64::from(group)))
        .collect()
}

/// A field of `/proc/PID/stat`, counted from 0 after the name.
fn stat_field(pid: i32, index: usize) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(index)?.parse().ok()
}

/// What a process has used since its start.
pub(crate) fn cpu_time(pid: i32) -> Option<Duration> {
    let ticks = stat_field(pid, 11)? + stat_field(pid, 12)?;
    let per_second = rustix::param::clock_ticks_per_second();
    let millis = u64::try_from(ticks).ok()? * 1000 / per_second.max(1);
    Some(Duration::from_millis(millis))
}

fn status_kib(pid: i32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
