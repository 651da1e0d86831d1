//! Keeping events.

use std::collections::HashMap;

use jiff::Timestamp;
use redis::Pipeline;

use super::keys::{APPEND, Slot};
use super::{Redis, tasks, upkeep};
use crate::store::{Epoch, Kept, NewEvent, Position, StoreError, StreamName};

/// What the script says of one stream: its epoch, and of each event the number, whether it is new,
/// and how many are not read.
type Grown = (u64, Vec<(u64, bool, u64)>);

/// A part of a batch: one stream, its events, and where in the batch they are.
#[derive(Default)]
struct Part<'a> {
    events: Vec<&'a NewEvent>,
    places: Vec<usize>,
}

impl Redis {
    pub(super) async fn append(
        &self,
        events: &[NewEvent],
        now: Timestamp,
    ) -> Result<Vec<Kept>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut parts: HashMap<&StreamName, Part<'_>> = HashMap::new();
        for (place, event) in events.iter().enumerate() {
            let part = parts.entry(&event.stream).or_default();
            part.events.push(event);
            part.places.push(place);
        }
        let parts: Vec<_> = parts.into_iter().collect();
        let mut pipeline = Pipeline::new();
        // The events come last: if something fails, they are new when the batch is sent again.
        let states = events.iter().filter_map(|event| event.task.as_ref());
        let users = tasks::put(&mut pipeline, &self.prefix, states, now);
        for (stream, part) in &parts {
            self.add(&mut pipeline, stream, part, now);
        }
        let streams = parts.iter().map(|(stream, _)| (*stream).clone());
        upkeep::note(&mut pipeline, &self.prefix, streams.chain(users), now);
        let grown: Vec<Grown> = self.link.ask(&pipeline).await?;
        Ok(in_order(&parts, grown))
    }

    fn add(&self, pipeline: &mut Pipeline, stream: &StreamName, part: &Part<'_>, now: Timestamp) {
        let mut call = APPEND.call(&Slot::of(&self.prefix, stream));
        call.arg(Epoch::fresh().number());
        call.arg(self.retention.events.max(1));
        call.arg(now.as_millisecond());
        for event in &part.events {
            call.arg(event.id.as_bytes()).arg(&event.body[..]);
        }
        pipeline.add_command(call);
    }
}

/// As the batch was.
fn in_order(parts: &[(&StreamName, Part<'_>)], grown: Vec<Grown>) -> Vec<Kept> {
    let mut kept = Vec::new();
    for ((stream, part), (epoch, events)) in parts.iter().zip(grown) {
        let epoch = Epoch::new(epoch);
        for (place, (seq, is_new, unread)) in part.places.iter().zip(events) {
            let event = Kept {
                position: Position { epoch, seq },
                is_new,
                // Only users read.
                unread: stream.owner().map(|_| unread),
            };
            kept.push((*place, event));
        }
    }
    kept.sort_unstable_by_key(|(place, _)| *place);
    kept.into_iter().map(|(_, event)| event).collect()
}
