//! Celery's task messages, protocol 2, read as jobs.
//!
//! The [protocol's page](https://docs.celeryq.dev/en/stable/internals/protocol.html) gives
//! `timelimit` as `(soft, hard)`. Celery itself writes and reads `[hard, soft]`, and so do we.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

use super::job::{Job, JobError, MAX_TITLE_BYTES};
use super::task::cut;

/// What AMQP says about a message besides its body.
#[derive(Debug, Clone, Copy)]
pub struct CeleryEnvelope<'a> {
    /// Headers whose value is a text or a whole number, as text.
    pub headers: &'a BTreeMap<String, String>,
    /// Headers of any other type.
    pub json_headers: &'a BTreeMap<String, Value>,
    /// `content-type`.
    pub content_type: Option<&'a str>,
    /// `correlation-id`, which stands in for the header `id`.
    pub correlation_id: Option<&'a str>,
    /// `priority`.
    pub priority: Option<u8>,
}

/// A job that came as a Celery task.
#[derive(Debug, Clone, PartialEq)]
pub struct CeleryTask {
    /// What is to be done.
    pub job: Job,
    /// Which attempt it is, from 1: Celery's `retries` and one.
    pub attempt: u32,
}

/// Why a Celery message cannot be taken as a job.
#[derive(Debug, Error)]
pub enum CeleryError {
    /// Celery 3's format.
    #[error(
        "the message is in Celery's protocol 1: set `task_protocol = 2` in the producer, the \
         default since Celery 4"
    )]
    Protocol1,
    /// Not a task.
    #[error("the message has no header `task`, so it is no task of Celery's protocol 2")]
    NoTask,
    /// Pickle, YAML, msgpack.
    #[error(
        "the task's content type is {0:?} and only application/json is taken: set \
         `task_serializer = \"json\"` in the producer"
    )]
    ContentType(String),
    /// A compressed body.
    #[error("the task is compressed ({0}): unset `task_compression` in the producer")]
    Compressed(String),
    /// Not JSON, or not `[args, kwargs, embed]`.
    #[error("the task's body is not [args, kwargs, embed]: {0}")]
    Body(#[from] serde_json::Error),
    /// Parts of a workflow, which Celery's own workers would carry on.
    #[error(
        "the task has `{0}`, and Celery's workflows are not taken over: send a job with `then` or \
         `on_failure`, or send the next task when this one has ended"
    )]
    Workflow(&'static str),
    /// A header is not what it should be.
    #[error("the task's header `{header}` must be {wanted}, it is {value}")]
    Header {
        /// Which one.
        header: &'static str,
        /// What would do.
        wanted: &'static str,
        /// What it is.
        value: String,
    },
    /// Positional arguments take the name `args`.
    #[error(
        "the task has positional arguments and a keyword argument `args`, which would stand in \
         each other's place: rename the keyword argument"
    )]
    ArgsTwice,
    /// Nobody to show the progress to.
    #[error(
        "the task names no user: send it with `headers={{\"user_id\": ...}}` or a keyword argument \
         `user_id`, or set `celery.user_id` in the worker's configuration"
    )]
    NoUser,
    /// A job that breaks the rules for jobs.
    #[error(transparent)]
    Job(#[from] JobError),
}

#[derive(Deserialize)]
struct Body(Vec<Value>, Map<String, Value>, Option<Embed>);

/// What follows the task; `null` and `[]` are nothing.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Embed {
    callbacks: Value,
    errbacks: Value,
    chain: Value,
    chord: Value,
}

impl CeleryEnvelope<'_> {
    /// Whether the message is a task of protocol 2.
    #[must_use]
    pub fn is_task(&self) -> bool {
        self.headers.contains_key("task")
    }

    /// Reads a task as a job.
    ///
    /// Keyword arguments alone are the job's arguments. With positional ones, these come beside
    /// them as a list named `args`. The user is the header `user_id`, else the keyword argument
    /// `user_id`, else `default_user`.
    ///
    /// # Errors
    /// [`CeleryError`] says what is wrong, and what to change in the producer.
    pub fn parse(
        &self,
        body: &[u8],
        default_user: Option<&str>,
    ) -> Result<CeleryTask, CeleryError> {
        let Some(kind) = self.headers.get("task") else {
            return Err(if is_protocol_1(body) {
                CeleryError::Protocol1
            } else {
                CeleryError::NoTask
            });
        };
        if let Some(content_type) = self.content_type
            && content_type != "application/json"
        {
            return Err(CeleryError::ContentType(content_type.to_owned()));
        }
        if let Some(compression) = self.headers.get("compression") {
            return Err(CeleryError::Compressed(compression.clone()));
        }
        let Body(positional, keywords, embed) = serde_json::from_slice(body)?;
        embed.unwrap_or_default().refuse_workflows()?;
        let id = self.headers.get("id").map(String::as_str);
        let id = id.or(self.correlation_id).unwrap_or_default();
        let user = self.user(&keywords, default_user)?;
        let mut job = Job::new(id, kind, arguments(positional, keywords)?, user);
        job.room_id = self.headers.get("room_id").cloned();
        let title = self.headers.get("shadow");
        job.title = title.map(|title| cut(title, MAX_TITLE_BYTES).to_owned());
        job.run_at = self.time("eta")?;
        job.expires_at = self.time("expires")?;
        job.timeout_s = self.timeout()?;
        // Every message of Celery's has one, and 0 is what it has when nobody asked for any.
        job.priority = self.priority.filter(|priority| *priority > 0);
        job.check()?;
        let attempt = self.attempt()?;
        Ok(CeleryTask { job, attempt })
    }

    fn user(
        &self,
        keywords: &Map<String, Value>,
        default_user: Option<&str>,
    ) -> Result<String, CeleryError> {
        if let Some(user) = self.headers.get("user_id") {
            return Ok(user.clone());
        }
        match keywords.get("user_id") {
            Some(Value::String(user)) => Ok(user.clone()),
            Some(Value::Number(user)) => Ok(user.to_string()),
            _ => default_user.map(str::to_owned).ok_or(CeleryError::NoUser),
        }
    }

    fn time(&self, header: &'static str) -> Result<Option<Timestamp>, CeleryError> {
        let wrong = |value: String| CeleryError::Header {
            header,
            wanted: "a time in ISO 8601",
            value,
        };
        if let Some(value) = self.json_headers.get(header) {
            return Err(wrong(value.to_string()));
        }
        let Some(text) = self.headers.get(header) else {
            return Ok(None);
        };
        let with_offset = text.parse::<Timestamp>().ok();
        // Celery reads a time without an offset in the time zone of its configuration, which is
        // UTC unless somebody changed it.
        let in_utc = || {
            TimeZone::UTC
                .to_timestamp(text.parse::<DateTime>().ok()?)
                .ok()
        };
        let time = with_offset.or_else(in_utc);
        time.map(Some).ok_or_else(|| wrong(format!("{text:?}")))
    }

    /// The soft limit if there is one: like ours, it asks the task to end, and what does not is
    /// ended by force. Else the hard one.
    fn timeout(&self) -> Result<Option<u64>, CeleryError> {
        let wrong = |value: String| CeleryError::Header {
            header: "timelimit",
            wanted: "[hard, soft] in seconds",
            value,
        };
        let Some(limits) = self.json_headers.get("timelimit") else {
            return match self.headers.get("timelimit") {
                Some(text) => Err(wrong(format!("{text:?}"))),
                None => Ok(None),
            };
        };
        let limits = <[Option<f64>; 2]>::deserialize(limits);
        let [hard, soft] = limits.map_err(|error| wrong(error.to_string()))?;
        let limit = [soft, hard]
            .into_iter()
            .flatten()
            .find(|limit| *limit > 0.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and a cast from a float stops at the largest integer"
        )]
        Ok(limit.map(|limit| limit.ceil() as u64))
    }

    fn attempt(&self) -> Result<u32, CeleryError> {
        let Some(text) = self.headers.get("retries") else {
            return Ok(1);
        };
        match text.parse::<u32>() {
            Ok(retries) => Ok(retries.saturating_add(1)),
            Err(_) => Err(CeleryError::Header {
                header: "retries",
                wanted: "a number from 0",
                value: format!("{text:?}"),
            }),
        }
    }
}

impl Embed {
    fn refuse_workflows(&self) -> Result<(), CeleryError> {
        for (part, value) in [
            ("link", &self.callbacks),
            ("link_error", &self.errbacks),
            ("chain", &self.chain),
            ("chord", &self.chord),
        ] {
            let nothing = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            if !nothing {
                return Err(CeleryError::Workflow(part));
            }
        }
        Ok(())
    }
}

fn arguments(
    positional: Vec<Value>,
    mut keywords: Map<String, Value>,
) -> Result<Value, CeleryError> {
    if !positional.is_empty() {
        let taken = keywords.insert("args".to_owned(), Value::Array(positional));
        if taken.is_some() {
            return Err(CeleryError::ArgsTwice);
        }
    }
    Ok(Value::Object(keywords))
}

/// Whether the body is a task of Celery's protocol 1, which has everything in its body.
#[must_use]
pub fn is_protocol_1(body: &[u8]) -> bool {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return false;
    };
    let holds = |name| fields.contains_key(name);
    holds("task") && holds("id") && holds("kwargs")
}

#[cfg(test)]
mod tests;
