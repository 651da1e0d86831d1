//! Holding the token.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bellhop_common::amqp::{
    Delivery, Message, Names, PublishError, Publisher, Receipt, Route, Source, Subscription,
};
use bellhop_common::enqueue::{EnqueueError, put_in};
use bellhop_common::wire::header;
use jiff::Timestamp;
use metrics::counter;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::config::CronConfig;
use super::plan::{Entry, MAX_CATCH_UP, Token};
use crate::metric;
use crate::registry::Registry;

/// A token that was received longer ago may be somebody else's by now, and is exchanged first.
const FRESH: Duration = Duration::from_secs(2);

/// How long a token is held: well below RabbitMQ's `consumer_timeout`, 30 minutes by default.
const RENEW: Duration = Duration::from_mins(5);

/// When a token comes unexpectedly, others may follow: of the one who died, of those who start.
const OTHERS_FOLLOW: Duration = Duration::from_millis(500);

/// A worker without the token gives an empty one so often, in case there is none any more.
const ANNOUNCE: Duration = Duration::from_mins(10);

/// The clock is looked at so often, in case it was set.
const LOOK: Duration = Duration::from_secs(30);

/// Between two tries when the broker takes nothing.
const RETRY: Duration = Duration::from_secs(1);

/// How many tokens may be with us: one, and one of each worker that starts.
const PREFETCH: u16 = 100;

/// Starts to fire the configured entries; the subscription is to be made on `bellhop.cron`, which
/// [`Topology::with_cron`](bellhop_common::amqp::Topology::with_cron) declares. `None` without
/// entries.
pub(crate) fn start(
    config: &BTreeMap<String, CronConfig>,
    registry: &Registry,
    names: &Names,
    publisher: &Publisher,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) -> Option<Subscription> {
    if config.is_empty() {
        return None;
    }
    for (name, cron) in config {
        if registry.get(&cron.kind).is_none() {
            warn!(
                cron = name,
                kind = cron.kind,
                queue = cron.queue,
                "this worker has no handler for the periodic job; another one must serve its queue"
            );
        }
    }
    let (sender, deliveries) = mpsc::channel(16);
    let entries = config.iter().filter_map(|(name, cron)| cron.entry(name));
    let keeper = Keeper {
        entries: entries.collect(),
        config: config.clone(),
        names: names.clone(),
        publisher: publisher.clone(),
        token: Token::default(),
        held: Vec::new(),
        received: Instant::now(),
        others_until: None,
        expected: None,
        announce_at: Instant::now(),
        again_at: Instant::now(),
    };
    tracker.spawn(keeper.run(deliveries, stop.clone()));
    let source = Source::Queue(names.cron());
    Some(Subscription::new(source, PREFETCH, sender))
}

struct Keeper {
    entries: Vec<Entry>,
    config: BTreeMap<String, CronConfig>,
    names: Names,
    publisher: Publisher,
    token: Token,
    /// The messages that the token was read from; empty while it is not with us.
    held: Vec<Receipt>,
    /// When the last of them came.
    received: Instant,
    others_until: Option<Instant>,
    /// The token that we published last.
    expected: Option<String>,
    /// When an empty token is given next, if there is none with us.
    announce_at: Instant,
    /// Something failed: no try before.
    again_at: Instant,
}

impl Keeper {
    async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>, stop: CancellationToken) {
        loop {
            let pause = self.pause(Timestamp::now());
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                delivery = deliveries.recv() => match delivery {
                    Some(delivery) => self.take(delivery).await,
                    None => return,
                },
                () = sleep(pause) => tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.act(Timestamp::now()) => {}
                },
            }
        }
        hand_back(self.held, &mut deliveries).await;
    }

    async fn take(&mut self, delivery: Delivery) {
        let token: Token = match serde_json::from_slice(&delivery.body) {
            Ok(token) => token,
            Err(error) => {
                warn!(%error, "an unreadable message in the queue of periodic jobs goes to the dead letters");
                if let Err(error) = delivery.receipt.reject().await {
                    debug!(%error, "it will come again");
                }
                return;
            }
        };
        let ours = self.expected.is_some() && self.expected == delivery.properties.message_id;
        if self.held.is_empty() {
            self.token = Token::default();
            if !ours {
                info!("this worker fires the periodic jobs now");
                self.others_until = Some(Instant::now() + OTHERS_FOLLOW);
            }
        }
        self.token.merge(token);
        self.held.push(delivery.receipt);
        self.received = Instant::now();
    }

    /// How long there is nothing to do.
    fn pause(&self, now: Timestamp) -> Duration {
        let from_now = |then: Instant| then.saturating_duration_since(Instant::now());
        if self.held.is_empty() {
            return from_now(self.announce_at);
        }
        let blocked =
            from_now(self.again_at).max(self.others_until.map_or(Duration::ZERO, from_now));
        let renewal = if self.held.len() > 1 || self.others_until.is_some() {
            Duration::ZERO
        } else {
            RENEW.saturating_sub(self.received.elapsed())
        };
        let due = self.token.wake(&self.entries).map_or(LOOK, |wake| {
            Duration::try_from(wake.duration_since(now)).unwrap_or(Duration::ZERO)
        });
        due.min(renewal).min(LOOK).max(blocked)
    }

    async fn act(&mut self, now: Timestamp) {
        self.others_until = None;
        if self.held.is_empty() {
            self.announce_at = Instant::now() + ANNOUNCE;
            if let Err(error) = self.publish(&Token::default()).await {
                warn!(%error, "cannot announce this worker for periodic jobs");
                self.announce_at = Instant::now() + RETRY;
            }
            return;
        }
        let changed = self.token.prepare(&self.entries, now);
        let due = self
            .token
            .wake(&self.entries)
            .is_some_and(|wake| wake <= now);
        let stale = self.received.elapsed() > FRESH;
        if due && !stale {
            self.fire(now).await;
        }
        if due || changed || self.held.len() > 1 || self.received.elapsed() >= RENEW {
            self.exchange().await;
        }
    }

    async fn fire(&mut self, now: Timestamp) {
        for entry in self.entries.clone() {
            let due = self.token.due(&entry, now);
            if due.passed_over {
                warn!(
                    cron = entry.name,
                    catch_up = ?entry.catch_up,
                    made_up = due.times.len(),
                    at_most = MAX_CATCH_UP,
                    "times passed while no worker fired, and not all are made up for"
                );
            }
            match self.fire_each(&entry, due.times).await {
                // Also what was passed over is dealt with.
                Ok(true) => self.token.reach(&entry, now),
                Ok(false) => return,
                Err(error) => {
                    warn!(%error, cron = entry.name, "the periodic job cannot be put in, trying again");
                    self.again_at = Instant::now() + RETRY;
                }
            }
        }
    }

    /// Whether all were fired before the token got old; what is left is done with the next.
    async fn fire_each(
        &mut self,
        entry: &Entry,
        times: Vec<Timestamp>,
    ) -> Result<bool, EnqueueError> {
        let Some(config) = self.config.get(&entry.name).cloned() else {
            return Ok(true);
        };
        for at in times {
            if self.received.elapsed() > FRESH {
                return Ok(false);
            }
            self.put_in(entry, &config, at).await?;
            self.token.reach(entry, at);
        }
        Ok(true)
    }

    /// Puts a job in, unless it cannot be, however often it is tried.
    async fn put_in(
        &self,
        entry: &Entry,
        config: &CronConfig,
        at: Timestamp,
    ) -> Result<(), EnqueueError> {
        let job = config.job(&entry.name, at);
        // It may be put in twice: by the one who died before it could say so, and by the next.
        let headers = BTreeMap::from([
            (header::ONCE.to_owned(), "true".to_owned()),
            (header::ORIGIN.to_owned(), at.to_string()),
        ]);
        let (names, queue) = (&self.names, config.queue.as_str());
        let put = put_in(
            &self.publisher,
            names,
            queue,
            &job,
            headers,
            Timestamp::now(),
        )
        .await;
        let outcome = match &put {
            Ok(()) => {
                info!(cron = entry.name, %at, task_id = job.id, "periodic job put in");
                "fired"
            }
            Err(EnqueueError::Publish(error)) if !error.is_permanent() => return put,
            Err(error) => {
                error!(%error, cron = entry.name, %at, "the periodic job cannot be put in");
                "failed"
            }
        };
        counter!(metric::CRON, "cron" => entry.name.clone(), "outcome" => outcome).increment(1);
        Ok(())
    }

    /// Publishes the token and gives those up that it was read from, in this order: a crash between
    /// the two leaves both, which are merged.
    async fn exchange(&mut self) {
        match self.publish(&self.token).await {
            Ok(id) => {
                self.expected = Some(id);
                // If it goes to somebody else, we have no more to do than the others.
                self.announce_at = Instant::now() + ANNOUNCE;
                for receipt in std::mem::take(&mut self.held) {
                    if let Err(error) = receipt.ack().await {
                        debug!(%error, "the token went back before it was exchanged");
                    }
                }
            }
            Err(error) => {
                warn!(%error, "the state of periodic jobs cannot be kept, trying again");
                self.again_at = Instant::now() + RETRY;
            }
        }
    }

    async fn publish(&self, token: &Token) -> Result<String, PublishError> {
        let id = Uuid::now_v7().to_string();
        let message = Message {
            // A map of texts and times is always JSON.
            body: serde_json::to_vec(token).unwrap_or_else(|_| b"{}".to_vec()),
            id: Some(id.clone()),
            persistent: true,
            ..Message::default()
        };
        let queue = self.names.cron();
        let route = Route {
            exchange: "",
            key: &queue,
            mandatory: true,
        };
        self.publisher.publish(route, &message).await?;
        Ok(id)
    }
}

/// Until our consumer is cancelled, what we give back comes again; the next worker must not wait
/// for our connection to close.
async fn hand_back(mut held: Vec<Receipt>, deliveries: &mut mpsc::Receiver<Delivery>) {
    const PAUSE: Duration = Duration::from_millis(50);
    const QUIET: Duration = Duration::from_millis(300);
    loop {
        for receipt in held.drain(..) {
            if let Err(error) = receipt.requeue().await {
                debug!(%error, "the token goes back with the connection");
            }
        }
        match timeout(QUIET, deliveries.recv()).await {
            Ok(Some(delivery)) => {
                sleep(PAUSE).await;
                held.push(delivery.receipt);
            }
            Ok(None) | Err(_) => return,
        }
    }
}
