//! The task board.

use std::collections::HashMap;

use bytes::Bytes;
use jiff::Timestamp;
use redis::Pipeline;

use super::keys::{PUT_TASKS, Slot, TASKS};
use super::{Redis, upkeep};
use crate::store::page::Filling;
use crate::store::{Page, StoreError, StreamName, TaskPlace, TaskQuery, TaskRecord};

/// How many bytes of a kept task its rank has.
const RANK: usize = 21;

/// Adds calls that keep states, if they are newer than what is there; the users whose they are.
pub(super) fn put<'a>(
    pipeline: &mut Pipeline,
    prefix: &str,
    tasks: impl Iterator<Item = &'a TaskRecord>,
    now: Timestamp,
) -> Vec<StreamName> {
    let mut users: HashMap<StreamName, Vec<&TaskRecord>> = HashMap::new();
    for task in tasks {
        let user = StreamName::user(&task.user_id);
        users.entry(user).or_default().push(task);
    }
    for (user, tasks) in &users {
        let mut call = PUT_TASKS.call(&Slot::of(prefix, user));
        call.arg(now.as_millisecond());
        for task in tasks {
            let rank = format!("{:020}{}", task.rev, u8::from(task.is_final));
            call.arg(&task.task_id).arg(rank).arg(&task.state[..]);
        }
        pipeline.add_command(call).ignore();
    }
    users.into_keys().collect()
}

impl Redis {
    pub(super) async fn put_tasks(
        &self,
        tasks: &[TaskRecord],
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if tasks.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        let users = put(&mut pipeline, &self.prefix, tasks.iter(), now);
        upkeep::note(&mut pipeline, &self.prefix, users.into_iter(), now);
        self.link.ask(&pipeline).await
    }

    /// A task of a user.
    pub(super) async fn task(
        &self,
        user_id: String,
        task_id: String,
    ) -> Result<Option<TaskRecord>, StoreError> {
        let mut get = redis::cmd("HGET");
        get.arg(self.slot(&StreamName::user(&user_id)).key("tasks"));
        get.arg(&task_id);
        let found: Option<Bytes> = self.ask(get).await?;
        Ok(found.and_then(|kept| record(&user_id, task_id, kept)))
    }

    /// Tasks of a user, those that changed last first.
    pub(super) async fn tasks(
        &self,
        user_id: &str,
        query: &TaskQuery,
    ) -> Result<Page<TaskRecord, TaskPlace>, StoreError> {
        if query.limit == 0 {
            return Ok(Page::empty());
        }
        let before = query.before.as_ref();
        let (time, id) = before.map_or_else(Default::default, |before| {
            (before.stored_at.to_string(), &*before.task_id)
        });
        let ended = query.ended.map(|ended| u8::from(ended).to_string());
        let mut call = TASKS.call(&self.slot(&StreamName::user(user_id)));
        call.arg(time).arg(id);
        call.arg(ended.unwrap_or_default());
        call.arg(query.limit).arg(query.max_bytes);
        let found: Vec<(String, i64, Bytes)> = self.ask(call).await?;
        let mut filling = Filling::new(query.limit, query.max_bytes);
        for (task_id, stored_at, kept) in found {
            let place = TaskPlace {
                stored_at,
                task_id: task_id.clone(),
            };
            let Some(task) = record(user_id, task_id, kept) else {
                continue;
            };
            let bytes = task.state.len();
            filling.add(place, task, bytes);
        }
        Ok(filling.page())
    }
}

fn record(user_id: &str, task_id: String, mut kept: Bytes) -> Option<TaskRecord> {
    let state = (kept.len() >= RANK).then(|| kept.split_off(RANK))?;
    let (is_final, rev) = kept.split_last()?;
    Some(TaskRecord {
        user_id: user_id.to_owned(),
        task_id,
        rev: std::str::from_utf8(rev).ok()?.parse().ok()?,
        is_final: *is_final == b'1',
        state,
    })
}
