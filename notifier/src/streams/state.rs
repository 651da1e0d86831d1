//! The state of a task as an event tells it. Pure.

use std::borrow::Cow;

use bellhop_common::wire::{Audience, Event, Status, TASK_STATUS_CHANGED};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::store::TaskRecord;

/// What is looked at of a state.
#[derive(Debug, Deserialize)]
pub(super) struct State<'a> {
    #[serde(borrow)]
    pub(super) task_id: Cow<'a, str>,
    pub(super) rev: u64,
    pub(super) status: Status,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    /// Read apart, since a foreign backend may mean something else by it.
    #[serde(borrow, default)]
    pub(super) group: Option<&'a RawValue>,
}

impl<'a> State<'a> {
    /// The state of a task that an event to its owner tells, and the owner.
    pub(super) fn of(audience: &'a Audience, event: &'a Event) -> Option<(&'a str, Self)> {
        let Audience::User(owner) = audience else {
            return None;
        };
        if event.kind != TASK_STATUS_CHANGED {
            return None;
        }
        let state = serde_json::from_str(event.data.as_deref()?.get()).ok()?;
        Some((owner, state))
    }

    /// For the board.
    pub(super) fn record(&self, owner: &str, event: &Event) -> Option<TaskRecord> {
        Some(TaskRecord {
            user_id: owner.to_owned(),
            task_id: self.task_id.to_string(),
            rev: self.rev,
            is_final: self.status.is_final(),
            state: Bytes::copy_from_slice(event.data.as_deref()?.get().as_bytes()),
        })
    }
}
