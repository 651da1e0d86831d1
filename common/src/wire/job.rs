//! A job: what a producer asks for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::routing_key::encode_word;

/// The longest id, kind or user id, in bytes. They appear in AMQP headers and routing keys.
pub const MAX_ID_BYTES: usize = 128;

/// The longest title, in bytes: it is part of every event of the task.
pub const MAX_TITLE_BYTES: usize = 256;

/// The longest user id once it is percent-encoded for a routing key, in bytes. With the rest of
/// the longest key it stays below AMQP's 255.
const MAX_ENCODED_USER_BYTES: usize = 200;

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
    /// `run_at` or `delay_s`, which this version would ignore; running at once would be wrong.
    #[error("`{0}` is not supported yet: scheduled jobs come with a later version")]
    Unsupported(&'static str),
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
            extra: BTreeMap::new(),
        }
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
        let job: Self = serde_json::from_value(Value::Object(fields))?;
        job.check()?;
        Ok(job)
    }

    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// [`JobError::BadLength`] or [`JobError::Unsupported`].
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
        for field in ["run_at", "delay_s"] {
            if self.extra.contains_key(field) {
                return Err(JobError::Unsupported(field));
            }
        }
        Ok(())
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
        job.extra.insert("unique_key".into(), json!("k"));
        let body = serde_json::to_vec(&job).unwrap();
        assert_eq!(Job::parse(&body, &JobProperties::default()).unwrap(), job);
    }

    #[test]
    fn properties_stand_in_where_the_body_is_silent() {
        let properties = JobProperties {
            message_id: Some("from-properties".into()),
            kind: Some("k".into()),
        };
        let job = Job::parse(br#"{"user_id":"ann"}"#, &properties).unwrap();
        assert_eq!(
            (job.id.as_str(), job.kind.as_str()),
            ("from-properties", "k")
        );
        assert_eq!(job.args, json!({}));
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
                json!({"id": "t", "kind": "k", "user_id": "u", "delay_s": 5}),
                "not supported yet",
            ),
        ] {
            let error = parse(&body).unwrap_err().to_string();
            assert!(error.contains(wants), "{body}: {error}");
        }
    }
}
