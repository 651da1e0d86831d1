//! Small pieces of state, and the log of deliveries.

use bytes::Bytes;
use uuid::Uuid;

use super::Redis;
use super::keys::{LOG_ATTEMPT, PUT_DOCUMENT, Slot, encoded};
use crate::store::{ATTEMPTS_MAX, AttemptRecord, Document, StoreError};

impl Redis {
    fn document_slot(&self, name: &str) -> Slot {
        Slot::new(&self.prefix, &format!("document:{}", encoded(name)))
    }

    fn attempts_slot(&self, event_id: Uuid) -> Slot {
        Slot::new(&self.prefix, &format!("event:{event_id}"))
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
        call.arg(expected).arg(body).arg(Uuid::new_v4().as_bytes());
        self.ask(call).await
    }

    pub(super) async fn log_attempts(&self, attempts: &[AttemptRecord]) -> Result<(), StoreError> {
        let calls = attempts.iter().map(|attempt| {
            let mut call = LOG_ATTEMPT.call(&self.attempts_slot(attempt.event_id));
            call.arg(&attempt.body[..])
                .arg(ATTEMPTS_MAX)
                .arg(self.memory());
            call
        });
        let _: Vec<u64> = self.ask_each(calls).await?;
        Ok(())
    }

    pub(super) async fn attempts(&self, event_id: Uuid) -> Result<Vec<Bytes>, StoreError> {
        let mut range = redis::cmd("LRANGE");
        range
            .arg(self.attempts_slot(event_id).key("attempts"))
            .arg(0)
            .arg(-1);
        self.ask(range).await
    }
}
