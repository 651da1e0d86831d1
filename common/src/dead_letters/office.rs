//! Going through the queue: list, open, replay, drop.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tracing::{debug, warn};

use super::filter::Filter;
use super::letter::{DeadLetter, Origin};
use super::replay;
use super::report::{Listing, Opened, ReplayError, Report};
use super::round::{Bounds, Round};
use crate::amqp::{BrowseError, Delivery, Found, Names, PublishError, Publisher, Route};
use crate::config::AmqpConfig;
use crate::enqueue::{Envelope, publish_status};
use crate::wire::{Job, JobProperties};

/// How long a replay waits until its owner is told.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the dead letters are looked after.
#[derive(Debug, Clone)]
pub struct Office {
    amqp: AmqpConfig,
    names: Names,
    connection: String,
}

impl Office {
    /// One that names its connections `connection`, for those who watch the broker.
    #[must_use]
    pub fn new(amqp: &AmqpConfig, connection: &str) -> Self {
        Self {
            amqp: amqp.clone(),
            names: Names::new(amqp),
            connection: connection.to_owned(),
        }
    }

    /// Hands the letters that match to `each`, oldest first, up to `limit`. Only one is held in
    /// memory at a time.
    ///
    /// # Errors
    /// [`BrowseError`]; what was handed over until then is right.
    pub async fn list(
        &self,
        filter: &Filter,
        limit: usize,
        bounds: &Bounds,
        mut each: impl FnMut(DeadLetter),
    ) -> Result<Listing, BrowseError> {
        let mut round = self.begin(filter, bounds).await?;
        let mut listed = 0;
        let ended = loop {
            match round.next().await {
                Ok(Some(_)) if listed == limit => break Ok(true),
                Ok(Some((letter, _))) => each(letter),
                Ok(None) => break Ok(false),
                Err(error) => break Err(error),
            }
            listed += 1;
        };
        let mut report = Report::default();
        round.finish(&mut report).await;
        let more = ended?;
        Ok(Listing {
            more,
            missing: report.missing,
            complete: report.complete || more,
        })
    }

    /// The letters with this id, whole; usually one, and `limit` at most.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn open(
        &self,
        id: &str,
        limit: usize,
        bounds: &Bounds,
    ) -> Result<Vec<Opened>, BrowseError> {
        let filter = Filter {
            ids: vec![id.to_owned()],
            ..Filter::default()
        };
        let mut round = self.begin(&filter, bounds).await?;
        let mut opened = Vec::new();
        let ended = loop {
            match round.next().await {
                Ok(Some((letter, found))) => opened.push(Opened::new(letter, found)),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            if opened.len() == limit {
                break Ok(());
            }
        };
        round.finish(&mut Report::default()).await;
        ended.map(|()| opened)
    }

    /// Puts the letters that match back into their queues, or into `queue`, with fresh attempts.
    /// Those that were unreadable are only put into a `queue` that is named. Each is in its queue
    /// before it is taken out of the dead letters; an interruption in between leaves one in both,
    /// and its worker knows (see [`crate::wire::header::ONCE`]).
    ///
    /// # Errors
    /// [`BrowseError`] before anything is done; later ones are in the report.
    pub async fn replay(
        &self,
        publisher: &Publisher,
        filter: &Filter,
        queue: Option<&str>,
        bounds: &Bounds,
    ) -> Result<Report, BrowseError> {
        let mut report = Report::default();
        let mut round = self.begin(filter, bounds).await?;
        loop {
            let (letter, found) = match round.next().await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(error) => {
                    report.problem = Some(error.into());
                    break;
                }
            };
            if letter.is_unreadable() && queue.is_none() {
                report.unreadable += 1;
                continue;
            }
            match self
                .bring_back(publisher, &mut round, &letter, found, queue)
                .await
            {
                Ok(()) => report.done += 1,
                Err(error) => {
                    report.failed += 1;
                    let goes_on = error.spares_the_others();
                    warn!(%error, "a dead letter was not replayed");
                    if !goes_on || report.problem.is_none() {
                        report.problem = Some(error);
                    }
                    if !goes_on {
                        break;
                    }
                }
            }
        }
        round.finish(&mut report).await;
        Ok(report)
    }

    /// Takes the letters that match away for good.
    ///
    /// # Errors
    /// [`BrowseError`] before anything is done; later ones are in the report.
    pub async fn discard(&self, filter: &Filter, bounds: &Bounds) -> Result<Report, BrowseError> {
        let mut report = Report::default();
        let mut round = self.begin(filter, bounds).await?;
        loop {
            match round.next().await {
                Ok(Some((letter, found))) => {
                    let receipt = found.delivery.receipt;
                    if let Err(source) = round.take_out(found.batch, receipt).await {
                        report.failed += 1;
                        let id = letter.id;
                        report.problem = Some(ReplayError::Settle { id, source });
                        break;
                    }
                    report.done += 1;
                }
                Ok(None) => break,
                Err(error) => {
                    report.problem = Some(error.into());
                    break;
                }
            }
        }
        round.finish(&mut report).await;
        Ok(report)
    }

    async fn bring_back(
        &self,
        publisher: &Publisher,
        round: &mut Round<'_>,
        letter: &DeadLetter,
        found: Found,
        queue: Option<&str>,
    ) -> Result<(), ReplayError> {
        let id = || letter.id.clone();
        let named = queue.map(|queue| Origin::Jobs(queue.to_owned()));
        let Some(to) = named.or_else(|| letter.origin.clone()) else {
            return Err(ReplayError::NoOrigin { id: id() });
        };
        let Delivery {
            body,
            properties,
            receipt,
            ..
        } = found.delivery;
        let stand_ins = JobProperties {
            message_id: properties.message_id.clone(),
            kind: properties.kind.clone(),
            priority: properties.priority,
        };
        let job = match &to {
            Origin::Jobs(_) => Job::parse(&body, &stand_ins).ok(),
            Origin::Queue(_) => None,
        };
        let now = Timestamp::now();
        let message = replay::message(letter, job.as_ref(), &to, properties, body, now);
        let jobs = self.names.jobs();
        let route = Route {
            // The default exchange has every queue under its name.
            exchange: if matches!(to, Origin::Jobs(_)) {
                &jobs
            } else {
                ""
            },
            key: to.name(),
            mandatory: true,
        };
        match publisher.publish(route, &message).await {
            Ok(()) => {}
            Err(PublishError::Unroutable { .. }) => {
                let queue = to.name().to_owned();
                return Err(ReplayError::NoSuchQueue { id: id(), queue });
            }
            Err(source) => return Err(ReplayError::Publish { id: id(), source }),
        }
        // Before the owner is told, which may take a while.
        let settled = round.take_out(found.batch, receipt).await;
        if let Some(job) = job {
            self.announce(publisher, letter, &job, now).await;
        }
        settled.map_err(|source| ReplayError::Settle { id: id(), source })
    }

    async fn begin<'a>(
        &'a self,
        filter: &'a Filter,
        bounds: &'a Bounds,
    ) -> Result<Round<'a>, BrowseError> {
        let at = (&self.amqp, self.connection.as_str());
        Round::begin(at, &self.names, filter, bounds).await
    }

    async fn announce(
        &self,
        publisher: &Publisher,
        letter: &DeadLetter,
        job: &Job,
        now: Timestamp,
    ) {
        let status = replay::queued_again(letter, job, now);
        let envelope = Envelope {
            room: job.room_id.as_deref(),
            ..Envelope::default()
        };
        let telling = publish_status(publisher, &self.names, &status, envelope);
        match timeout(ANNOUNCE_TIMEOUT, telling).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, task_id = job.id, "could not announce the replay"),
            Err(_) => debug!(task_id = job.id, "could not announce the replay in time"),
        }
    }
}
