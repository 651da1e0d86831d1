//! What waits to be published, and the channels it goes out by.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lapin::Channel;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::batch::{Outgoing, send};
use super::channels::Channels;
use super::lanes::Lane;

/// How many messages may wait; more wait for their turn with their senders.
const MAX_WAITING: usize = 1024;

/// How many messages go out together at most.
const BATCH: usize = 64;

/// How many batches may be under way at once, each on a channel of its own. The busier they are,
/// the larger the next batch gets.
const MAX_BATCHES: usize = 16;

/// The messages of a publisher, which outlive its connections.
pub(super) struct Outbox {
    incoming: mpsc::Receiver<Outgoing>,
    /// Nobody is left who could send.
    is_closed: bool,
    fresh: Vec<Outgoing>,
    /// Batches that wait for a channel, each of one lane.
    ready: VecDeque<(Lane, Vec<Outgoing>)>,
    /// The longest that anybody waits for a confirm.
    limit: Duration,
    idle: Vec<(Lane, Channel)>,
    under_way: FuturesUnordered<BoxFuture<'static, Option<(Lane, Channel)>>>,
}

impl Outbox {
    pub(super) fn new(limit: Duration) -> (mpsc::Sender<Outgoing>, Self) {
        let (sender, incoming) = mpsc::channel(MAX_WAITING);
        let outbox = Self {
            incoming,
            is_closed: false,
            fresh: Vec::with_capacity(BATCH),
            ready: VecDeque::new(),
            limit,
            idle: Vec::new(),
            under_way: FuturesUnordered::new(),
        };
        (sender, outbox)
    }

    /// Sends what there is and waits until there is something to do again. While `may_write` is
    /// false, nothing leaves. May be dropped at any time.
    pub(super) async fn turn(&mut self, channels: &Arc<Channels>, may_write: bool) {
        if may_write {
            while self.under_way.len() < MAX_BATCHES
                && let Some((lane, batch)) = self.ready.pop_front()
            {
                self.begin(channels, lane, batch);
            }
        }
        let takes_more = may_write
            && !self.is_closed
            && self.ready.is_empty()
            && self.under_way.len() < MAX_BATCHES;
        tokio::select! {
            count = self.incoming.recv_many(&mut self.fresh, BATCH), if takes_more => {
                self.is_closed = count == 0;
                self.sort();
            }
            Some(channel) = self.under_way.next() => self.idle.extend(channel),
            else => std::future::pending().await,
        }
    }

    /// The connection is gone. Whoever waits for a confirm of it learns that there will be none.
    pub(super) fn disconnected(&mut self) {
        self.under_way.clear();
        self.idle.clear();
    }

    /// Makes batches of what came, and leaves out what came too late.
    fn sort(&mut self) {
        let now = Instant::now();
        let mut together: Vec<(Lane, Vec<Outgoing>)> = Vec::new();
        for one in self.fresh.drain(..).filter(|one| one.deadline > now) {
            if one.alone {
                self.ready.push_back((one.lane, vec![one]));
                continue;
            }
            match together.iter_mut().find(|(lane, _)| *lane == one.lane) {
                Some((_, batch)) => batch.push(one),
                None => together.push((one.lane, vec![one])),
            }
        }
        self.ready.extend(together);
    }

    fn begin(&mut self, channels: &Arc<Channels>, lane: Lane, batch: Vec<Outgoing>) {
        let idle = self.idle.iter().rposition(|(other, _)| *other == lane);
        let idle = idle.map(|index| self.idle.swap_remove(index));
        let (channels, limit) = (Arc::clone(channels), self.limit);
        let sending = async move {
            let channel = match idle {
                Some((_, channel)) => channel,
                None => match channels.fresh().await {
                    Ok(channel) => channel,
                    Err(error) => {
                        for one in batch {
                            one.fail(error.clone());
                        }
                        return None;
                    }
                },
            };
            // A channel that owes confirms, or that the broker closed, is dropped, which closes it.
            timeout(limit, send(&channel, batch)).await.ok()?;
            let is_sound = channel.status().connected();
            is_sound.then_some((lane, channel))
        };
        self.under_way.push(Box::pin(sending));
    }
}
