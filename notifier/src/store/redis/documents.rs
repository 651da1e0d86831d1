//! Small pieces of state, and the log of deliveries.

use bytes::Bytes;
use redis::Pipeline;
use uuid::Uuid;

use super::Redis;
use super::keys::{PUT_DOCUMENT, Slot, encoded};
use crate::store::{ATTEMPTS_MAX, AttemptRecord, Document, StoreError};

impl Redis {
    fn document_slot(&self, name: &str) -> Slot {
        Slot::new(&self.prefix, &format!("document:{}", encoded(name)))
    }

    fn attempts_key(&self, event_id: Uuid) -> String {
        Slot::new(&self.prefix, &format!("event:{event_id}")).key("attempts")
    }

    pub(super) async fn document(&self, name: &str) -> Result<Option<Document>, StoreError> {
        let mut get = redis::cmd("HMGET");
        get.arg(self.document_slot(name).key("document"));
        get.arg("version").arg("body");
        let (version, body): (Option<u64>, Option<Bytes>) = self.ask(get).await?;
        let found = version.zip(body);
        Ok(found.map(|(version, body)| Document { version, body }))
    }

    pub(super) async fn put_document(
        &self,
        name: &str,
        expected: u64,
        body: &[u8],
    ) -> Result<bool, StoreError> {
        let mut call = PUT_DOCUMENT.call(&self.document_slot(name));
        call.arg(expected).arg(body);
        self.ask(call).await
    }

    pub(super) async fn log_attempts(&self, attempts: &[AttemptRecord]) -> Result<(), StoreError> {
        if attempts.is_empty() {
            return Ok(());
        }
        let most = isize::try_from(ATTEMPTS_MAX).unwrap_or(isize::MAX);
        let mut pipeline = Pipeline::new();
        for attempt in attempts {
            let key = self.attempts_key(attempt.event_id);
            pipeline.rpush(&key, &attempt.body[..]).ignore();
            pipeline.ltrim(&key, -most, -1).ignore();
            let expire = pipeline.cmd("PEXPIRE").arg(&key).arg(self.memory());
            expire.ignore();
        }
        self.link.ask(&pipeline).await
    }

    pub(super) async fn attempts(&self, event_id: Uuid) -> Result<Vec<Bytes>, StoreError> {
        let mut range = redis::cmd("LRANGE");
        range.arg(self.attempts_key(event_id)).arg(0).arg(-1);
        self.ask(range).await
    }
}
