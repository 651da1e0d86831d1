//! Jobs that belong together: one progress for all, and jobs that follow when the last has ended.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::follow_up::{FollowUp, MAX_FOLLOW_UPS, NAMESPACE};
use super::job::{Job, JobError, MAX_ID_BYTES, MAX_TITLE_BYTES};
use super::task::Status;

/// The kind of the task that a group is.
pub const GROUP_KIND: &str = "group";

/// The error code of a group of which jobs failed.
pub const GROUP_FAILED: &str = "group_failed";

/// How many jobs a group may have.
pub const MAX_GROUP_SIZE: u32 = 10_000;

/// How many bytes of JSON `then` and `on_failure` of a group may have together: they go in an AMQP
/// header with the end of each of its jobs.
pub const MAX_SEQUEL_BYTES: usize = 16 * 1024;

/// What a job says of the group that it belongs to. All jobs of a group say the same but for `index`,
/// and have the same owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Names the group among those of its owner. It is the id of the task that the group is.
    pub id: String,
    /// Which job of the group it is, from 0.
    pub index: u32,
    /// How many there are.
    pub size: u32,
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Jobs to put in when all have succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<FollowUp>,
    /// Jobs to put in when all have ended and some have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<FollowUp>,
}

/// Which job of which group: what the states of a task say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlace {
    /// The group's id.
    pub id: String,
    /// Which job of the group it is, from 0.
    pub index: u32,
    /// How many there are.
    pub size: u32,
}

/// What whoever counts a group has to know besides its jobs' ends. It goes in the header
/// [`GROUP`](super::header::GROUP) of each end, because clients are not to see it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GroupSequel {
    /// The group's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The room that sees the group's progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
    /// The queue of the jobs that follow, unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Jobs to put in when all have succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<FollowUp>,
    /// Jobs to put in when all have ended and some have failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_failure: Vec<FollowUp>,
}

impl Group {
    /// A group with this id. Its size, and which job of it, are still to be said.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            index: 0,
            size: 0,
            title: None,
            then: Vec::new(),
            on_failure: Vec::new(),
        }
    }

    /// What the states of the job say of it.
    #[must_use]
    pub fn place(&self) -> GroupPlace {
        GroupPlace {
            id: self.id.clone(),
            index: self.index,
            size: self.size,
        }
    }

    /// What goes with the end of a job of this group.
    #[must_use]
    pub fn sequel(&self, job: &Job, queue: &str) -> GroupSequel {
        GroupSequel {
            title: self.title.clone(),
            room: job.room_id.clone(),
            queue: Some(queue.to_owned()),
            then: self.then.clone(),
            on_failure: self.on_failure.clone(),
        }
    }

    /// Checks what the type cannot say.
    ///
    /// # Errors
    /// [`JobError`] says which field is wrong, and how.
    pub fn check(&self) -> Result<(), JobError> {
        let bytes = self.id.len();
        if !(1..=MAX_ID_BYTES).contains(&bytes) {
            let field = "group.id";
            return Err(JobError::BadLength { field, bytes });
        }
        if !(1..=MAX_GROUP_SIZE).contains(&self.size) {
            return Err(JobError::OutOfRange {
                field: "group.size",
                range: "1 to 10000",
                value: self.size.into(),
            });
        }
        if self.index >= self.size {
            return Err(JobError::GroupIndex {
                index: self.index,
                size: self.size,
            });
        }
        match self.title.as_ref().map_or(0, String::len) {
            bytes if bytes > MAX_TITLE_BYTES => return Err(JobError::LongTitle(bytes)),
            _ => {}
        }
        let lists = [
            ("group.then", &self.then),
            ("group.on_failure", &self.on_failure),
        ];
        let mut bytes = 0;
        for (field, list) in lists {
            if list.len() > MAX_FOLLOW_UPS {
                let count = list.len();
                return Err(JobError::TooManyFollowUps { field, count });
            }
            if !list.is_empty() {
                bytes += serde_json::to_vec(list)?.len();
            }
        }
        if bytes > MAX_SEQUEL_BYTES {
            return Err(JobError::LargeSequel(bytes));
        }
        Ok(())
    }
}

/// What the ids of what follows a group's end are made of. The length keeps two owners and groups
/// apart whose names run into each other.
pub(super) fn name_of(owner: &str, group_id: &str) -> String {
    format!("group/{}/{owner}/{group_id}", owner.len())
}

/// An id for a job of a group that has none of its own: the same whenever the group is put in.
#[must_use]
pub fn group_job_id(owner: &str, group_id: &str, index: usize) -> Uuid {
    let name = format!("{}/job/{index}", name_of(owner, group_id));
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

/// The id of the event that ends a group: the same from whoever tells it.
#[must_use]
pub fn group_end_id(owner: &str, group_id: &str, end: Status) -> Uuid {
    let name = format!("{}/{}/end", name_of(owner, group_id), end.as_str());
    Uuid::new_v5(&NAMESPACE, name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::JobProperties;
    use serde_json::json;

    fn check(group: &serde_json::Value) -> Result<(), JobError> {
        let job = json!({"id": "t", "kind": "k", "user_id": "ann", "group": group});
        Job::parse(job.to_string().as_bytes(), &JobProperties::default()).map(drop)
    }

    #[test]
    fn a_wrong_group_is_told_what_is_wrong() {
        let large = json!({"kind": "k", "args": {"text": "x".repeat(17_000)}});
        for (group, wants) in [
            (
                json!({"id": "g", "index": 0, "size": 0}),
                "`group.size` must be 1 to 10000",
            ),
            (
                json!({"id": "g", "index": 0, "size": 10_001}),
                "it is 10001",
            ),
            (json!({"id": "g", "index": 3, "size": 3}), "0 to 2"),
            (json!({"id": "g", "index": -1, "size": 3}), "-1"),
            (json!({"id": "", "index": 0, "size": 3}), "`group.id`"),
            (json!({"id": "g".repeat(129), "index": 0, "size": 3}), "129"),
            (
                json!({"id": "g", "index": 0, "size": 3, "title": "t".repeat(257)}),
                "`title`",
            ),
            (
                json!({"id": "g", "index": 0, "size": 3, "on_success": []}),
                "on_success",
            ),
            (
                json!({"id": "g", "index": 0, "size": 3, "then": vec![json!({"kind": "k"}); 17]}),
                "`group.then`",
            ),
            (
                json!({"id": "g", "index": 0, "size": 3, "on_failure": [large]}),
                "16384",
            ),
        ] {
            let error = check(&group).unwrap_err().to_string();
            assert!(error.contains(wants), "{group}: {error}");
        }
        check(&json!({"id": "g".repeat(128), "index": 9_999, "size": 10_000})).unwrap();
        check(&json!({"id": "g", "index": 0, "size": 1, "then": [{"kind": "k"}]})).unwrap();
    }

    #[test]
    fn two_groups_have_two_ends() {
        let end = |owner, id| group_end_id(owner, id, Status::Failed);
        assert_eq!(end("ann", "g"), end("ann", "g"));
        assert_ne!(end("ann", "g"), end("bob", "g"));
        assert_ne!(end("a/b", "c"), end("a", "b/c"));
        assert_ne!(end("a", "g"), group_end_id("a", "g", Status::Succeeded));
    }
}
