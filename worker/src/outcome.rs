//! What a handler answers: data, not a bare error.

use std::time::Duration;

use bellhop_common::wire::TaskError;
use serde::Serialize;
use serde_json::Value;

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Done; the value is the task's result.
    Done(Value),
    /// Failed in a way that may pass.
    Retry {
        /// When to try again; `None` leaves it to the kind's policy.
        after: Option<Duration>,
        /// Why it failed.
        error: TaskError,
    },
    /// Failed for good.
    Fail(TaskError),
    /// Ended because it was asked to.
    Cancelled,
}

impl Outcome {
    /// Done with anything that can be written as JSON.
    #[must_use]
    pub fn done(result: &impl Serialize) -> Self {
        match serde_json::to_value(result) {
            Ok(value) => Self::Done(value),
            Err(error) => Self::fail("bad_result", format!("the result is not JSON: {error}")),
        }
    }

    /// Failed for good, with a code for programs and a sentence for people.
    #[must_use]
    pub fn fail(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Fail(TaskError::new(code, message))
    }

    /// Failed, but worth another attempt at the kind's own pace.
    #[must_use]
    pub fn retry(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Retry {
            after: None,
            error: TaskError::new(code, message),
        }
    }
}

/// A handler may do its work in a function that uses `?` and turn the result into an outcome.
impl<T: Serialize> From<Result<T, TaskError>> for Outcome {
    fn from(result: Result<T, TaskError>) -> Self {
        match result {
            Ok(value) => Self::done(&value),
            Err(error) => Self::Fail(error),
        }
    }
}
