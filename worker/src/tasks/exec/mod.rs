//! `exec`: jobs that a program runs, written in any language.
//!
//! `[exec."images.resize"] command = ["/opt/resize", "--fast"]` makes the worker run that program
//! once for each attempt of a job of that kind. Only the configuration says what is run; a job can
//! neither choose the program nor add to its command line.
//!
//! # What the program gets
//! - **stdin**: the job's `args` as JSON in one line, then the end of the file. It need not read it.
//! - **environment**: `BELLHOP_TASK_ID`, `BELLHOP_USER_ID`, `BELLHOP_ATTEMPT` (from 1) and
//!   `BELLHOP_KIND`; `TRACEPARENT` when the job came with one (W3C trace context); `PATH`, `HOME`, `LANG` and `TZ` as the worker has them; the worker's variables
//!   that `env` names; those that `set_env` sets. Nothing else.
//! - **working directory**: `cwd`, or the worker's own.
//!
//! # What the program says
//! - **stdout**: lines of UTF-8 (bad bytes are replaced). An object with the single key `progress`
//!   is progress, `{"progress": {"percent", "done", "total", "unit", "message", "step"}}`, every
//!   field optional: `percent` follows from `done` and `total` (whole numbers) when absent, and is
//!   kept within 0 to 100. An object with the single key `log` and a text is a line for the owner,
//!   `{"log": "12 rows skipped"}`. One of these that cannot be understood is passed over. The last
//!   other line that is not blank is the result: as JSON if it is JSON, as a text otherwise;
//!   `null` when there is none. A line may have `max_output` bytes (1 MiB), all together
//!   `max_total_output` (64 MiB).
//!   Most languages buffer what they write into a pipe, so flush after each line.
//! - **stderr**: anything; the last 8 KiB go into the error message when the attempt fails, and so
//!   to the job's owner.
//! - **exit code**: 0 is success. Those of `retry_exit_codes`, by default 75 (`EX_TEMPFAIL`), are
//!   failures that may pass: try again. Any other is a failure for good.
//!
//! # What it may use
//! [`ExecLimits`] holds for each process of the program, from its first instruction.
//!
//! ```python
//! import json, sys
//! args = json.load(sys.stdin)
//! for n in range(args["pages"]):
//!     print(json.dumps({"progress": {"done": n, "total": args["pages"], "unit": "pages"}}), flush=True)
//! print(json.dumps({"pages": args["pages"]}))
//! ```
//!
//! # How it ends
//! | what happens | outcome |
//! |---|---|
//! | exit code 0 | done |
//! | exit code *n* of `retry_exit_codes` | retry, code `exit_<n>` |
//! | another exit code *n* | failed, code `exit_<n>` |
//! | more processor time than `limits.cpu` | failed, code `cpu_limit` |
//! | ended by signal *n* | failed, code `signal_<n>` |
//! | a line on stdout, or all of it, is too long | failed, code `output_too_large`; the program is killed |
//! | the program cannot be started | failed, code `spawn_failed` |
//! | the system does not say how the program ended | failed, code `wait_failed` |
//! | the job is cancelled | cancelled, whatever the program says then |
//!
//! The program leads a process group. When the job is cancelled or its time is up, the group gets
//! SIGTERM, and SIGKILL when `grace` (5 s) has passed. When the program has ended, the rest of its
//! group is killed: at once, or after a second when it still holds stdout or stderr open. So no
//! process outlives its job, save one that leaves the group (`setsid`), and all when the worker
//! itself is killed with SIGKILL: they notice it by their closed pipes. A worker that gets a second
//! signal kills the groups of all its programs before it ends ([`kill_programs`]).

mod attend;
mod child;
mod config;
mod limits;
mod tail;

use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;

use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;
use tokio::process::Command;

use crate::outcome::Outcome;
use crate::registry::Handler;
use crate::task::TaskContext;
use crate::tasks::output::{Output, TooLarge};
use attend::{Ending, attend, streams};
pub use child::kill_programs;
use child::{ProcessGroup, unless_all_were_killed};
use config::ALWAYS_PASSED;
pub use config::{ExecConfig, InvalidExec};
pub use limits::ExecLimits;
use tail::Tail;

/// The handler of a kind whose jobs a program runs: args as JSON on stdin, progress as JSON lines
/// on stdout, the last line is the result.
#[derive(Debug)]
pub struct Exec {
    kind: String,
    config: ExecConfig,
}

impl Exec {
    /// A handler that runs the program of `config` for jobs of `kind`.
    ///
    /// # Errors
    /// [`InvalidExec`] with the [problems](ExecConfig::problems) of `config`, or the limits that this
    /// system cannot set. Whether the program exists shows when it is run.
    pub fn new(kind: impl Into<String>, config: ExecConfig) -> Result<Self, InvalidExec> {
        let kind = kind.into();
        let mut problems = config.problems(&kind);
        problems.extend(config.limits.unavailable(&kind));
        if problems.is_empty() {
            Ok(Self { kind, config })
        } else {
            Err(InvalidExec(problems))
        }
    }

    async fn attempt(&self, ctx: TaskContext, args: Value) -> Outcome {
        if ctx.cancelled().is_cancelled() {
            return Outcome::Cancelled;
        }
        let (mut group, pipes) = match ProcessGroup::spawn(self.command(&ctx)) {
            Ok(started) => started,
            Err(error) => {
                unless_all_were_killed().await;
                return self.spawn_failed(&error);
            }
        };
        let mut output = Output::new(
            self.config.max_output.bytes(),
            self.config.max_total_output.0,
        );
        let mut tail = Tail::default();
        let ending = {
            let streams = pin!(streams(pipes, args, &mut output, &mut tail, &ctx));
            attend(&group, streams, ctx.cancelled(), self.config.grace.0).await
        };
        unless_all_were_killed().await;
        group.kill();
        let status = group.reap().await;
        let result = output.finish(|said| said.tell(&ctx));
        if output.malformed > 0 {
            let lines = output.malformed;
            tracing::debug!(task.id = %ctx.task_id, lines, "lines for the owner were not understood");
        }
        match (ending, status) {
            (Ending::Cancelled, _) => Outcome::Cancelled,
            (Ending::TooLarge(excess), _) => self.too_large(excess),
            (Ending::Itself, Ok(status)) => self.verdict(status, result, &tail.text()),
            (Ending::Itself, Err(error)) => Outcome::fail(
                "wait_failed",
                format!("it is not known how the program ended: {error}"),
            ),
        }
    }

    fn command(&self, ctx: &TaskContext) -> Command {
        let mut command = if let Some((shell, script)) = self.config.limits.shell() {
            let mut command = Command::new(shell);
            command.args(["-c", &script, shell]);
            command.args(&self.config.command);
            command
        } else {
            let mut command = Command::new(self.program());
            command.args(self.config.command.iter().skip(1));
            command
        };
        command.env_clear();
        for name in ALWAYS_PASSED
            .into_iter()
            .chain(self.config.env.iter().map(String::as_str))
        {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        for (name, value) in &self.config.set_env {
            command.env(name, value.expose());
        }
        command
            .env("BELLHOP_TASK_ID", &ctx.task_id)
            .env("BELLHOP_USER_ID", &ctx.user_id)
            .env("BELLHOP_ATTEMPT", ctx.attempt.to_string())
            .env("BELLHOP_KIND", &self.kind);
        if let Some(traceparent) = &ctx.traceparent {
            command.env("TRACEPARENT", traceparent);
        }
        if let Some(cwd) = &self.config.cwd {
            command.current_dir(cwd);
        }
        command
    }

    fn program(&self) -> &str {
        self.config.command.first().map_or("", String::as_str)
    }

    fn spawn_failed(&self, error: &std::io::Error) -> Outcome {
        let program = self.program();
        // The system says "not found" for both.
        let reason = match &self.config.cwd {
            Some(cwd) if !cwd.is_dir() => format!("its folder {} does not exist", cwd.display()),
            _ => error.to_string(),
        };
        Outcome::fail(
            "spawn_failed",
            format!("the program {program:?} could not be started: {reason}"),
        )
    }

    fn too_large(&self, excess: TooLarge) -> Outcome {
        let message = match excess {
            TooLarge::Line => format!(
                "the program wrote a line of more than {} to stdout: \
                 write shorter lines, or raise max_output",
                self.config.max_output
            ),
            TooLarge::Total => format!(
                "the program wrote more than {} to stdout in all: \
                 write less, or raise max_total_output",
                self.config.max_total_output
            ),
        };
        Outcome::fail("output_too_large", message)
    }

    /// What the end of the program means.
    fn verdict(&self, status: ExitStatus, result: Value, stderr: &str) -> Outcome {
        let (code, how) = match (status.code(), status.signal()) {
            (Some(0), _) => return Outcome::Done(result),
            (Some(code), _) => (format!("exit_{code}"), format!("exit code {code}")),
            (None, Some(signal)) => match self.config.limits.exceeded(signal) {
                Some((code, how)) => (code.into(), how),
                None => (format!("signal_{signal}"), status.to_string()),
            },
            (None, None) => ("exit_unknown".into(), status.to_string()),
        };
        let message = match stderr {
            "" => format!("the program ended with {how}"),
            stderr => format!("the program ended with {how}: {stderr}"),
        };
        let passes = |code| {
            self.config
                .retry_exit_codes
                .iter()
                .any(|wanted| i32::from(*wanted) == code)
        };
        if status.code().is_some_and(passes) {
            Outcome::retry(code, message)
        } else {
            Outcome::fail(code, message)
        }
    }
}

impl Handler for Exec {
    fn run(&self, ctx: TaskContext, args: Value) -> BoxFuture<'_, Outcome> {
        self.attempt(ctx, args).boxed()
    }
}
