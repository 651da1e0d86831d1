//! Publishing: a message counts as sent when the broker has confirmed that it is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::{Connection, Event};
use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::batch::{Fate, Outgoing};
use super::channels::Channels;
use super::connect::{OWN_FRAME, Session, SessionError, fatal, in_time, is_soft, supervise};
use super::lanes::Lanes;
use super::names::Names;
use super::outbox::Outbox;
use super::topology::Topology;
use crate::config::AmqpConfig;
use crate::telemetry::Component;
use crate::wire::{MAX_KEY_BYTES, header};

/// How many bytes of bodies may wait to be written; more wait for their turn with their senders.
/// A larger body goes when there is no other.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// How many claims may be asked for at once, each on a channel of its own.
const MAX_CLAIMS: usize = 16;

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
    Up(Arc<Channels>),
}

/// Publishes with confirms over one supervised connection. Clones share it.
#[derive(Debug, Clone)]
pub struct Publisher {
    link: watch::Receiver<Link>,
    outbox: mpsc::Sender<Outgoing>,
    lanes: Arc<Lanes>,
    /// A permit for each byte that may wait.
    room: Arc<Semaphore>,
    claims: Arc<Semaphore>,
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
        let (outbox, messages) = Outbox::new(config.publish_timeout.0);
        let lanes = Arc::new(Lanes::new(&Names::new(config)));
        let stop = CancellationToken::new();
        let session = PublishSession {
            topology,
            link: sender,
            outbox: messages,
            generation: 0,
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
            outbox,
            lanes,
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            claims: Arc::new(Semaphore::new(MAX_CLAIMS)),
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
        match &*self.link.borrow() {
            Link::Up(channels) => channels.generation(),
            Link::Down | Link::Blocked => 0,
        }
    }

    /// Waits for a connection, for up to `amqp.publish_timeout`; whether there is one. For a command
    /// that would rather say where it looked than that no confirm came.
    pub async fn connects(&self) -> bool {
        let mut link = self.link.clone();
        let there = link.wait_for(|link| !matches!(link, Link::Down));
        timeout(self.timeout, there)
            .await
            .is_ok_and(|there| there.is_ok())
    }

    /// Declares more, besides the topology that every connection begins with.
    ///
    /// # Errors
    /// [`PublishError::Timeout`] with the last thing that went wrong.
    pub async fn declare(&self, topology: &Topology) -> Result<(), PublishError> {
        let mut last = None;
        let declaring = async {
            loop {
                let channels = self.sound_channels().await?;
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
        self.check(route, message)?;
        self.pass_on(route, message).await
    }

    /// The same with what came from the broker itself, and goes on in another queue: it may be
    /// larger than `amqp.max_message_size`.
    ///
    /// # Errors
    /// [`PublishError`].
    pub async fn pass_on(&self, route: Route<'_>, message: &Message) -> Result<(), PublishError> {
        check_key(route)?;
        let deadline = Instant::now() + self.timeout;
        let mut last = None;
        let confirmed = self.until_confirmed(route, message, deadline, &mut last);
        match timeout_at(deadline, confirmed).await {
            Ok(result) => result,
            Err(_) => Err(PublishError::Timeout {
                after: self.timeout,
                last,
            }),
        }
    }

    /// Waits for the turn of a message that is best made at the last moment and needs no answer,
    /// for up to `amqp.publish_timeout`.
    ///
    /// # Errors
    /// [`PublishError::Timeout`] or [`PublishError::Closed`].
    pub async fn turn(&self) -> Result<Turn<'_>, PublishError> {
        match timeout(self.timeout, self.outbox.reserve()).await {
            Ok(Ok(place)) => Ok(Turn {
                publisher: self,
                place,
            }),
            Ok(Err(_)) => Err(PublishError::Closed),
            Err(_) => Err(PublishError::Timeout {
                after: self.timeout,
                last: None,
            }),
        }
    }

    fn check(&self, route: Route<'_>, message: &Message) -> Result<(), PublishError> {
        if message.body.len() > self.max_bytes {
            return Err(PublishError::TooLarge {
                bytes: message.body.len(),
                limit: self.max_bytes,
            });
        }
        check_key(route)
    }

    /// How long an answer of the broker is waited for.
    pub(super) const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Waits for the right to a channel of one's own.
    pub(super) async fn place_for_channel(&self) -> Result<SemaphorePermit<'_>, PublishError> {
        let place = self.claims.acquire().await;
        place.map_err(|_| PublishError::Closed)
    }

    /// The channels of a connection that takes messages, once there is one.
    pub(super) async fn sound_channels(&self) -> Result<Arc<Channels>, PublishError> {
        let mut link = self.link.clone();
        loop {
            let up = link.wait_for(|link| matches!(link, Link::Up(_))).await;
            if let Link::Up(channels) = &*up.map_err(|_| PublishError::Closed)? {
                return Ok(Arc::clone(channels));
            }
        }
    }

    async fn until_confirmed(
        &self,
        route: Route<'_>,
        message: &Message,
        deadline: Instant,
        last: &mut Option<lapin::Error>,
    ) -> Result<(), PublishError> {
        let (exchange, key) = (|| route.exchange.to_owned(), || route.key.to_owned());
        let bytes = message.body.len().min(MAX_WAITING_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let lane = self.lanes.lane(route);
        let mut alone = false;
        let mut message = Cow::Borrowed(message);
        loop {
            let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
            let room = room.map_err(|_| PublishError::Closed)?;
            // Before there is a copy: many may wait here.
            let place = self.outbox.reserve().await;
            let place = place.map_err(|_| PublishError::Closed)?;
            let (outgoing, told) = Outgoing::new(route, lane, &message, alone, deadline, room);
            place.send(outgoing);
            match told.await {
                Ok(Ok(Fate::Kept)) => return Ok(()),
                Ok(Ok(Fate::Returned(reason))) => {
                    return Err(PublishError::Unroutable {
                        exchange: exchange(),
                        key: key(),
                        reason,
                    });
                }
                Ok(Ok(Fate::Refused)) => {
                    return Err(PublishError::Refused {
                        exchange: exchange(),
                        key: key(),
                    });
                }
                Ok(Err(error)) => {
                    // It or a neighbour was what the broker closed the channel for.
                    alone = is_soft(&error);
                    *last = Some(error);
                }
                // The connection went, and the confirm with it.
                Err(_) => {}
            }
            // The broker may have the first one all the same.
            let headers = &mut message.to_mut().headers;
            headers.insert(header::ONCE.to_owned(), "1".to_owned());
            sleep(CHANNEL_RETRY).await;
        }
    }
}

const fn check_key(route: Route<'_>) -> Result<(), PublishError> {
    if route.key.len() > MAX_KEY_BYTES {
        return Err(PublishError::KeyTooLong(route.key.len()));
    }
    Ok(())
}

/// The turn of one message, from [`Publisher::turn`].
#[derive(Debug)]
pub struct Turn<'a> {
    publisher: &'a Publisher,
    place: mpsc::Permit<'a, Outgoing>,
}

impl Turn<'_> {
    /// Sends a message once. What becomes of it is not told; a connection that breaks may take it
    /// along.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`] or [`PublishError::KeyTooLong`].
    pub fn send(self, route: Route<'_>, message: &Message) -> Result<(), PublishError> {
        let Self { publisher, place } = self;
        publisher.check(route, message)?;
        // Their number bounds them.
        let room = Arc::clone(&publisher.room).try_acquire_many_owned(0);
        let room = room.map_err(|_| PublishError::Closed)?;
        let deadline = Instant::now() + publisher.timeout;
        let lane = publisher.lanes.lane(route);
        let (outgoing, _) = Outgoing::new(route, lane, message, false, deadline, room);
        place.send(outgoing);
        Ok(())
    }
}

struct PublishSession {
    topology: Topology,
    link: watch::Sender<Link>,
    outbox: Outbox,
    /// How many connections there have been.
    generation: u64,
    limit: Duration,
}

impl PublishSession {
    async fn watch_over(
        &mut self,
        connection: &Arc<Connection>,
        health: &Component,
    ) -> Result<Infallible, SessionError> {
        let mut events = Box::pin(connection.events_listener());
        self.generation += 1;
        let channels = Arc::new(Channels::new(Arc::clone(connection), self.generation));
        let declaring = channels.declare(&self.topology);
        in_time(self.limit, "declare exchanges and queues", declaring).await?;
        self.link.send_replace(Link::Up(Arc::clone(&channels)));
        health.up();
        let mut liveness = interval(LIVENESS_CHECK);
        let mut may_write = true;
        loop {
            tokio::select! {
                event = events.next() => match fatal(event) {
                    // Of one channel: whoever uses it has the answer.
                    Err(SessionError::Broker(error)) if is_soft(&error) && channels.are_sound() => {}
                    event => match event? {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(reason, "RabbitMQ takes no messages for now");
                        health.down();
                        may_write = false;
                        self.link.send_replace(Link::Blocked);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!("RabbitMQ takes messages again");
                        health.up();
                        may_write = true;
                        self.link.send_replace(Link::Up(Arc::clone(&channels)));
                    }
                    _ => {}
                    },
                },
                _ = liveness.tick() => {}
                () = self.outbox.turn(&channels, may_write) => {}
            }
            if !channels.are_sound() {
                return Err(SessionError::ChannelBroken);
            }
        }
    }
}

impl Session for PublishSession {
    const FRAME_MAX: u32 = OWN_FRAME;

    async fn serve(&mut self, connection: &Arc<Connection>, health: &Component) -> SessionError {
        let Err(error) = self.watch_over(connection, health).await;
        self.link.send_replace(Link::Down);
        self.outbox.disconnected();
        error
    }
}
