//! From the alert queue to the receivers.
//!
//! A batch goes into the engine, its state is kept, and only then the batch is acknowledged. Before a
//! post the state says that it is under way, after it that it is in. So whoever goes on after a crash
//! repeats at most the posts that were under way, and marks them.
//!
//! The queue has one active consumer, and it is the one that looks after what is open: see [`duty`].

mod attempt;
mod duty;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bellhop_common::amqp::Delivery;
use bellhop_common::backoff::jitter;
use bellhop_common::telemetry::{Component, with_causes};
use jiff::{Timestamp, TimestampRound, Unit};
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::attempt::{log, note, post};
use super::dead::{bury_refused, bury_unreadable};
use super::engine::{Engine, Fate, Message, Notice, Refused};
use super::outage::Outage;
use super::receipts::Receipts;
use super::receivers::Alerting;
use super::state::{Keeper, Saved};
use super::{PREFETCH, PostError, TURN, retry_pause};
use crate::gateway::Gateway;
use crate::metric;

/// How long nothing may happen before silences and the connection are looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// How long posts that are under way may take when the notifier stops.
const LAST_POSTS: Duration = Duration::from_secs(3);

/// When a post of which the dead letters did not take a copy is tried again.
const BURY_AGAIN: Duration = Duration::from_secs(30);

/// What became of a post.
type Done = (Notice, Result<(), PostError>);

/// Tells what there is to tell until `stop`.
pub(crate) async fn dispatch(
    gateway: Arc<Gateway>,
    alerting: Alerting,
    mut deliveries: mpsc::Receiver<Delivery>,
    hears: Component,
    stop: CancellationToken,
) {
    let mut dispatcher = Dispatcher::new(gateway, alerting, hears, stop.clone());
    let mut batch = Vec::new();
    loop {
        let wake = dispatcher.wakes_in();
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = dispatcher.posts.join_next() => match done {
                Ok(done) => dispatcher.finish(done).await,
                Err(error) => dispatcher.lose(&error).await,
            },
            count = deliveries.recv_many(&mut batch, usize::from(PREFETCH)) => {
                if count == 0 {
                    break;
                }
                dispatcher.take(&mut batch).await;
            }
            () = sleep(wake) => {}
        }
        dispatcher.step().await;
    }
    dispatcher.end().await;
    // After the state is saved, by which another goes on. What was not looked at is for it.
    deliveries.close();
    while let Some(delivery) = deliveries.recv().await {
        if let Err(error) = delivery.receipt.requeue().await {
            debug!(%error, "an alert goes back with its connection");
        }
    }
}

struct Dispatcher {
    gateway: Arc<Gateway>,
    alerting: Arc<Alerting>,
    keeper: Keeper,
    /// While this instance looks after the alerts.
    engine: Option<Engine>,
    receipts: Receipts,
    /// One at a time for each receiver.
    posts: JoinSet<Done>,
    hears: Component,
    outage: Outage,
    stop: CancellationToken,
    renewed: Instant,
    /// The version of another's state, and since when it stands still.
    watched: Option<(u64, Instant)>,
    looked: Option<Instant>,
}

/// Whole milliseconds are enough, and half as long in the state.
fn now(gateway: &Gateway) -> Timestamp {
    let now = gateway.clock.forward();
    let round = TimestampRound::new().smallest(Unit::Millisecond);
    now.round(round).unwrap_or(now)
}

impl Dispatcher {
    fn new(
        gateway: Arc<Gateway>,
        alerting: Alerting,
        hears: Component,
        stop: CancellationToken,
    ) -> Self {
        let streams = gateway.streams.as_ref();
        let keeper = Keeper::new(streams.map(|streams| Arc::clone(&streams.store)));
        Self {
            gateway,
            alerting: Arc::new(alerting),
            keeper,
            engine: None,
            receipts: Receipts::default(),
            posts: JoinSet::new(),
            hears,
            outage: Outage::default(),
            stop,
            renewed: Instant::now(),
            watched: None,
            looked: None,
        }
    }

    fn wakes_in(&self) -> Duration {
        let now = now(&self.gateway);
        let next = self
            .engine
            .as_ref()
            .and_then(|engine| engine.next_wake(now));
        let until = |next: Timestamp| Duration::try_from(next.duration_since(now));
        // A little later rather than a little too early.
        let wait = next.map(|next| until(next).unwrap_or_default() + Duration::from_millis(1));
        wait.map_or(LOOK, |wait| wait.min(LOOK))
    }

    async fn take(&mut self, batch: &mut Vec<Delivery>) {
        if !self.activate().await {
            return;
        }
        for delivery in batch.drain(..) {
            self.take_one(delivery).await;
        }
    }

    async fn take_one(&mut self, delivery: Delivery) {
        let Some(engine) = &mut self.engine else {
            return;
        };
        if delivery.routing_key == TURN {
            // That it came was the answer.
            return self.let_go_later(delivery, Vec::new());
        }
        let is_durable = self.keeper.is_durable();
        let mut keys = Vec::new();
        let outcome = if engine.may_want(&delivery.routing_key) {
            match Message::read(&delivery.routing_key, &delivery.body) {
                Ok(message) => {
                    keys = engine.keys_of(&message);
                    let fate = engine.take(message, now(&self.gateway));
                    if !is_durable && delivery.redelivered && fate == Fate::Taken {
                        // It may have been posted by whoever had it before.
                        for key in &keys {
                            engine.doubt(key);
                        }
                    }
                    match fate {
                        Fate::Taken => "taken",
                        Fate::Known => "known",
                        Fate::Unrouted => "unrouted",
                        Fate::Silenced => "silenced",
                    }
                }
                Err(reason) => {
                    if let Err(error) = bury_unreadable(&self.gateway, &delivery, &reason).await {
                        warn!(%error, "the dead letter is not with the broker; the alert returns");
                        return Receipts::give_back_one(delivery).await;
                    }
                    "unreadable"
                }
            }
        } else {
            "unrouted"
        };
        counter!(metric::ALERTS, "outcome" => outcome).increment(1);
        self.let_go_later(delivery, keys);
    }

    fn let_go_later(&mut self, delivery: Delivery, keys: Vec<String>) {
        if self.keeper.is_durable() {
            self.receipts.after_save(delivery);
        } else {
            self.receipts.after_posts(delivery, keys);
        }
    }

    /// Does what is due, keeps the state, and lets go what was kept.
    async fn step(&mut self) {
        self.look_at_broker().await;
        if self.engine.is_none() {
            return self.watch().await;
        }
        self.look_at_silences().await;
        let Some(engine) = &mut self.engine else {
            return;
        };
        let now = now(&self.gateway);
        let suppressed = engine.tidy(now);
        for (outcome, count) in [
            ("silenced", suppressed.silenced),
            ("inhibited", suppressed.inhibited),
        ] {
            counter!(metric::ALERTS, "outcome" => outcome).increment(count);
        }
        let mut notices = Vec::new();
        while let Some(notice) = engine.next_post(now) {
            notices.push(notice);
        }
        gauge!(metric::ALERT_GROUPS).set(f64::from(engine.open_groups()));
        if !self.save().await {
            return;
        }
        self.receipts.saved().await;
        if let Some(engine) = &self.engine {
            self.receipts.settle(engine).await;
        }
        for notice in notices {
            let alerting = Arc::clone(&self.alerting);
            self.posts.spawn(post(alerting, notice));
        }
    }

    async fn finish(&mut self, (notice, result): Done) {
        note(&self.alerting, &notice, &result);
        log(
            &self.gateway,
            self.alerting.channel(&notice.receiver),
            &notice,
            &result,
        )
        .await;
        let Some(engine) = &mut self.engine else {
            return;
        };
        let (key, now) = (notice.key.as_str(), now(&self.gateway));
        match result {
            Ok(()) => drop(engine.posted(key, now)),
            Err(PostError::Refused { status, reason }) => {
                let reason = format!("{} answered {status}: {reason}", notice.receiver);
                let refused = Refused::of(&notice);
                match bury_refused(&self.gateway, &refused, &reason).await {
                    Ok(()) => drop(engine.refused(key, now)),
                    Err(error) => {
                        warn!(%error, "the dead letter is not with the broker; the post stays");
                        engine.failed(key, now, BURY_AGAIN, false);
                    }
                }
            }
            Err(error) => {
                let failures = engine.failures(&notice.receiver).saturating_add(1);
                let pause = retry_pause(&error, failures, jitter());
                warn!(
                    error = with_causes(&error),
                    receiver = notice.receiver,
                    ?pause,
                    "an alert waits"
                );
                engine.failed(key, now, pause, error.may_have_arrived());
            }
        }
    }

    /// Leaves the state to whoever comes next.
    async fn end(mut self) {
        let last = async {
            while let Some(done) = self.posts.join_next().await {
                match done {
                    Ok(done) => self.finish(done).await,
                    Err(error) => self.lose(&error).await,
                }
            }
        };
        drop(timeout(LAST_POSTS, last).await);
        let Some(engine) = &mut self.engine else {
            return;
        };
        engine.release();
        match timeout(LAST_POSTS, self.keeper.save(engine.state(), false)).await {
            Ok(Ok(Saved::Yes)) => {
                self.receipts.saved().await;
                self.receipts.settle(engine).await;
            }
            Ok(Ok(Saved::Taken)) => {}
            _ => warn!("the last state of the alerts is not kept; a post may be made again"),
        }
    }
}
