//! A message's stay with this worker: may its job run now? → run → settle.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_common::amqp::Route;
use bellhop_common::backoff::jitter;
use bellhop_common::unique;
use bellhop_common::wire::TaskError;
use jiff::Timestamp;
use metrics::{counter, histogram};
use tracing::{info, warn};

use crate::ending::{Standing, end, look_up, release};
use crate::execution::{self, End};
use crate::feed::Feed;
use crate::in_hand::Held;
use crate::intake::Lane;
use crate::ledger::Known;
use crate::limits::{Leave, put_off};
use crate::message::{Again, JobMessage, later};
use crate::metric;
use crate::outcome::Outcome;
use crate::renewal::spend;
use crate::retry::Verdict;
use crate::service::Service;
use crate::settle::{OutOfTime, note_begun, note_claimed, persevere, place, tell};

/// A shorter wait is spent here, which is exact to the millisecond; a longer one in the delay
/// ladder, which is exact to the second.
const SHORT_WAIT: Duration = Duration::from_secs(1);

/// A message that came back so often gets a fresh one, alone, whether it ran or not: at 100 the
/// broker itself would drop it into the dead letters without a word to its owner.
const MOST_RETURNS: u32 = 10;

/// A message's stay with this worker.
pub(crate) struct Visit {
    pub(crate) lane: Arc<Lane>,
    pub(crate) held: Arc<Held>,
    /// There may be another message of this job.
    pub(crate) in_doubt: bool,
}

/// What to do with a message before its job runs.
enum Step {
    Run,
    End(Outcome),
    /// Somebody else has dealt with it.
    Release,
    /// Its dead letter is written, its end perhaps not told.
    Finish(Outcome),
    /// Another job was first with its unique key.
    Duplicate(TaskError),
    /// It has to wait for its time.
    Wait(Timestamp),
    /// It came back too often, and must run alone.
    Isolate,
}

impl Visit {
    /// From the first look to the acknowledgement.
    ///
    /// What a waiting job does not need is boxed: ten thousand of them wait at once.
    pub(crate) async fn work(&self, service: &Service) -> Result<(), OutOfTime> {
        let message = &self.held.message;
        let mut feed = Feed::new(service.policy(&message.job).max_attempts);
        if !Box::pin(self.prepare(service, &mut feed, message)).await? {
            return Ok(());
        }
        let _place = tokio::select! {
            biased;
            () = service.stop.cancelled() => return Err(OutOfTime),
            () = self.held.link.cancelled() => {
                let ending = self.cancelled(service, &mut feed, message);
                return Box::pin(ending).await;
            }
            place = service.places.take(self.lane.index) => place,
            // The broker waits for an acknowledgement all the while.
            () = tokio::time::sleep(service.config.jobs.ack_timeout.0 / 2) => {
                let again = self.same_again(message, Timestamp::now());
                let going = self.go_again(service, &mut feed, message, &again);
                return Box::pin(going).await;
            }
        };
        // With the place in hand: a permit or a turn of the kind must not be spent on waiting.
        let leave = self.leave(service, message).await?;
        if !Box::pin(self.may_begin(service, &mut feed, message)).await? {
            return Ok(());
        }
        let _leave = match leave {
            Leave::Granted(leave) => leave,
            Leave::After(wait) => {
                let putting_off = self.put_off(service, &mut feed, message, wait);
                return Box::pin(putting_off).await;
            }
        };
        if self.in_doubt {
            Box::pin(note_begun(service, message)).await?;
        }
        self.run(service, &mut feed).await
    }

    /// Whether the job is still this worker's to run, after it has waited.
    async fn may_begin(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
    ) -> Result<bool, OutOfTime> {
        if !service.in_hand.may_be_elsewhere(message) {
            return Ok(true);
        }
        if service.in_hand.let_go_if_lost(message) {
            let task_id = &message.job.id;
            info!(
                task_id,
                "its message went back to the queue while it waited"
            );
            return Ok(false);
        }
        // It was away and is back: somebody else may have run it.
        match look_up(service, message).await? {
            Known::Open { .. } => return Ok(true),
            Known::Settled => release(service, message).await,
            Known::Buried(error) => {
                let standing = Standing {
                    in_doubt: true,
                    buried: true,
                };
                end(service, feed, message, &Outcome::Fail(error), standing).await?;
            }
        }
        Ok(false)
    }

    /// It was cancelled before it began.
    async fn cancelled(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
    ) -> Result<(), OutOfTime> {
        let standing = Standing {
            in_doubt: self.in_doubt,
            buried: false,
        };
        end(service, feed, message, &Outcome::Cancelled, standing).await
    }

    /// Up to the wait for a place; false if the job does not run here and now, and is settled.
    async fn prepare(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
    ) -> Result<bool, OutOfTime> {
        let mut standing = Standing {
            in_doubt: self.in_doubt,
            buried: false,
        };
        let outcome = match self.first_step(service, message).await? {
            Step::Run => return Ok(true),
            Step::End(outcome) => outcome,
            Step::Finish(outcome) => {
                standing.buried = true;
                outcome
            }
            Step::Duplicate(error) => {
                feed.because(error);
                Outcome::Cancelled
            }
            Step::Release => {
                info!(task_id = message.job.id, "it was dealt with already");
                release(service, message).await;
                return Ok(false);
            }
            Step::Wait(due) => {
                Box::pin(self.wait_until(service, feed, message, due)).await?;
                return Ok(false);
            }
            Step::Isolate => {
                Box::pin(self.isolate(service, feed, message)).await?;
                return Ok(false);
            }
        };
        Box::pin(end(service, feed, message, &outcome, standing)).await?;
        Ok(false)
    }

    /// What the message itself, the ledger and the orders say.
    async fn first_step(&self, service: &Service, message: &JobMessage) -> Result<Step, OutOfTime> {
        let (mut losses, mut is_claimed) = (0, message.is_claimed());
        if self.in_doubt {
            match Box::pin(look_up(service, message)).await? {
                Known::Open { begun, claimed } => {
                    losses = message.losses(begun);
                    is_claimed |= claimed;
                }
                Known::Settled => return Ok(Step::Release),
                Known::Buried(error) => return Ok(Step::Finish(Outcome::Fail(error))),
            }
        }
        if service.orders.is_spent(message) {
            return Ok(Step::Release);
        }
        if service.orders.cancels(message) {
            return Ok(Step::End(Outcome::Cancelled));
        }
        if message.is_fresh()
            && !is_claimed
            && let Some(error) = Box::pin(self.duplicate(service, message)).await?
        {
            return Ok(Step::Duplicate(error));
        }
        let too_often = losses >= service.config.jobs.max_redeliveries;
        // Alone twice as often: who is there may be innocent and unlucky.
        let hopeless = losses >= service.config.jobs.max_redeliveries.saturating_mul(2);
        if hopeless && self.lane.is_quarantine {
            return Ok(Step::End(lost_too_often(losses)));
        }
        if !self.lane.is_quarantine && (too_often || message.returns() >= MOST_RETURNS) {
            return Ok(Step::Isolate);
        }
        let now = Timestamp::now();
        if service.is_over(message, now) {
            return Ok(Step::End(Outcome::fail(
                "expired",
                "its time (expires_at or total_timeout) was over before it could run",
            )));
        }
        if let Some(due) = message.due(now).filter(|due| *due > now) {
            let wait = Duration::try_from(due.duration_since(now)).unwrap_or_default();
            if wait >= SHORT_WAIT {
                return Ok(Step::Wait(due));
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.held.link.cancelled() => return Ok(Step::End(Outcome::Cancelled)),
                () = service.stop.cancelled() => return Err(OutOfTime),
            }
        }
        let (registry, kind) = (&service.registry, &message.job.kind);
        Ok(match registry.get(kind) {
            Some(_) => Step::Run,
            None => Step::End(registry.unknown(kind)),
        })
    }

    /// Who published the job himself has not asked for its key.
    async fn duplicate(
        &self,
        service: &Service,
        message: &JobMessage,
    ) -> Result<Option<TaskError>, OutOfTime> {
        loop {
            let (publisher, names) = (&service.publisher, &service.names);
            let asking = unique::duplicate(publisher, names, &message.job, false);
            let answer = tokio::select! {
                answer = asking => answer,
                () = service.stop.cancelled() => return Err(OutOfTime),
            };
            match answer {
                Ok(None) if message.job.unique_key.is_some() => {
                    note_claimed(service, message).await?;
                    return Ok(None);
                }
                Ok(duplicate) => return Ok(duplicate),
                Err(error) => {
                    warn!(%error, task_id = message.job.id, "its unique key is asked for again");
                }
            }
            tokio::time::sleep(SHORT_WAIT).await;
        }
    }

    async fn leave(&self, service: &Service, message: &JobMessage) -> Result<Leave, OutOfTime> {
        tokio::select! {
            biased;
            () = service.stop.cancelled() => Err(OutOfTime),
            leave = service.limits.leave(&message.job.kind) => Ok(leave),
        }
    }

    async fn run(&self, service: &Service, feed: &mut Feed) -> Result<(), OutOfTime> {
        let message = &self.held.message;
        let kind = service.label(&message.job.kind);
        let _running = service.board.begin(kind, &self.held);
        if let Some(since) = message.since().filter(|_| message.is_fresh()) {
            let waited = Timestamp::now().duration_since(since).unsigned_abs();
            histogram!(metric::WAIT_SECONDS, "kind" => kind.to_owned()).record(waited);
        }
        let began = Instant::now();
        let (ending, renewed) = execution::run(service, feed, &self.held).await;
        histogram!(metric::SECONDS, "kind" => kind.to_owned()).record(began.elapsed());
        let settled = match ending {
            End::Outcome(outcome) => {
                let policy = service.policy(&message.job);
                let verdict = policy.judge(*outcome, message.attempt(), jitter());
                Box::pin(self.settle(service, feed, message, verdict)).await
            }
            End::Abandoned => {
                service.board.count(kind, "abandoned");
                Box::pin(self.hand_back(service, message)).await
            }
        };
        if renewed && settled.is_ok() {
            Box::pin(spend(service, message)).await;
        }
        if settled.is_err() {
            warn!(
                task_id = message.job.id,
                "its end could not be told in time; the job will run again"
            );
        }
        settled
    }

    async fn settle(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
        verdict: Verdict,
    ) -> Result<(), OutOfTime> {
        let elsewhere = service.in_hand.may_be_elsewhere(message);
        let standing = Standing {
            in_doubt: self.in_doubt || elsewhere,
            buried: false,
        };
        let (pause, error) = match verdict {
            Verdict::End(outcome) => return end(service, feed, message, &outcome, standing).await,
            Verdict::Again { pause, error } => (pause, error),
        };
        let now = Timestamp::now();
        let due = later(now, pause);
        if service.is_over(message, due) {
            return end(service, feed, message, &Outcome::Fail(error), standing).await;
        }
        if standing.in_doubt && !matches!(look_up(service, message).await?, Known::Open { .. }) {
            service.monitor.forget(&message.job.id);
            release(service, message).await;
            return Ok(());
        }
        info!(
            task_id = message.job.id,
            kind = message.job.kind,
            attempt = message.attempt(),
            ?pause,
            error = error.message,
            "the attempt failed, trying again"
        );
        let kind = service.label(&message.job.kind);
        service.board.count(kind, "retrying");
        let again = Again {
            attempt: message.attempt().saturating_add(1),
            deferrals: 0,
            once: standing.in_doubt,
            ..self.same_again(message, due)
        };
        // Told first, because the next attempt may begin as soon as it is placed.
        let status = feed.retrying(message, &error, due, now);
        tell(service, message, &status).await;
        if let Err(error) = place(service, message, &again).await? {
            let outcome = Outcome::fail("too_large", error.to_string());
            return end(service, feed, message, &outcome, standing).await;
        }
        release(service, message).await;
        Ok(())
    }

    async fn put_off(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
        wait: Duration,
    ) -> Result<(), OutOfTime> {
        let wait = put_off(wait, message.deferrals(), jitter());
        let again = Again {
            deferrals: message.deferrals().saturating_add(1),
            ..self.same_again(message, later(Timestamp::now(), wait))
        };
        counter!(metric::DEFERRED, "kind" => message.job.kind.clone()).increment(1);
        self.go_again(service, feed, message, &again).await
    }

    async fn isolate(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
    ) -> Result<(), OutOfTime> {
        warn!(
            task_id = message.job.id,
            times = message.returns(),
            "it came back too often; it will run alone"
        );
        let again = Again {
            alone: true,
            ..self.same_again(message, Timestamp::now())
        };
        self.go_again(service, feed, message, &again).await
    }

    async fn wait_until(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
        due: Timestamp,
    ) -> Result<(), OutOfTime> {
        if message.is_fresh() {
            let status = feed.scheduled(message, due, Timestamp::now());
            tell(service, message, &status).await;
        }
        let again = self.same_again(message, due);
        self.go_again(service, feed, message, &again).await
    }

    /// Replaces the message by another, and lets it go.
    async fn go_again(
        &self,
        service: &Service,
        feed: &mut Feed,
        message: &JobMessage,
        again: &Again,
    ) -> Result<(), OutOfTime> {
        if let Err(error) = place(service, message, again).await? {
            let outcome = Outcome::fail("too_large", error.to_string());
            let standing = Standing {
                in_doubt: self.in_doubt,
                buried: false,
            };
            return end(service, feed, message, &outcome, standing).await;
        }
        release(service, message).await;
        Ok(())
    }

    /// The same attempt, at another time.
    fn same_again(&self, message: &JobMessage, due: Timestamp) -> Again {
        Again {
            due,
            attempt: message.attempt(),
            deferrals: message.deferrals(),
            alone: message.is_alone(),
            // What a dead worker had under way may arrive after we asked the ledger.
            once: self.in_doubt,
        }
    }

    /// Another worker runs it, without this attempt having counted. Through the ladder: a message
    /// that is merely returned looks as if its worker had died.
    ///
    /// Only what was confirmed is let go: a renewed message that could not be handed back is still
    /// needed.
    async fn hand_back(&self, service: &Service, message: &JobMessage) -> Result<(), OutOfTime> {
        let task_id = &message.job.id;
        warn!(task_id, "out of time, the job goes back to its queue");
        let again = self.same_again(message, Timestamp::now());
        let delayed = message.again(&again, Timestamp::now());
        let exchange = service.names.delay();
        let route = Route {
            exchange: &exchange,
            key: &delayed.key,
            mandatory: true,
        };
        let placed = persevere(service, "a job that goes back", || {
            service.publisher.publish(route, &delayed.message)
        });
        // If not, the broker notices when the connection closes.
        placed.await?.map_err(|_| OutOfTime)?;
        release(service, message).await;
        Ok(())
    }
}

fn lost_too_often(times: u32) -> Outcome {
    let message = format!(
        "its worker died {times} times while running it, at last apart from the jobs of its queue"
    );
    Outcome::fail("worker_lost", message)
}
