//! One way through the queue.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::filter::Filter;
use super::letter::DeadLetter;
use super::report::{ReplayError, Report};
use crate::amqp::{BrowseError, Browser, Delivery, Found, Names, Receipt, SettleError, Topology};
use crate::config::AmqpConfig;

/// How long one piece of work may take.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Until somebody else has finished.
    pub turn: Duration,
    /// From then on. Well below RabbitMQ's `consumer_timeout`, after which it takes back what we
    /// hold. What has not been looked at by then is left, and said to be.
    pub work: Duration,
    /// Ends it early, between two letters.
    pub stop: CancellationToken,
}

/// The letters that match a filter, one after the other.
pub(super) struct Round<'a> {
    browser: Browser,
    names: &'a Names,
    filter: &'a Filter,
    bounds: &'a Bounds,
    now: Timestamp,
    since: Instant,
    missing: BTreeSet<String>,
    complete: bool,
}

impl<'a> Round<'a> {
    /// Begins at the head of the queue, when it is our turn.
    pub(super) async fn begin(
        (amqp, connection): (&AmqpConfig, &str),
        names: &'a Names,
        filter: &'a Filter,
        bounds: &'a Bounds,
    ) -> Result<Self, BrowseError> {
        let (queue, lock) = (names.dead(), names.dead_lock());
        let queue = (queue, lock.as_str());
        let topology = Topology::base(names);
        Ok(Self {
            browser: Browser::open(amqp, connection, &topology, queue, bounds.turn).await?,
            names,
            filter,
            bounds,
            now: Timestamp::now(),
            since: Instant::now(),
            missing: filter.ids.iter().cloned().collect(),
            complete: false,
        })
    }

    /// The next letter that matches.
    pub(super) async fn next(&mut self) -> Result<Option<(DeadLetter, Found)>, BrowseError> {
        loop {
            if self.bounds.stop.is_cancelled() || self.since.elapsed() >= self.bounds.work {
                return Ok(None);
            }
            let Some(found) = self.browser.next().await? else {
                self.complete = true;
                return Ok(None);
            };
            let Delivery {
                routing_key,
                properties,
                body,
                ..
            } = &found.delivery;
            let death = found.death.as_ref();
            let letter = DeadLetter::read(self.names, routing_key, properties, death, body);
            if self.filter.matches(&letter, self.now) {
                self.missing.remove(&letter.id);
                return Ok(Some((letter, found)));
            }
        }
    }

    /// Takes a letter out of the queue for good.
    pub(super) async fn take_out(
        &mut self,
        batch: u32,
        receipt: Receipt,
    ) -> Result<(), SettleError> {
        self.browser.take_out(batch, receipt).await
    }

    /// Puts back what is not settled, and says in the report how far it came.
    pub(super) async fn finish(self, report: &mut Report) {
        if let Err(error) = self.browser.finish().await {
            // The last acknowledgements may not have arrived.
            report.problem.get_or_insert(error.into());
        }
        report.missing = self.missing;
        report.complete = self.complete
            && report
                .problem
                .as_ref()
                .is_none_or(ReplayError::spares_the_others);
    }
}
