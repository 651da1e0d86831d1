//! Streams of stored events: kept by one instance, shown by all.
//!
//! - [`writer`]: from the broker's inbox into the store, then told to all instances in a [`bundle`];
//!   [`batches`]: where there is one instance, by a number.
//! - [`groups`]: how far groups of jobs are (pure). [`group_end`]: telling it, and what follows.
//! - [`deferral`]: those that are for later.
//! - [`followed`]: how far each stream has been shown here. [`catch_up`] reads what is missing.
//! - [`opening`]: what a client that comes (back) is told. [`cursor`]: where it was.
//! - [`inbox`]: what a user has read. [`board`]: where his tasks stand.
//! - [`upkeep`]: opens the store, and removes what is too old.
//! - [`leaving`]: how far a user had seen everything when he left.

pub(crate) mod batches;
pub(crate) mod board;
pub(crate) mod bundle;
pub(crate) mod catch_up;
pub(crate) mod cursor;
mod deferral;
mod followed;
mod group_end;
mod groups;
pub(crate) mod inbox;
pub(crate) mod leaving;
pub(crate) mod opening;
pub(crate) mod retry;
mod state;
mod upkeep;
pub(crate) mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

pub(crate) use self::cursor::Cursor;
pub(crate) use self::followed::{Arrived, Followed, Missing, Settled, Standing};
pub(crate) use self::upkeep::{lock, look_after, open};
use crate::store::{Redis, SharedStore, StreamName};
use batches::Batches;
use bundle::Told;
use leaving::Leaving;

/// How many streams may wait to be caught up with. The others are found by the next look.
const BEHIND: usize = 4096;

/// How long a client that comes waits for the store.
pub(crate) const STORE_WAIT: Duration = Duration::from_secs(5);

/// The store, and what this instance shows of it.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) store: SharedStore,
    /// The same, where it can tell who is connected to other instances.
    pub(crate) redis: Option<Arc<Redis>>,
    users_and_places: Followed<Told>,
    /// Apart, because who comes joins his own stream and everybody's in one step.
    everybody: Followed<Told>,
    pub(crate) leaving: Leaving,
    batches: Batches,
    behind: mpsc::Sender<StreamName>,
}

impl Streams {
    /// And the streams that are behind, for [`catch_up`].
    pub(crate) fn new(store: SharedStore) -> (Self, mpsc::Receiver<StreamName>) {
        let (behind, those_behind) = mpsc::channel(BEHIND);
        let streams = Self {
            store,
            redis: None,
            users_and_places: Followed::new(),
            everybody: Followed::new(),
            leaving: Leaving::default(),
            batches: Batches::new(),
            behind,
        };
        (streams, those_behind)
    }

    /// Where events wait to be shown, if no other instance shows any: a file has one notifier.
    pub(crate) fn batches(&self) -> Option<&Batches> {
        self.redis.is_none().then_some(&self.batches)
    }

    /// Where it is known how far a stream has been shown. Who holds the lock of a stream of everybody
    /// takes none of another.
    pub(crate) fn followed(&self, name: &StreamName) -> &Followed<Told> {
        if name.is_everybodys() {
            &self.everybody
        } else {
            &self.users_and_places
        }
    }

    /// All that are followed.
    pub(crate) fn all(&self) -> Vec<Standing> {
        let mut all = self.everybody.all();
        all.extend(self.users_and_places.all());
        all
    }

    /// Has what is missing of a stream be read from the store.
    pub(crate) fn catch_up(&self, name: &StreamName) {
        // When too many wait, the next look at all streams finds it.
        drop(self.behind.try_send(name.clone()));
    }
}
