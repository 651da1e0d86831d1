//! What is too old.

use jiff::{SignedDuration, Timestamp};
use redis::{Cmd, Pipeline};

use super::Redis;
use super::keys::{self, SWEEP, Slot};
use crate::store::{StoreError, StreamName, Swept};

/// How many streams one sweep looks at.
const STREAMS_AT_ONCE: usize = 50;

/// How many events, and how many tasks, one sweep removes of each: nothing else is done meanwhile.
const AT_ONCE: u64 = 200;

/// What the script says of a stream: how many events, tasks and groups went, whether there may be
/// more groups, and how old what remains is.
type Cut = (u64, u64, u64, bool, Option<i64>);

/// Notes that streams have something that will be too old. It comes after what it is about, so
/// that a sweep does not forget a stream that just gets its next event. If only this is missing when we
/// are killed, the batch comes again and with it the note.
pub(super) fn note(
    pipeline: &mut Pipeline,
    prefix: &str,
    streams: impl Iterator<Item = StreamName>,
    now: Timestamp,
) {
    let note = pipeline.cmd("ZADD").arg(keys::streams(prefix)).arg("NX");
    for stream in streams {
        note.arg(now.as_millisecond())
            .arg(keys::encoded(stream.as_str()));
    }
    note.ignore();
}

impl Redis {
    /// Removes some of what is too old, of those streams first that have the oldest.
    pub(super) async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        let age = SignedDuration::try_from(self.retention.age).unwrap_or_default();
        let oldest = now
            .saturating_sub(age)
            .map_or(i64::MIN, Timestamp::as_millisecond);
        let mut due = redis::cmd("ZRANGEBYSCORE");
        due.arg(keys::streams(&self.prefix))
            .arg("-inf")
            .arg(format!("({oldest}"));
        due.arg("LIMIT").arg(0).arg(STREAMS_AT_ONCE);
        let due: Vec<String> = self.ask(due).await?;
        let cuts = self.cut(&due, oldest).await?;
        let rests = due.iter().zip(&cuts);
        self.note_rests(rests.map(|(stream, (.., rest))| (stream, *rest)))
            .await?;
        let is_full =
            |(events, tasks, _, more, _): &Cut| *more || *events == AT_ONCE || *tasks == AT_ONCE;
        Ok(Swept {
            events: cuts.iter().map(|cut| cut.0).sum(),
            tasks: cuts.iter().map(|cut| cut.1).sum(),
            groups: cuts.iter().map(|cut| cut.2).sum(),
            // Those expire by themselves.
            attempts: 0,
            more: cuts.len() == STREAMS_AT_ONCE || cuts.iter().any(is_full),
        })
    }

    async fn cut(&self, streams: &[String], oldest: i64) -> Result<Vec<Cut>, StoreError> {
        let calls = streams.iter().map(|stream| {
            let mut call = SWEEP.call(&Slot::new(&self.prefix, stream));
            call.arg(oldest).arg(AT_ONCE).arg(self.memory());
            call
        });
        self.ask_each(calls).await
    }

    /// Notes how old what remains of streams is.
    async fn note_rests(
        &self,
        rests: impl Iterator<Item = (&String, Option<i64>)>,
    ) -> Result<(), StoreError> {
        let (mut changes, mut empty) = (Vec::new(), Vec::new());
        for (stream, rest) in rests {
            if let Some(stored_at) = rest {
                changes.push(self.score("XX", stored_at, stream));
            } else {
                let mut forget = redis::cmd("ZREM");
                forget.arg(keys::streams(&self.prefix)).arg(stream);
                changes.push(forget);
                empty.push(stream.clone());
            }
        }
        let _: Vec<u64> = self.ask_each(changes.into_iter()).await?;
        // An event that came before that found its stream still noted.
        let cuts = self.cut(&empty, i64::MIN).await?;
        let filled = empty.iter().zip(cuts);
        let filled =
            filled.filter_map(|(stream, (.., rest))| Some(self.score("NX", rest?, stream)));
        let _: Vec<u64> = self.ask_each(filled).await?;
        Ok(())
    }

    fn score(&self, condition: &str, stored_at: i64, stream: &str) -> Cmd {
        let mut change = redis::cmd("ZADD");
        change.arg(keys::streams(&self.prefix)).arg(condition);
        change.arg(stored_at).arg(stream);
        change
    }
}
