//! A child process with its whole process group.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long a program may take to start that was being started when all were killed.
const START: Duration = Duration::from_millis(100);

/// The groups that run, by their leaders' ids. One for the process, as its end is.
static GROUPS: Mutex<Groups> = Mutex::new(Groups {
    leaders: BTreeMap::new(),
    closed: false,
});

struct Groups {
    leaders: BTreeMap<i32, Pid>,
    /// All were killed, and no more may start.
    closed: bool,
}

fn groups() -> MutexGuard<'static, Groups> {
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills every program that a job has started, with its whole group, and lets no other start: for
/// a worker that is to end at once. What becomes of their jobs is not told; they go back to their
/// queues when the process ends. Blocks for a tenth of a second.
#[expect(
    clippy::disallowed_methods,
    reason = "called by a thread of its own, whose last act it is"
)]
pub fn kill_programs() {
    let mut groups = groups();
    groups.closed = true;
    for leader in groups.leaders.values() {
        // A group that has ended already is no error of ours.
        kill_process_group(*leader, Signal::KILL).ok();
    }
    drop(groups);
    // One that is being started finds the door closed, and is killed by who started it.
    std::thread::sleep(START);
}

/// Never returns when all programs were killed: the process ends, and what they died of is no
/// outcome of their jobs.
pub(super) async fn unless_all_were_killed() {
    if groups().closed {
        std::future::pending::<()>().await;
    }
}

/// A child that leads a process group of its own. Dropping it kills the group.
///
/// The group is only ever signalled while its leader has not been reaped: until then the kernel
/// gives the leader's id, which is also the group's, to nobody else.
pub(super) struct ProcessGroup {
    child: Child,
    leader: Pid,
    reaped: bool,
}

/// The ends of the child's standard streams.
pub(super) struct Pipes {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl ProcessGroup {
    /// Starts the program.
    pub(super) fn spawn(mut command: Command) -> io::Result<(Self, Pipes)> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            // For a child whose group is not known, which ends just below.
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let leader = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the system gave it no process id"))?;
        let pipes = Pipes {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let group = Self {
            child,
            leader,
            reaped: false,
        };
        let mut groups = groups();
        if groups.closed {
            drop(groups);
            return Err(io::Error::other("the worker ends"));
        }
        groups.leaders.insert(leader.as_raw_pid(), leader);
        drop(groups);
        Ok((group, pipes))
    }

    /// Asks every process of the group to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends every process of the group.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    fn signal(&self, signal: Signal) {
        if self.reaped {
            return;
        }
        if let Err(error) = kill_process_group(self.leader, signal) {
            tracing::debug!(%error, leader = self.leader.as_raw_pid(), "the signal was not sent");
        }
    }

    /// Waits until the leader has ended, and leaves it to [`reap`](Self::reap).
    pub(super) async fn ended(&self) -> io::Result<()> {
        // Listening starts before the first look, so that no end falls in between.
        let mut children = signal(SignalKind::child())?;
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(self.leader), look)?.is_none() {
            children.recv().await;
        }
        Ok(())
    }

    /// Waits for the leader's end and removes it from the system's table. After this the group
    /// cannot be signalled any more.
    pub(super) async fn reap(&mut self) -> io::Result<ExitStatus> {
        self.forget();
        let status = self.child.wait().await;
        self.reaped = true;
        status
    }

    /// From here on its id may be given to another.
    fn forget(&self) {
        groups().leaders.remove(&self.leader.as_raw_pid());
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.forget();
        self.kill();
    }
}
