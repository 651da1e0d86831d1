//! `[exec."kind"]`: a program that runs a kind of job.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bellhop_common::config::{HumanDuration, HumanSize, Secret};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::limits::ExecLimits;

/// What a program always gets from the worker's own environment, as far as it is set there.
/// Nothing else is passed on unasked: the worker's environment holds the broker's password.
pub(super) const ALWAYS_PASSED: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];

/// `[exec."kind"]`: a program that runs a kind of job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecConfig {
    /// The program and its fixed arguments. No shell is involved; a program without a `/` is
    /// looked up in `PATH`. Nothing of a job gets in here.
    pub command: Vec<String>,
    /// How long an attempt may take; unset leaves it to the worker.
    pub timeout: Option<HumanDuration>,
    /// Names of environment variables to pass on, besides `PATH`, `HOME`, `LANG` and `TZ`.
    pub env: Vec<String>,
    /// The folder to run in; unset is the worker's own.
    pub cwd: Option<PathBuf>,
    /// The longest line on stdout, and so the largest result.
    pub max_output: HumanSize,
    /// How much may come on stdout in all.
    pub max_total_output: HumanSize,
    /// The exit codes, 1 to 255, that ask for another attempt.
    pub retry_exit_codes: Vec<u8>,
    /// How long after SIGTERM the program is killed.
    pub grace: HumanDuration,
    /// Environment variables to set. Their values are never printed.
    pub set_env: BTreeMap<String, Secret>,
    /// What each of its processes may use.
    pub limits: ExecLimits,
}

impl Default for ExecConfig {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            timeout: None,
            env: Vec::new(),
            cwd: None,
            max_output: HumanSize::kib(1024),
            max_total_output: HumanSize::kib(64 * 1024),
            // `EX_TEMPFAIL` of `sysexits.h`.
            retry_exit_codes: vec![75],
            grace: HumanDuration::from_secs(5),
            set_env: BTreeMap::new(),
            limits: ExecLimits::default(),
        }
    }
}

/// Why a program cannot run a kind of job: one sentence for each thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidExec(pub Vec<String>);

impl ExecConfig {
    /// A program with its fixed arguments, and the defaults for everything else.
    #[must_use]
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        Self {
            command: command.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// What is wrong, one sentence each, for the section of that kind; empty when nothing is.
    #[must_use]
    pub fn problems(&self, kind: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, text: &str| {
            problems.push(format!("exec.{kind:?}.{key} {text}"));
        };
        if self.command.first().is_none_or(String::is_empty) {
            problem(
                "command",
                r#"names no program: write it with its arguments, like ["/usr/bin/resize", "--fast"]"#,
            );
        }
        if self.command.iter().any(|part| part.contains('\0')) {
            problem(
                "command",
                "has a NUL character: no program can be given one",
            );
        }
        for (key, name) in self
            .env
            .iter()
            .map(|name| ("env", name))
            .chain(self.set_env.keys().map(|name| ("set_env", name)))
        {
            if name.is_empty() || name.contains(['=', '\0']) {
                problem(
                    key,
                    &format!("has {name:?}, which is no name of a variable"),
                );
            }
        }
        // The value is a secret; only its variable is named.
        for (name, value) in &self.set_env {
            if value.expose().contains('\0') {
                problem("set_env", &format!("has a NUL character in {name:?}"));
            }
        }
        if self.max_output.0 == 0 {
            problem("max_output", "must be more than zero");
        }
        if self.max_total_output < self.max_output {
            problem(
                "max_total_output",
                &format!(
                    "({}) is less than max_output ({}), which one line may have",
                    self.max_total_output, self.max_output
                ),
            );
        }
        if self.retry_exit_codes.contains(&0) {
            problem("retry_exit_codes", "has 0, which is success");
        }
        if self.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            problem(
                "timeout",
                "must be more than zero; leave it out for the worker's own",
            );
        }
        problems.extend(self.limits.problems(kind));
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let config: ExecConfig = serde_json::from_str(r#"{"command": ["true"]}"#).unwrap();
        assert_eq!(config.command, ["true"]);
        assert_eq!(config.max_output.0, 1 << 20);
        assert_eq!(config.grace, HumanDuration::from_secs(5));
        assert!(config.timeout.is_none() && config.env.is_empty() && config.cwd.is_none());
        assert_eq!(config.problems("a.b"), Vec::<String>::new());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let read = serde_json::from_str::<ExecConfig>(r#"{"command": ["true"], "shell": true}"#);
        assert!(read.unwrap_err().to_string().contains("shell"));
    }

    #[test]
    fn a_value_that_is_set_is_never_printed() {
        let config: ExecConfig =
            serde_json::from_str(r#"{"command": ["true"], "set_env": {"KEY": "hunter2"}}"#)
                .unwrap();
        for output in [
            format!("{config:?}"),
            serde_json::to_string(&config).unwrap(),
        ] {
            assert!(
                output.contains("KEY") && !output.contains("hunter2"),
                "{output}"
            );
        }
    }

    #[test]
    fn each_wrong_value_is_named_with_its_kind() {
        for (config, wants) in [
            ("{}", "command names no program"),
            (r#"{"command": ["", "x"]}"#, "command names no program"),
            (r#"{"command": ["a\u0000"]}"#, "command has a NUL"),
            (r#"{"env": ["A=B"]}"#, "env has \"A=B\""),
            (r#"{"set_env": {"": "x"}}"#, "set_env has \"\""),
            (
                r#"{"set_env": {"A": "x\u0000"}}"#,
                "set_env has a NUL character in \"A\"",
            ),
            (r#"{"max_output": 0}"#, "max_output must"),
            (
                r#"{"max_total_output": "1023KiB"}"#,
                "max_total_output (1023KiB) is less than max_output (1MiB)",
            ),
            (r#"{"retry_exit_codes": [75, 0]}"#, "retry_exit_codes has 0"),
            (r#"{"timeout": "0s"}"#, "timeout must"),
            (r#"{"limits": {"open_files": 3}}"#, "limits.open_files must"),
        ] {
            let mut fields: serde_json::Value = serde_json::from_str(config).unwrap();
            if !wants.starts_with("command") {
                fields["command"] = serde_json::json!(["true"]);
            }
            let config: ExecConfig = serde_json::from_value(fields).unwrap();
            let problems = config.problems("a.b");
            assert_eq!(problems.len(), 1, "{problems:?}");
            let wants = format!("exec.\"a.b\".{wants}");
            assert!(problems[0].starts_with(&wants), "{problems:?}");
        }
    }
}
