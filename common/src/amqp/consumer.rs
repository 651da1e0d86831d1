//! Consuming: several queues over one supervised connection.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::connect::{FOREIGN_FRAME, Session, SessionError, fatal, in_time, supervise};
use super::declare::bind;
use super::delivery::Delivery;
use super::lock::Lock;
use super::topology::Topology;
use crate::config::AmqpConfig;
use crate::telemetry::Component;

/// As in the publisher: looks at the connection in case no event reports its end.
const LIVENESS_CHECK: Duration = Duration::from_secs(1);

/// Which queue to consume.
#[derive(Debug, Clone)]
pub enum Source {
    /// A durable queue of the topology.
    Queue(String),
    /// A queue of our own that exists as long as the connection does. The name is fresh each time:
    /// the broker may still hold the last one when we are back.
    Own {
        /// The name without its unique end.
        stem: String,
        /// The exchange it listens to.
        exchange: String,
        /// The keys it listens to: a few patterns, never one per user or room.
        patterns: Vec<String>,
        /// Beyond this the broker drops the oldest messages: we are too slow to be of use.
        max_bytes: u32,
    },
    /// A stream of the topology; other readers have all of its messages too.
    Stream {
        /// Its name.
        name: String,
        /// Where to read on; a new connection goes on where the last one ended.
        position: Arc<StreamPosition>,
    },
}

/// The offset of the message that is read next.
#[derive(Debug)]
pub struct StreamPosition(Mutex<Option<u64>>);

impl StreamPosition {
    /// From this offset on, or what comes next if the stream has forgotten it.
    #[must_use]
    pub fn at(offset: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(offset))))
    }

    /// The last piece of the stream, whatever its size: to learn where its end is.
    #[must_use]
    pub fn last() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }

    fn spec(&self) -> AMQPValue {
        match *self.lock() {
            Some(offset) => AMQPValue::LongLongInt(i64::try_from(offset).unwrap_or(i64::MAX)),
            None => AMQPValue::LongString("last".into()),
        }
    }

    fn passed(&self, offset: u64) {
        *self.lock() = Some(offset + 1);
    }

    fn lock(&self) -> MutexGuard<'_, Option<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source {
    /// The queue's name, as far as it is known before it is declared.
    fn name(&self) -> &str {
        match self {
            Self::Queue(name) | Self::Stream { name, .. } => name,
            Self::Own { stem, .. } => stem,
        }
    }
}

/// One queue, how much of it we hold at once, and where its messages go.
#[derive(Debug)]
pub struct Subscription {
    /// Which queue.
    pub source: Source,
    /// How many messages may be with us unsettled (1 to 2,000 on quorum queues).
    pub prefetch: u16,
    /// Where they go. Its bound holds the broker back, too.
    pub deliveries: mpsc::Sender<Delivery>,
    /// Among the consumers of a queue, those of the highest priority get its messages as long as
    /// they have room.
    pub priority: i32,
}

impl Subscription {
    /// A subscription of the usual priority.
    #[must_use]
    pub fn new(source: Source, prefetch: u16, deliveries: mpsc::Sender<Delivery>) -> Self {
        Self {
            source,
            prefetch,
            deliveries,
            priority: 0,
        }
    }
}

/// Owns the connection that consumes.
#[derive(Debug)]
pub struct Consumer {
    stop_intake: CancellationToken,
    intake_stopped: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Starts to consume, and starts anew whenever the broker was away; returns at once. The
    /// subscriptions are made in their order, so that a later one can rely on an earlier.
    #[must_use]
    pub fn start(
        config: &AmqpConfig,
        name: &str,
        topology: Topology,
        subscriptions: Vec<Subscription>,
        health: Component,
    ) -> Self {
        Self::start_locked(config, name, topology, subscriptions, health, None)
    }

    /// The same, but consumes only while it has a lock.
    #[must_use]
    pub fn start_locked(
        config: &AmqpConfig,
        name: &str,
        topology: Topology,
        subscriptions: Vec<Subscription>,
        health: Component,
        lock: Option<Lock>,
    ) -> Self {
        let stop_intake = CancellationToken::new();
        let intake_stopped = CancellationToken::new();
        let stop = CancellationToken::new();
        let session = ConsumeSession {
            topology,
            subscriptions,
            lock,
            stop_intake: stop_intake.clone(),
            intake_stopped: intake_stopped.clone(),
            limit: config.connect_timeout.0,
        };
        let name = format!("{name} consumer");
        let supervised = supervise(session, config.clone(), name, health, stop.clone());
        Self {
            stop_intake,
            intake_stopped,
            stop,
            task: tokio::spawn(supervised),
        }
    }

    /// Takes no more messages. What is with us can still be settled.
    pub fn stop_intake(&self) {
        self.stop_intake.cancel();
    }

    /// After [`stop_intake`](Self::stop_intake): waits until the broker knows, and sends no more.
    /// Forever while the broker is away.
    pub async fn intake_stopped(&self) {
        self.intake_stopped.cancelled().await;
    }

    /// Closes the connection and waits for it; what is not settled goes back to its queue.
    pub async fn close(mut self) {
        self.stop_intake.cancel();
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            warn!(%error, "the consumer's task ended badly");
        }
    }
}

/// A consumer that nobody holds any more closes by itself.
impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct ConsumeSession {
    topology: Topology,
    subscriptions: Vec<Subscription>,
    lock: Option<Lock>,
    stop_intake: CancellationToken,
    intake_stopped: CancellationToken,
    limit: Duration,
}

impl ConsumeSession {
    async fn subscribe_all(
        &self,
        connection: &Connection,
        pumps: &mut JoinSet<SessionError>,
        alive: &Arc<()>,
    ) -> Result<Vec<(Channel, Uuid)>, SessionError> {
        let mut consumers = Vec::new();
        if let Some(lock) = &self.lock
            && let Some(share) = lock.take(connection, self.limit).await?
        {
            consumers.push((share.channel.clone(), share.tag));
            pumps.spawn(share.hold());
        }
        let declaring = async {
            let channel = connection.create_channel().await?;
            self.topology.declare(&channel).await
        };
        in_time(self.limit, "declare exchanges and queues", declaring).await?;
        // From what nobody takes any more another consumer may have it.
        let taken = |subscription: &&Subscription| !subscription.deliveries.is_closed();
        for subscription in self.subscriptions.iter().filter(taken) {
            let tag = Uuid::now_v7();
            let step = format!("consume {}", subscription.source.name());
            let subscribing = subscribe(connection, subscription, tag);
            let (channel, queue, consumer) = in_time(self.limit, step, subscribing).await?;
            let position = match &subscription.source {
                Source::Stream { position, .. } => Some(Arc::clone(position)),
                Source::Queue(_) | Source::Own { .. } => None,
            };
            pumps.spawn(pump(
                queue,
                (channel.clone(), tag),
                consumer,
                subscription.deliveries.clone(),
                position,
                Arc::downgrade(alive),
            ));
            consumers.push((channel, tag));
        }
        Ok(consumers)
    }
}

impl Session for ConsumeSession {
    const FRAME_MAX: u32 = FOREIGN_FRAME;

    async fn serve(&mut self, connection: &Arc<Connection>, health: &Component) -> SessionError {
        let Err(error) = self.consume(connection, health).await;
        error
    }
}

impl ConsumeSession {
    async fn consume(
        &mut self,
        connection: &Connection,
        health: &Component,
    ) -> Result<Infallible, SessionError> {
        let mut events = Box::pin(connection.events_listener());
        // Goes with the session, by which a receipt knows that its connection is gone.
        let alive = Arc::new(());
        // Dropped with the session, which aborts every pump.
        let mut pumps = JoinSet::new();
        // After a loss during the drain there is nothing more to take, and nothing to settle: the
        // receipts went with the old connection.
        let mut taking = !self.stop_intake.is_cancelled();
        let mut consumers = Vec::new();
        if taking {
            consumers = self.subscribe_all(connection, &mut pumps, &alive).await?;
            health.up();
        } else {
            self.intake_stopped.cancel();
        }
        let mut liveness = interval(LIVENESS_CHECK);
        loop {
            tokio::select! {
                // Stopping comes first: the end of a pump is then no error.
                biased;
                () = self.stop_intake.cancelled(), if taking => {
                    taking = false;
                    health.down();
                    cancel_all(&consumers).await;
                    pumps.abort_all();
                    self.intake_stopped.cancel();
                }
                event = events.next() => {
                    fatal(event)?;
                }
                Some(ended) = pumps.join_next(), if taking => {
                    return Err(ended.unwrap_or(SessionError::Closed));
                }
                _ = liveness.tick() => {
                    if !connection.status().connected() {
                        return Err(SessionError::Closed);
                    }
                }
            }
        }
    }
}

async fn subscribe(
    connection: &Connection,
    subscription: &Subscription,
    tag: Uuid,
) -> lapin::Result<(Channel, String, lapin::Consumer)> {
    let channel = connection.create_channel().await?;
    // Per consumer, not global: quorum queues have no global prefetch.
    channel
        .basic_qos(subscription.prefetch, BasicQosOptions::default())
        .await?;
    let queue = match &subscription.source {
        Source::Queue(name) | Source::Stream { name, .. } => name.clone(),
        Source::Own {
            stem,
            exchange,
            patterns,
            max_bytes,
        } => {
            let name = format!("{stem}{}", Uuid::now_v7());
            let options = QueueDeclareOptions {
                exclusive: true,
                auto_delete: true,
                ..QueueDeclareOptions::default()
            };
            let mut arguments = FieldTable::default();
            arguments.insert(
                "x-overflow".into(),
                AMQPValue::LongString("drop-head".into()),
            );
            let limit = AMQPValue::LongLongInt(i64::from(*max_bytes));
            arguments.insert("x-max-length-bytes".into(), limit);
            channel
                .queue_declare(name.as_str().into(), options, arguments)
                .await?;
            for pattern in patterns {
                bind(&channel, &name, exchange, pattern).await?;
            }
            name
        }
    };
    let (tag, options) = (tag.to_string(), BasicConsumeOptions::default());
    let mut arguments = FieldTable::default();
    if let Source::Stream { position, .. } = &subscription.source {
        arguments.insert("x-stream-offset".into(), position.spec());
    }
    if subscription.priority != 0 {
        let priority = AMQPValue::LongInt(subscription.priority);
        arguments.insert("x-priority".into(), priority);
    }
    let consumer = channel
        .basic_consume(queue.as_str().into(), tag.into(), options, arguments)
        .await?;
    debug!(queue, prefetch = subscription.prefetch, "consuming");
    Ok((channel, queue, consumer))
}

async fn pump(
    queue: String,
    (channel, tag): (Channel, Uuid),
    mut consumer: lapin::Consumer,
    deliveries: mpsc::Sender<Delivery>,
    position: Option<Arc<StreamPosition>>,
    alive: Weak<()>,
) -> SessionError {
    let in_hand = loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            () = deliveries.closed() => break None,
        };
        match delivery {
            Some(Ok(delivery)) => {
                let delivery = Delivery::new(delivery, Weak::clone(&alive));
                let offset = delivery.offset();
                if let Err(SendError(delivery)) = deliveries.send(delivery).await {
                    break Some(delivery);
                }
                // Only now: what could not be handed on before the connection broke is read again.
                if let (Some(position), Some(offset)) = (&position, offset) {
                    position.passed(offset);
                }
            }
            Some(Err(error)) => return error.into(),
            None => return SessionError::ConsumerEnded(queue),
        }
    };
    // The service takes no more from there, and another may. That is no fault of the connection, which
    // is still needed to settle what is in hand.
    cancel(&channel, tag).await;
    // What came meanwhile would have to wait until this connection ends. From a stream nothing is
    // taken away.
    if position.is_none() {
        if let Some(delivery) = in_hand {
            give_back(delivery).await;
        }
        while let Some(Ok(delivery)) = consumer.next().await {
            give_back(Delivery::new(delivery, Weak::clone(&alive))).await;
        }
    }
    std::future::pending().await
}

async fn give_back(delivery: Delivery) {
    if let Err(error) = delivery.receipt.requeue().await {
        debug!(%error, "a message goes back with its connection");
    }
}

/// The last first: a queue of our own goes with its consumer, and later ones rely on it.
async fn cancel_all(consumers: &[(Channel, Uuid)]) {
    for (channel, tag) in consumers.iter().rev() {
        cancel(channel, *tag).await;
    }
}

async fn cancel(channel: &Channel, tag: Uuid) {
    let cancel = channel.basic_cancel(tag.to_string().into(), BasicCancelOptions::default());
    match timeout(Duration::from_secs(5), cancel).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the consumer could not be cancelled"),
        Err(_) => debug!("the broker did not confirm the end of the consumer in time"),
    }
}
