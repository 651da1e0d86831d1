//! Groups of jobs as they are counted. Pure.

use bellhop_common::wire::Status;
use bytes::Bytes;

/// The longest result of a job that is kept for its group.
pub const MAX_RESULT_BYTES: usize = 64 * 1024;

/// How many bytes of results of a group are kept together. A group with more has none of them.
pub const MAX_RESULTS_BYTES: u64 = 256 * 1024;

/// How a job of a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEnd {
    /// Well.
    Succeeded,
    /// Badly, for good.
    Failed,
    /// On request.
    Cancelled,
}

/// The end of a job of a group, counted in the same step in which its event is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPart {
    /// Whose the group is.
    pub owner: String,
    /// The group.
    pub group_id: String,
    /// How many jobs it has. What is said first holds.
    pub size: u32,
    /// Which job of the group this is.
    pub index: u32,
    /// The job's id.
    pub task_id: String,
    /// Of several ends of one job, that with the highest counts.
    pub rev: u64,
    /// How it ended.
    pub end: JobEnd,
    /// What came out, as JSON, if it is to be kept.
    pub result: Option<Bytes>,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupCount {
    /// How many jobs it has.
    pub size: u32,
    /// How many of them succeeded.
    pub succeeded: u32,
    /// How many failed.
    pub failed: u32,
    /// How many were cancelled.
    pub cancelled: u32,
    /// The `rev` of the group's state: it grows each time that the group is counted.
    pub rev: u64,
    /// All had ended already before the batch that was kept, so that the group's end may have been told.
    pub was_complete: bool,
}

/// A group with its jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupRecord {
    /// How many jobs it has.
    pub size: u32,
    /// Those that have ended, in the order of their index.
    pub jobs: Vec<GroupJob>,
}

/// A job of a group that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupJob {
    /// Which one of the group.
    pub index: u32,
    /// Its id.
    pub task_id: String,
    /// How it ended.
    pub end: JobEnd,
    /// What came out, as JSON, if it was kept.
    pub result: Option<Bytes>,
}

impl JobEnd {
    /// The end that a status is.
    #[must_use]
    pub const fn of(status: Status) -> Option<Self> {
        match status {
            Status::Succeeded => Some(Self::Succeeded),
            Status::Failed => Some(Self::Failed),
            Status::Cancelled => Some(Self::Cancelled),
            Status::Queued | Status::Scheduled | Status::Running | Status::Retrying => None,
        }
    }

    /// What a store keeps.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Succeeded => 0,
            Self::Failed => 1,
            Self::Cancelled => 2,
        }
    }

    /// The inverse.
    pub(super) const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Succeeded,
            1 => Self::Failed,
            _ => Self::Cancelled,
        }
    }
}

impl GroupCount {
    /// How many have ended.
    #[must_use]
    pub const fn done(&self) -> u32 {
        self.succeeded + self.failed + self.cancelled
    }

    /// How the group ended, if it has.
    #[must_use]
    pub const fn end(&self) -> Option<Status> {
        match self {
            _ if self.done() < self.size => None,
            Self { failed: 1.., .. } => Some(Status::Failed),
            Self { cancelled: 1.., .. } => Some(Status::Cancelled),
            _ => Some(Status::Succeeded),
        }
    }
}
