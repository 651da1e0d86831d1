//! A job: what a producer asks for.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::follow_up::{FollowUp, MAX_FOLLOW_UPS};
use super::group::{Group, MAX_SEQUEL_BYTES};
use super::routing_key::encode_word;

/// The longest id, kind or user id, in bytes. They appear in AMQP headers and routing keys.
pub const MAX_ID_BYTES: usize = 128;

/// The longest title, in bytes: it is part of every event of the task.
pub const MAX_TITLE_BYTES: usize = 256;

/// The longest user id once it is percent-encoded for a routing key, in bytes. With the rest of
/// the longest key it stays below AMQP's 255.
const MAX_ENCODED_USER_BYTES: usize = 200;

/// The longest `unique_key`, in bytes.
pub const MAX_UNIQUE_KEY_BYTES: usize = 256;

/// The longest wait before a job runs, in seconds: what the delay ladder can express, 8.5 years.
pub const MAX_DELAY_S: u64 = (1 << 28) - 1;

/// A job as it travels over AMQP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Identifies the task from here on.
    pub id: String,
    /// Which handler runs it.
    pub kind: String,
    /// The handler's arguments.
    #[serde(default = "empty_args")]
    pub args: Value,
    /// Who owns it and sees its progress.
    pub user_id: String,
    /// A room that sees its progress too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How often it may be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Seconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Not before this time. At most one of `run_at` and `delay_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<Timestamp>,
    /// Seconds from now, that is from the message's AMQP `timestamp`, or from when a worker first
    /// sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<u64>,
    /// Worth nothing after this time: no attempt begins later, and a running one is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Of several jobs of this kind, user and key within `unique_for_s`, only the first is run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_key: Option<String>,
    /// The window of `unique_key` in seconds, counted from the first job; an hour if unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_for_s: Option<u64>,
    /// AMQP priority; only brokers from RabbitMQ 4.0 on heed it in quorum queues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Jobs to put in when this one has succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<FollowUp>,
    /// Jobs to put in when this one has failed for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<FollowUp>,
    /// The group it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Box<Group>>,
    /// Fields of other versions, kept.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

fn empty_args() -> Value {
    Value::Object(serde_json::Map::new())
}

/// What AMQP's own properties say of a job; each stands in where the body is silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobProperties {
    /// `message_id`, for [`Job::id`].
    pub message_id: Option<String>,
    /// `type`, for [`Job::kind`].
    pub kind: Option<String>,
    /// `priority`, for [`Job::priority`].
    pub priority: Option<u8>,
}

/// Why a message is not a job.
#[derive(Debug, Error)]
pub enum JobError {
    /// Not JSON, or a field has the wrong type.
    #[error("the body is not a job: {0}")]
    Body(#[from] serde_json::Error),
    /// JSON, but no object.
    #[error("the body is not a job: it is not a JSON object")]
    NotAnObject,
    /// A field is missing in the body and in the properties.
    #[error("the job has no `{field}`: {way_out}")]
    Missing {
        /// Which one.
        field: &'static str,
        /// Where to put it.
        way_out: &'static str,
    },
    /// An id is empty or too long.
    #[error("the job's `{field}` must have 1 to {MAX_ID_BYTES} bytes, it has {bytes}")]
    BadLength {
        /// Which one.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// Too many characters that have to be percent-encoded.
    #[error(
        "the job's `user_id` or `room_id` has {bytes} bytes once its dots, `*`, `#` and `%` are percent-encoded \
         for the routing key, at most {MAX_ENCODED_USER_BYTES} fit"
    )]
    UserTooLong {
        /// Its encoded length.
        bytes: usize,
    },
    /// The title is too long.
    #[error("the job's `title` may have {MAX_TITLE_BYTES} bytes, it has {0}")]
    LongTitle(usize),
    /// The unique key is empty or too long.
    #[error("the job's `unique_key` must have 1 to {MAX_UNIQUE_KEY_BYTES} bytes, it has {0}")]
    BadUniqueKey(usize),
    /// A time that is none.
    #[error("the job's `{field}` is not a time such as 2026-12-24T18:00:00Z: {text:?}")]
    BadTime {
        /// Which one.
        field: &'static str,
        /// What it says, cut.
        text: String,
    },
    /// Both ways to say when.
    #[error("the job has both `run_at` and `delay_s`: keep one")]
    TwoTimes,
    /// A number that means nothing.
    #[error("the job's `{field}` must be {range}, it is {value}")]
    OutOfRange {
        /// Which one.
        field: &'static str,
        /// What would do.
        range: &'static str,
        /// What it is.
        value: u64,
    },
    /// More follow-ups than one message should fan out to.
    #[error("the job's `{field}` may name {MAX_FOLLOW_UPS} jobs, it names {count}")]
    TooManyFollowUps {
        /// Which list.
        field: &'static str,
        /// How many.
        count: usize,
    },
    /// A job that its group has no place for.
    #[error(
        "the job's `group.index` must be 0 to {} in a group of {size}, it is {index}",
        size.saturating_sub(1)
    )]
    GroupIndex {
        /// What it is.
        index: u32,
        /// The group's size.
        size: u32,
    },
    /// More than goes in a header.
    #[error(
        "`then` and `on_failure` of the job's `group` may have {MAX_SEQUEL_BYTES} bytes together, they have {0}: \
         put what is large where the jobs that follow can read it"
    )]
    LargeSequel(usize),
}

impl Job {
    /// A job with its required parts.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        kind: impl Into<String>,
        args: Value,
        user_id: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            args,
            user_id: user_id.into(),
            room_id: None,
            title: None,
            max_attempts: None,
            timeout_s: None,
            run_at: None,
            delay_s: None,
            expires_at: None,
            unique_key: None,
            unique_for_s: None,
            priority: None,
            then: Vec::new(),
            on_failure: Vec::new(),
            group: None,
            extra: BTreeMap::new(),
        }
    }

    /// When it may run, if it says so; `since` is what `delay_s` counts from.
    #[must_use]
    pub fn due(&self, since: Timestamp) -> Option<Timestamp> {
        let delayed = || {
            let delay = i64::try_from(self.delay_s?).ok()?;
            since.checked_add(SignedDuration::from_secs(delay)).ok()
        };
        self.run_at.or_else(delayed)
    }

    /// Whether an order for the task of this id is for this job: by its own id, or its group's.
    #[must_use]
    pub fn answers_to(&self, id: &str) -> bool {
        self.id == id || self.group.as_ref().is_some_and(|group| group.id == id)
    }

    /// Reads a message: the body first, the properties where it is silent.
    ///
    /// # Errors
    /// [`JobError`] says what is wrong and where it belongs.
    pub fn parse(body: &[u8], properties: &JobProperties) -> Result<Self, JobError> {
        let Value::Object(mut fields) = serde_json::from_slice::<Value>(body)? else {
            return Err(JobError::NotAnObject);
        };
        let stand_ins = [("id", &properties.message_id), ("kind", &properties.kind)];
        for (field, stand_in) in stand_ins {
            if let (false, Some(value)) = (fields.contains_key(field), stand_in) {
                fields.insert(field.to_owned(), Value::from(value.as_str()));
            }
        }
        if let (false, Some(priority)) = (fields.contains_key("priority"), properties.priority) {
            fields.insert("priority".to_owned(), Value::from(priority));
        }
        for (field, way_out) in [
            (
                "id",
                "set it in the body or as the AMQP property message_id",
            ),
            ("kind", "set it in the body or as the AMQP property type"),
            (
                "user_id",
                "name the owner in the body, who will see the progress",
            ),
        ] {
            if !fields.contains_key(field) {
                return Err(JobError::Missing { field, way_out });
            }
        }
        // Here, because the error of the JSON reader names neither the field nor the text.
        for field in ["run_at", "expires_at"] {
            if let Some(Value::String(text)) = fields.get(field)
                && text.parse::<Timestamp>().is_err()
            {
                let text = text.chars().take(64).collect();
                return Err(JobError::BadTime { field, text });
            }
        }
        let job: Self = serde_json::from_value(Value::Object(fields))?;
        job.check()?;
        Ok(job)
    }

    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// [`JobError`] says which field is wrong, and how.
    pub fn check(&self) -> Result<(), JobError> {
        let room = self.room_id.as_ref().map(|room| ("room_id", room));
        for (field, value) in [
            ("id", &self.id),
            ("kind", &self.kind),
            ("user_id", &self.user_id),
        ]
        .into_iter()
        .chain(room)
        {
            let bytes = value.len();
            if !(1..=MAX_ID_BYTES).contains(&bytes) {
                return Err(JobError::BadLength { field, bytes });
            }
        }
        for encoded in [Some(&self.user_id), self.room_id.as_ref()] {
            let bytes = encoded.map_or(0, |id| encode_word(id).len());
            if bytes > MAX_ENCODED_USER_BYTES {
                return Err(JobError::UserTooLong { bytes });
            }
        }
        match self.title.as_ref().map_or(0, String::len) {
            bytes if bytes > MAX_TITLE_BYTES => return Err(JobError::LongTitle(bytes)),
            _ => {}
        }
        match self.unique_key.as_ref().map(String::len) {
            Some(bytes) if !(1..=MAX_UNIQUE_KEY_BYTES).contains(&bytes) => {
                return Err(JobError::BadUniqueKey(bytes));
            }
            _ => {}
        }
        if self.run_at.is_some() && self.delay_s.is_some() {
            return Err(JobError::TwoTimes);
        }
        self.check_numbers()?;
        for (field, list) in [("then", &self.then), ("on_failure", &self.on_failure)] {
            if list.len() > MAX_FOLLOW_UPS {
                let count = list.len();
                return Err(JobError::TooManyFollowUps { field, count });
            }
        }
        self.group.as_ref().map_or(Ok(()), |group| group.check())
    }

    fn check_numbers(&self) -> Result<(), JobError> {
        let out_of_range = |field, range, value| {
            Err(JobError::OutOfRange {
                field,
                range,
                value,
            })
        };
        match (self.delay_s, self.unique_for_s) {
            (Some(value), _) if value > MAX_DELAY_S => {
                out_of_range("delay_s", "at most 268435455 (8.5 years)", value)
            }
            (_, Some(value)) if !(1..=MAX_DELAY_S).contains(&value) => {
                out_of_range("unique_for_s", "1 to 268435455", value)
            }
            _ if self.max_attempts == Some(0) => out_of_range("max_attempts", "1 or more", 0),
            _ if self.timeout_s == Some(0) => out_of_range("timeout_s", "1 or more", 0),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(body: &Value) -> Result<Job, JobError> {
        Job::parse(body.to_string().as_bytes(), &JobProperties::default())
    }

    #[test]
    fn a_job_reads_back_as_it_was_written() {
        let mut job = Job::new("t1", "files.checksum", json!({"path": "a"}), "ann");
        job.title = Some("Sums".into());
        job.timeout_s = Some(60);
        job.unique_key = Some("k".into());
        job.extra.insert("of_a_later_version".into(), json!([1]));
        job.then = vec![FollowUp::new("mail", json!({}))];
        let body = serde_json::to_vec(&job).unwrap();
        assert_eq!(Job::parse(&body, &JobProperties::default()).unwrap(), job);
    }

    #[test]
    fn properties_stand_in_where_the_body_is_silent() {
        let properties = JobProperties {
            message_id: Some("from-properties".into()),
            kind: Some("k".into()),
            priority: Some(7),
        };
        let job = Job::parse(br#"{"user_id":"ann"}"#, &properties).unwrap();
        assert_eq!(
            (job.id.as_str(), job.kind.as_str()),
            ("from-properties", "k")
        );
        assert_eq!((job.args, job.priority), (json!({}), Some(7)));
        let job = Job::parse(br#"{"id":"own","user_id":"ann"}"#, &properties).unwrap();
        assert_eq!(job.id, "own", "the body wins");
    }

    #[test]
    fn wrong_jobs_are_told_what_is_wrong() {
        for (body, wants) in [
            (json!([]), "not a JSON object"),
            (json!({"kind": "k", "user_id": "u"}), "message_id"),
            (json!({"id": "t", "user_id": "u"}), "property type"),
            (json!({"id": "t", "kind": "k"}), "owner"),
            (
                json!({"id": "", "kind": "k", "user_id": "u"}),
                "1 to 128 bytes",
            ),
            (json!({"id": "t", "kind": "k", "user_id": 5}), "string"),
            (
                json!({"id": "t", "kind": "k", "user_id": ".".repeat(100)}),
                "percent-encoded",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "title": "t".repeat(257)}),
                "256 bytes",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "delay_s": 5, "run_at": "2026-01-15T10:30:00Z"}),
                "keep one",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "delay_s": 268_435_456}),
                "8.5 years",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "run_at": "tomorrow"}),
                "`run_at` is not a time",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "max_attempts": 0}),
                "max_attempts",
            ),
            (
                json!({"id": "t", "kind": "k", "user_id": "u", "unique_key": ""}),
                "unique_key",
            ),
        ] {
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.contains(wants), "{body}: {error}");
        }
    }

    #[test]
    fn a_job_is_due_when_it_says() {
        let since: Timestamp = "2026-01-15T10:30:00Z".parse().unwrap();
        let mut job = Job::new("t", "k", json!({}), "u");
        assert_eq!(job.due(since), None);
        job.delay_s = Some(90);
        assert_eq!(job.due(since), "2026-01-15T10:31:30Z".parse().ok());
        job.delay_s = None;
        job.run_at = "2025-01-01T00:00:00Z".parse().ok();
        assert_eq!(job.due(since), job.run_at);
    }
}
