//! Logs on standard error.

use std::io::IsTerminal as _;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Why logging could not start.
#[derive(Debug, Error)]
pub enum LogError {
    /// `log.level` is no level and no list of directives.
    #[error("log.level {level:?} is not understood: write `info`, or `info,bellhop_worker=debug`")]
    Level {
        /// What it is.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else in the process logs already.
    #[error("logging is set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Starts to log: text on a terminal, one JSON object a line otherwise, unless the configuration
/// says which.
///
/// # Errors
/// [`LogError`].
pub fn init_logs(config: &LogConfig) -> Result<(), LogError> {
    let filter = log_filter(config)?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let json = match config.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let started = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal).try_init()
    };
    started.map_err(LogError::Twice)
}

/// Which lines are written.
pub(crate) fn log_filter(config: &LogConfig) -> Result<EnvFilter, LogError> {
    // What lapin reports is reported here with its meaning; its own lines quote message bodies.
    // A directive of the configuration for the same target comes later and wins.
    let directives = format!("lapin=off,{}", config.level);
    EnvFilter::try_new(directives).map_err(|source| LogError::Level {
        level: config.level.clone(),
        source,
    })
}

/// An error with its causes in one line, `outer: inner: innermost`, for a log line or a message.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Transparent errors repeat their cause.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error(transparent)]
    struct Inner(#[from] std::fmt::Error);

    #[test]
    fn every_cause_is_told_once() {
        let line = with_causes(&Outer(Inner(std::fmt::Error)));
        let cause = std::fmt::Error.to_string();
        assert_eq!(line, format!("cannot open the door: {cause}"));
    }
}
