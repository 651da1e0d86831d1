//! Keeping events.

use std::collections::HashMap;

use jiff::Timestamp;
use redis::{FromRedisValue as _, Pipeline, RedisError, Value};

use super::groups::{self, Counted, Places};
use super::keys::{APPEND, Slot};
use super::{Redis, tasks, upkeep};
use crate::store::{Epoch, Kept, NewEvent, Position, StoreError, StreamName};

/// What the script says of one stream: its epoch, and of each event the number, whether it is new,
/// and how many are not read.
type Grown = (u64, Vec<(u64, bool, u64)>);

/// How many streams one call is about: it costs Redis a fifth less for each event than calls of their own
/// would, and holds up others for a quarter of a millisecond.
const TOGETHER: usize = 16;

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
        // The events come last: if something fails, they are new when the batch is sent again. In a cluster
        // that holds for each slot, where a task and a group are with their user's stream; what is half done
        // then is completed by the batch that comes again.
        let states = events.iter().filter_map(|event| event.task.as_ref());
        let users = tasks::put(&mut pipeline, &self.prefix, states, now);
        let counting = groups::count(&mut pipeline, &self.prefix, events, now);
        let owners = counting.iter().map(|(owner, _)| owner.clone());
        let users: Vec<_> = users.into_iter().chain(owners).collect();
        let together = if self.link.is_cluster().await? {
            1
        } else {
            TOGETHER
        };
        for some in parts.chunks(together) {
            self.add(&mut pipeline, some, now);
        }
        let streams = parts.iter().map(|(stream, _)| (*stream).clone());
        upkeep::note(&mut pipeline, &self.prefix, streams.chain(users), now);
        let mut answers: Vec<Value> = self.link.ask(&pipeline).await?;
        let grown = answers.split_off(counting.len().min(answers.len()));
        let grown = grown.into_iter().map(Vec::<Grown>::from_redis_value);
        let grown: Vec<_> = grown.collect::<Result<_, _>>().map_err(RedisError::from)?;
        let mut kept = in_order(&parts, grown.into_iter().flatten());
        put_counts(&mut kept, &counting, answers)?;
        Ok(kept)
    }

    fn add(&self, pipeline: &mut Pipeline, parts: &[(&StreamName, Part<'_>)], now: Timestamp) {
        let slots = parts.iter();
        let slots = slots.map(|(stream, _)| Slot::of(&self.prefix, stream));
        let mut call = APPEND.call_for(&slots.collect::<Vec<_>>());
        call.arg(self.retention.events.max(1));
        call.arg(now.as_millisecond());
        for (_, part) in parts {
            call.arg(Epoch::fresh().number()).arg(part.events.len());
            for event in &part.events {
                call.arg(event.id.as_bytes()).arg(&event.body[..]);
            }
        }
        pipeline.add_command(call);
    }
}

/// As the batch was.
fn in_order(parts: &[(&StreamName, Part<'_>)], grown: impl Iterator<Item = Grown>) -> Vec<Kept> {
    let mut kept = Vec::new();
    for ((stream, part), (epoch, events)) in parts.iter().zip(grown) {
        let epoch = Epoch::new(epoch);
        for (place, (seq, is_new, unread)) in part.places.iter().zip(events) {
            let event = Kept {
                position: Position { epoch, seq },
                is_new,
                // Only users read.
                unread: stream.owner().map(|_| unread),
                group: None,
            };
            kept.push((*place, event));
        }
    }
    kept.sort_unstable_by_key(|(place, _)| *place);
    kept.into_iter().map(|(_, event)| event).collect()
}

/// Notes with each end of a job how far its group is.
fn put_counts(kept: &mut [Kept], counting: &Places, answers: Vec<Value>) -> Result<(), StoreError> {
    for ((_, places), answer) in counting.iter().zip(answers) {
        let counted = Vec::<Counted>::from_redis_value(answer).map_err(RedisError::from)?;
        for (place, counted) in places.iter().zip(counted) {
            if let Some(kept) = kept.get_mut(*place) {
                kept.group = Some(groups::count_of(counted));
            }
        }
    }
    Ok(())
}
