//! What follows a job's end.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::group;
use super::job::Job;
use super::task::TaskError;

/// How many jobs may follow one end.
pub const MAX_FOLLOW_UPS: usize = 16;

/// A job that is put in when another has ended; it belongs to the same user unless it says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowUp {
    /// Which handler runs it.
    pub kind: String,
    /// Its arguments. Those of a follow-up to a success get the result as `result`, those of a
    /// follow-up to a failure the error as `error`, under the names in `as`.
    #[serde(default = "no_args")]
    pub args: Map<String, Value>,
    /// The name under which the result or error is added to the arguments.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The queue's short name; unset is the queue of the job before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How often it may be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Seconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// Seconds to wait first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_s: Option<u64>,
    /// What follows its success.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<FollowUp>,
    /// What follows its failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<FollowUp>,
}

fn no_args() -> Map<String, Value> {
    Map::new()
}

/// What has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parent<'a> {
    /// What the ids of those that follow are made of.
    name: Cow<'a, str>,
    user_id: &'a str,
    room_id: Option<&'a str>,
}

impl<'a> Parent<'a> {
    /// A job.
    #[must_use]
    pub fn job(job: &'a Job) -> Self {
        Self {
            name: Cow::Borrowed(&job.id),
            user_id: &job.user_id,
            room_id: job.room_id.as_deref(),
        }
    }

    /// A group of jobs.
    #[must_use]
    pub fn group(user_id: &'a str, group_id: &str, room_id: Option<&'a str>) -> Self {
        Self {
            name: Cow::Owned(group::name_of(user_id, group_id)),
            user_id,
            room_id,
        }
    }
}

/// How the job before ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending<'a> {
    /// With this result.
    Succeeded(&'a Value),
    /// With this error.
    Failed(&'a TaskError),
}

impl FollowUp {
    /// A follow-up with its required parts.
    #[must_use]
    pub fn new(kind: impl Into<String>, args: Value) -> Self {
        Self {
            kind: kind.into(),
            args: match args {
                Value::Object(args) => args,
                _ => Map::new(),
            },
            name: None,
            queue: None,
            user_id: None,
            title: None,
            max_attempts: None,
            timeout_s: None,
            delay_s: None,
            then: Vec::new(),
            on_failure: Vec::new(),
        }
    }

    /// The job that follows `parent` as its `index`th follow-up. Its id is made from the parent's,
    /// so that a parent that ends again makes the same one.
    #[must_use]
    pub fn job(&self, parent: &Parent<'_>, ending: Ending<'_>, index: usize) -> Job {
        let (word, value) = match ending {
            Ending::Succeeded(result) => ("result", result.clone()),
            Ending::Failed(error) => (
                "error",
                serde_json::json!({"code": error.code, "message": error.message}),
            ),
        };
        let id = format!("{}/{word}/{index}", parent.name);
        let mut args = self.args.clone();
        let name = self.name.as_deref().unwrap_or(word);
        args.insert(name.to_owned(), value);
        let user_id = self.user_id.as_deref().unwrap_or(parent.user_id);
        let mut job = Job::new(
            Uuid::new_v5(&NAMESPACE, id.as_bytes()).to_string(),
            self.kind.as_str(),
            Value::Object(args),
            user_id,
        );
        job.room_id = parent.room_id.map(str::to_owned);
        job.title.clone_from(&self.title);
        job.max_attempts = self.max_attempts;
        job.timeout_s = self.timeout_s;
        job.delay_s = self.delay_s;
        job.then.clone_from(&self.then);
        job.on_failure.clone_from(&self.on_failure);
        job
    }
}

/// The namespace of our name-based ids (RFC 9562, section 5.5): random, made once.
pub const NAMESPACE: Uuid = Uuid::from_u128(0x5c1d_62e3_0a4f_4b7e_9d0c_3f8e_21b7_66a9);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_follow_up_gets_what_came_out() {
        let mut parent = Job::new("p", "render", json!({}), "ann");
        parent.room_id = Some("room".into());
        let mut mail = FollowUp::new("mail", json!({"to": "ann@example.org"}));
        mail.then = vec![FollowUp::new("log", json!({}))];
        let result = json!({"pages": 3});
        let job = mail.job(&Parent::job(&parent), Ending::Succeeded(&result), 0);
        assert_eq!(
            job.args,
            json!({"to": "ann@example.org", "result": {"pages": 3}})
        );
        assert_eq!((job.user_id.as_str(), job.then.len()), ("ann", 1));
        assert_eq!(job.room_id.as_deref(), Some("room"));
        assert_eq!(
            job.id,
            mail.job(&Parent::job(&parent), Ending::Succeeded(&json!(1)), 0)
                .id
        );
        assert_ne!(
            job.id,
            mail.job(&Parent::job(&parent), Ending::Succeeded(&result), 1)
                .id
        );
    }

    #[test]
    fn a_follow_up_to_a_failure_gets_the_error_under_the_name_it_asks_for() {
        let parent = Job::new("p", "render", json!({}), "ann");
        let mut follow_up = FollowUp::new("clean", json!({}));
        follow_up.name = Some("why".into());
        let error = TaskError::new("exit_3", "no paper");
        let job = follow_up.job(&Parent::job(&parent), Ending::Failed(&error), 0);
        assert_eq!(
            job.args,
            json!({"why": {"code": "exit_3", "message": "no paper"}})
        );
    }
}
