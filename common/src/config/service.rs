//! The parts of the configuration that every service has.

use serde::{Deserialize, Serialize};

use super::HumanDuration;

/// `[log]`: what is written to standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives such as `info,bellhop_worker=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Auto,
        }
    }
}

impl LogConfig {
    /// What is wrong; empty when nothing is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        match crate::telemetry::log_filter(self) {
            Ok(_) => Vec::new(),
            Err(error) => vec![error.to_string()],
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// `[shutdown]`: what happens on SIGTERM and Ctrl-C.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShutdownConfig {
    /// How long work in hand may go on before it is given up.
    pub deadline: HumanDuration,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self {
            deadline: HumanDuration::from_secs(30),
        }
    }
}
