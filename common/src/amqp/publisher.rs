//! Publishing: a message counts as sent when the broker has confirmed that it is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{Connection, Event};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::channels::{Channels, MANDATORY_CHANNELS, verdict};
use super::connect::{Session, SessionError, fatal, in_time, is_soft, supervise};
use super::topology::Topology;
use crate::config::AmqpConfig;
use crate::telemetry::Component;
use crate::wire::{MAX_KEY_BYTES, header};

/// How many messages may wait for a confirm at once; more wait for their turn.
const MAX_IN_FLIGHT: usize = 1024;

/// Between two tries on a connection that is sound.
const CHANNEL_RETRY: Duration = Duration::from_millis(200);

/// lapin reports a lost connection by an event; this looks for itself, in case it does not.
const LIVENESS_CHECK: Duration = Duration::from_secs(1);

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// The exchange.
    pub exchange: &'a str,
    /// The routing key.
    pub key: &'a str,
    /// Whether it is an error when no queue takes the message.
    pub mandatory: bool,
}

/// A message to publish; the body is JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The body.
    pub body: Vec<u8>,
    /// `message-id`.
    pub id: Option<String>,
    /// `type`.
    pub kind: Option<String>,
    /// `priority`.
    pub priority: Option<u8>,
    /// `reply-to`.
    pub reply_to: Option<String>,
    /// `correlation-id`.
    pub correlation_id: Option<String>,
    /// `timestamp`, in seconds since 1970.
    pub timestamp: Option<u64>,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// Whether it must survive a restart of the broker.
    pub persistent: bool,
}

/// Why a message was not sent.
#[derive(Debug, Error)]
pub enum PublishError {
    /// No queue is bound for this key.
    #[error(
        "no queue takes messages for `{key}` at exchange `{exchange}` (the broker says: {reason})"
    )]
    Unroutable {
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: String,
        /// The broker's words.
        reason: String,
    },
    /// The broker took it and could not keep it, or the queue is full.
    #[error("the broker refused the message for `{key}` at exchange `{exchange}`")]
    Refused {
        /// The exchange.
        exchange: String,
        /// The routing key.
        key: String,
    },
    /// Too large for the broker.
    #[error("the message has {bytes} bytes, amqp.max_message_size allows {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The routing key is too long for AMQP.
    #[error("the routing key has {0} bytes, AMQP allows {MAX_KEY_BYTES}")]
    KeyTooLong(usize),
    /// No confirm in time: the broker is away, blocks us or is overloaded. The message may or may
    /// not have arrived.
    #[error("no confirm within {after:?}{}", .last.as_ref().map(|error| format!(" (last: {error})")).unwrap_or_default())]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// What went wrong meanwhile.
        last: Option<lapin::Error>,
    },
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

impl PublishError {
    /// Whether the same message would fail again, however often it is tried.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::KeyTooLong(_))
    }
}

/// The state of the connection, as publishers see it.
#[derive(Debug, Clone)]
enum Link {
    Down,
    /// The broker is out of memory or disk. lapin would queue what we write without a bound.
    Blocked,
    Up {
        channels: Arc<Channels>,
        /// Counts connections, so that a failed publish can wait for the next one.
        generation: u64,
    },
}

/// Publishes with confirms over one supervised connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Publisher {
    link: watch::Receiver<Link>,
    in_flight: Arc<Semaphore>,
    mandatory: Arc<Semaphore>,
    broken: Arc<Notify>,
    timeout: Duration,
    max_bytes: usize,
}

/// Owns the publisher's connection.
#[derive(Debug)]
pub struct PublisherTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl PublisherTask {
    /// Closes the connection and waits for it.
    pub async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            warn!(%error, "the publisher's task ended badly");
        }
    }
}

impl Publisher {
    /// Starts to connect, and keeps connecting; returns at once.
    #[must_use]
    pub fn start(
        config: &AmqpConfig,
        name: &str,
        topology: Topology,
        health: Component,
    ) -> (Self, PublisherTask) {
        let (sender, link) = watch::channel(Link::Down);
        let broken = Arc::new(Notify::new());
        let stop = CancellationToken::new();
        let session = PublishSession {
            topology,
            link: sender,
            generation: 0,
            broken: Arc::clone(&broken),
            limit: config.connect_timeout.0,
        };
        let supervised = supervise(
            session,
            config.clone(),
            format!("{name} publisher"),
            health,
            stop.clone(),
        );
        let publisher = Self {
            link,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            mandatory: Arc::new(Semaphore::new(MANDATORY_CHANNELS)),
            broken,
            timeout: config.publish_timeout.0,
            max_bytes: config.max_message_size.bytes(),
        };
        let task = tokio::spawn(supervised);
        (publisher, PublisherTask { stop, task })
    }

    /// Which connection this is, counted from 1; 0 while there is none. What was declared over an
    /// earlier one may be gone: the broker may have come back without its data.
    #[must_use]
    pub fn generation(&self) -> u64 {
        match *self.link.borrow() {
            Link::Up { generation, .. } => generation,
            Link::Down | Link::Blocked => 0,
        }
    }

    /// Declares more, besides the topology that every connection begins with.
    ///
    /// # Errors
    /// [`PublishError::Timeout`] with the last thing that went wrong.
    pub async fn declare(&self, topology: &Topology) -> Result<(), PublishError> {
        let mut last = None;
        let declaring = async {
            let mut link = self.link.clone();
            loop {
                let up = link.wait_for(|link| matches!(link, Link::Up { .. })).await;
                let channels = match &*up.map_err(|_| PublishError::Closed)? {
                    Link::Up { channels, .. } => Arc::clone(channels),
                    Link::Down | Link::Blocked => continue,
                };
                match channels.declare(topology).await {
                    Ok(()) => return Ok(()),
                    Err(error) => last = Some(error),
                }
                sleep(CHANNEL_RETRY).await;
            }
        };
        let declared = tokio::time::timeout(self.timeout, declaring).await;
        declared.unwrap_or(Err(PublishError::Timeout {
            after: self.timeout,
            last,
        }))
    }

    /// Sends a message and waits until the broker has confirmed it, through lost connections, for
    /// up to `amqp.publish_timeout`. A message whose confirm was lost is sent again, so it may
    /// arrive twice; the second says so in the header [`ONCE`](header::ONCE).
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn publish(&self, route: Route<'_>, message: &Message) -> Result<(), PublishError> {
        if message.body.len() > self.max_bytes {
            return Err(PublishError::TooLarge {
                bytes: message.body.len(),
                limit: self.max_bytes,
            });
        }
        if route.key.len() > MAX_KEY_BYTES {
            return Err(PublishError::KeyTooLong(route.key.len()));
        }
        let deadline = tokio::time::Instant::now() + self.timeout;
        let mut last = None;
        let confirmed = self.until_confirmed(route, message, &mut last);
        match timeout_at(deadline, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::Timeout {
                after: self.timeout,
                last,
            }),
        }
    }

    /// How long an answer of the broker is waited for.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for the right to one of the few channels besides the shared one.
    pub(super) async fn place_for_channel(&self) -> Result<SemaphorePermit<'_>, PublishError> {
        let place = self.mandatory.acquire().await;
        place.map_err(|_| PublishError::Closed)
    }

    /// The channels of a connection that takes messages, once there is one.
    pub(super) async fn sound_channels(&self) -> Result<Arc<Channels>, PublishError> {
        let mut link = self.link.clone();
        loop {
            let up = link.wait_for(|link| matches!(link, Link::Up { .. })).await;
            if let Link::Up { channels, .. } = &*up.map_err(|_| PublishError::Closed)? {
                return Ok(Arc::clone(channels));
            }
        }
    }

    async fn until_confirmed(
        &self,
        route: Route<'_>,
        message: &Message,
        last: &mut Option<lapin::Error>,
    ) -> Result<(), PublishError> {
        let closed = |_| PublishError::Closed;
        let places = if route.mandatory {
            &self.mandatory
        } else {
            &self.in_flight
        };
        let _place = places.acquire().await.map_err(|_| PublishError::Closed)?;
        let mut link = self.link.clone();
        let mut tried = 0;
        let mut message = Cow::Borrowed(message);
        loop {
            let (channels, generation) = {
                let up = link
                    .wait_for(
                        |link| matches!(link, Link::Up { generation, .. } if *generation > tried),
                    )
                    .await
                    .map_err(closed)?;
                match &*up {
                    Link::Up {
                        channels,
                        generation,
                    } => (Arc::clone(channels), *generation),
                    Link::Down | Link::Blocked => continue,
                }
            };
            match channels.send(route, &message).await {
                Ok(confirmation) => return verdict(route, confirmation),
                Err(error) => {
                    *last = Some(error);
                    let headers = &mut message.to_mut().headers;
                    headers.insert(header::ONCE.to_owned(), "1".to_owned());
                    if channels.are_sound() {
                        // Only the channel of this message broke; the next try gets another.
                        sleep(CHANNEL_RETRY).await;
                    } else {
                        tried = generation;
                        self.broken.notify_one();
                    }
                }
            }
        }
    }
}

struct PublishSession {
    topology: Topology,
    link: watch::Sender<Link>,
    generation: u64,
    broken: Arc<Notify>,
    limit: Duration,
}

impl PublishSession {
    async fn open(&self, connection: &Arc<Connection>) -> Result<Arc<Channels>, SessionError> {
        let opening = async {
            let channels = Channels::open(connection).await?;
            self.topology.declare(channels.shared()).await?;
            Ok(Arc::new(channels))
        };
        in_time(self.limit, "declare exchanges and queues", opening).await
    }

    async fn watch_over(
        &mut self,
        connection: &Arc<Connection>,
        health: &Component,
    ) -> Result<Infallible, SessionError> {
        let mut events = Box::pin(connection.events_listener());
        let channels = self.open(connection).await?;
        self.generation += 1;
        let up = Link::Up {
            channels: Arc::clone(&channels),
            generation: self.generation,
        };
        self.link.send_replace(up.clone());
        health.up();
        let mut liveness = interval(LIVENESS_CHECK);
        loop {
            tokio::select! {
                event = events.next() => match fatal(event) {
                    // Of another channel than the shared one: whoever uses it has the answer.
                    Err(SessionError::Broker(error)) if is_soft(&error) && channels.are_sound() => {}
                    event => match event? {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(reason, "RabbitMQ takes no messages for now");
                        health.down();
                        self.link.send_replace(Link::Blocked);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!("RabbitMQ takes messages again");
                        health.up();
                        self.link.send_replace(up.clone());
                    }
                    _ => {}
                    },
                },
                _ = liveness.tick() => {}
                () = self.broken.notified() => {}
            }
            if !channels.are_sound() {
                return Err(SessionError::ChannelBroken);
            }
        }
    }
}

impl Session for PublishSession {
    async fn serve(&mut self, connection: &Arc<Connection>, health: &Component) -> SessionError {
        let Err(error) = self.watch_over(connection, health).await;
        self.link.send_replace(Link::Down);
        error
    }
}
