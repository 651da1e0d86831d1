//! What a program may use of the machine.
//!
//! The limits are the system's own (`setrlimit`), which a process inherits. Code that runs between
//! `fork` and `exec` would be unsafe Rust, and setting them on a program that runs already comes
//! too late for what it has started by then. So `/bin/sh` sets them on itself with `ulimit`, and
//! then becomes the program: same process, no gap.

use std::path::Path;

use bellhop_common::config::{HumanDuration, HumanSize};
use rustix::process::{Resource, Signal, getrlimit};
use serde::{Deserialize, Serialize};

/// Becomes the program once the limits are set.
const SHELL: &str = "/bin/sh";

/// Below this not even the shell would start.
const LEAST_MEMORY: HumanSize = HumanSize::kib(1024);

/// The three standard streams, and one to load the program's libraries through.
const LEAST_FILES: u64 = 4;

/// How long a program that has used up its processor time may tidy up, in seconds of that time.
const TO_TIDY_UP: u64 = 1;

/// `limits` of `[exec."kind"]`: what each process of the program may use. What is unset is as the
/// worker itself has it.
///
/// They hold for each process by itself, not for all together; a limit for all together is the
/// container's or the system service's to set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecLimits {
    /// Memory of its own: heap, stacks of threads, private mappings that can be written to
    /// (`RLIMIT_DATA`; Linux only). Beyond it the system refuses the program more memory.
    ///
    /// The whole address space (`RLIMIT_AS`) is not what is counted, because Java, Go, Node and
    /// others reserve much more of it than they ever use.
    pub memory: Option<HumanSize>,
    /// Processor time, rounded up to seconds (`RLIMIT_CPU`). Beyond it comes SIGXCPU, and SIGKILL
    /// a second of processor time later.
    pub cpu: Option<HumanDuration>,
    /// Open files, sockets and pipes (`RLIMIT_NOFILE`), three standard streams included.
    pub open_files: Option<u64>,
}

impl ExecLimits {
    /// What is wrong whatever the system, one sentence each.
    pub(super) fn problems(&self, kind: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem =
            |key: &str, text: String| problems.push(format!("exec.{kind:?}.limits.{key} {text}"));
        if let Some(memory) = self.memory.filter(|memory| *memory < LEAST_MEMORY) {
            problem(
                "memory",
                format!("must be {LEAST_MEMORY} or more, it is {memory}"),
            );
        }
        if self.cpu.is_some_and(|cpu| cpu.0.is_zero()) {
            problem("cpu", "must be more than zero".into());
        }
        if let Some(files) = self.open_files.filter(|files| *files < LEAST_FILES) {
            problem(
                "open_files",
                format!("must be {LEAST_FILES} or more, it is {files}"),
            );
        }
        problems
    }

    /// What this system, or this process on it, cannot give, one sentence each.
    pub(super) fn unavailable(&self, kind: &str) -> Vec<String> {
        let mut problems = Vec::new();
        if *self == Self::default() {
            return problems;
        }
        if !Path::new(SHELL).exists() {
            problems.push(format!(
                "exec.{kind:?}.limits are set by {SHELL}, which this system does not have: \
                 install it, or remove the limits"
            ));
        }
        if self.memory.is_some() && !cfg!(target_os = "linux") {
            problems.push(format!(
                "exec.{kind:?}.limits.memory needs Linux: this system does not count the memory \
                 that a program maps; remove it"
            ));
        }
        let wanted = [
            ("memory", self.memory.map(|size| size.0), Resource::Data),
            ("cpu", self.cpu_seconds().map(hard), Resource::Cpu),
            ("open_files", self.open_files, Resource::Nofile),
        ];
        for (key, value, resource) in wanted {
            let most = getrlimit(resource).maximum;
            if let (Some(value), Some(most)) = (value, most)
                && value > most
            {
                problems.push(format!(
                    "exec.{kind:?}.limits.{key} is more than this worker itself may have ({most} at \
                     most, {value} needed): lower it, or raise the hard limit that the worker is \
                     started with"
                ));
            }
        }
        problems
    }

    /// The shell and a script that sets the limits and then becomes the program that its arguments
    /// name; `None` without limits.
    pub(super) fn shell(&self) -> Option<(&'static str, String)> {
        let memory = self
            .memory
            .map(|size| format!("ulimit -d {}", size.0 / 1024));
        let files = self.open_files.map(|files| format!("ulimit -n {files}"));
        let cpu = self.cpu_seconds().map(|seconds| {
            // The lower one first: a hard limit below the soft one is refused.
            format!("ulimit -S -t {seconds} && ulimit -H -t {}", hard(seconds))
        });
        let mut steps: Vec<String> = [memory, files, cpu].into_iter().flatten().collect();
        if steps.is_empty() {
            return None;
        }
        steps.push(r#"exec "$@""#.into());
        Some((SHELL, steps.join(" && ")))
    }

    /// The code and the words for the signal that ends a program over its limit.
    pub(super) fn exceeded(&self, signal: i32) -> Option<(&'static str, String)> {
        let cpu = self.cpu.filter(|_| signal == Signal::XCPU.as_raw())?;
        let how = format!("more processor time than limits.cpu ({cpu}) allows");
        Some(("cpu_limit", how))
    }

    fn cpu_seconds(&self) -> Option<u64> {
        let time = self.cpu?.0;
        Some(
            time.as_secs()
                .saturating_add(u64::from(time.subsec_nanos() > 0)),
        )
    }
}

/// The hard limit of processor time, in seconds.
fn hard(seconds: u64) -> u64 {
    seconds.saturating_add(TO_TIDY_UP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ExecLimits {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_shell_sets_what_is_asked_for_and_becomes_the_program() {
        let script = |text: &str| read(text).shell().map(|(_, script)| script);
        assert_eq!(script("{}"), None);
        assert_eq!(
            script(r#"{"memory": "512MiB", "cpu": "1500ms", "open_files": 256}"#).unwrap(),
            "ulimit -d 524288 && ulimit -n 256 && ulimit -S -t 2 && ulimit -H -t 3 && exec \"$@\""
        );
    }

    #[test]
    fn each_wrong_limit_is_named_with_its_kind() {
        for (text, wants) in [
            (
                r#"{"memory": "1023KiB"}"#,
                "exec.\"a.b\".limits.memory must be 1MiB or more",
            ),
            (r#"{"cpu": "0s"}"#, "exec.\"a.b\".limits.cpu must"),
            (
                r#"{"open_files": 3}"#,
                "exec.\"a.b\".limits.open_files must be 4 or more",
            ),
        ] {
            let problems = read(text).problems("a.b");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].starts_with(wants), "{problems:?}");
        }
        assert!(serde_json::from_str::<ExecLimits>(r#"{"procs": 3}"#).is_err());
    }

    #[test]
    fn more_than_the_worker_may_have_is_refused() {
        let limits = ExecLimits {
            open_files: Some(u64::MAX),
            ..ExecLimits::default()
        };
        // Where the system sets no limit there is nothing to refuse; Linux always does.
        assert_eq!(limits.unavailable("k").len(), 1);
        assert!(limits.unavailable("k")[0].contains("exec.\"k\".limits.open_files"));
        assert!(ExecLimits::default().unavailable("k").is_empty());
    }
}
