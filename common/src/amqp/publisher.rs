//! Publishing: a message counts as sent when the broker has confirmed that it is kept.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Event, PublisherConfirm};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connect::{Session, SessionError, fatal, in_time, supervise};
use super::topology::Topology;
use crate::config::AmqpConfig;
use crate::telemetry::Component;
use crate::wire::MAX_KEY_BYTES;

/// How many messages may wait for a confirm at once; more wait for their turn.
const MAX_IN_FLIGHT: usize = 1024;

/// How many `mandatory` messages may be under way at once, each on a channel of its own: lapin gives
/// a returned message to whichever confirm of the channel comes next, so that two on one channel
/// could take each other's fate.
const MANDATORY_CHANNELS: usize = 16;

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

/// The channels of one connection, all with confirms.
#[derive(Debug)]
struct Channels {
    connection: Arc<Connection>,
    /// For messages that may go nowhere; any number at once.
    shared: Channel,
    /// For `mandatory` messages, one at a time each.
    idle: Mutex<Vec<Channel>>,
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

    /// Sends a message and waits until the broker has confirmed it, through lost connections, for
    /// up to `amqp.publish_timeout`. A message whose confirm was lost is sent again, so it may
    /// arrive twice.
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
            match channels.send(route, message).await {
                Ok(confirmation) => return verdict(route, confirmation),
                Err(error) => {
                    *last = Some(error);
                    tried = generation;
                    self.broken.notify_one();
                }
            }
        }
    }
}

async fn send(
    channel: &Channel,
    route: Route<'_>,
    message: &Message,
) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions {
        mandatory: route.mandatory,
        immediate: false,
    };
    let mut properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(if message.persistent { 2 } else { 1 });
    if let Some(id) = &message.id {
        properties = properties.with_message_id(id.as_str().into());
    }
    if let Some(kind) = &message.kind {
        properties = properties.with_type(kind.as_str().into());
    }
    if !message.headers.is_empty() {
        let mut headers = FieldTable::default();
        for (name, value) in &message.headers {
            headers.insert(
                name.as_str().into(),
                AMQPValue::LongString(value.as_str().into()),
            );
        }
        properties = properties.with_headers(headers);
    }
    let (exchange, key) = (route.exchange.into(), route.key.into());
    let confirm = channel
        .basic_publish(exchange, key, options, &message.body, properties)
        .await?;
    InFlight(Some(confirm)).confirmed().await
}

impl Channels {
    async fn send(&self, route: Route<'_>, message: &Message) -> lapin::Result<Confirmation> {
        if !route.mandatory {
            return send(&self.shared, route, message).await;
        }
        let idle = self.lock_idle().pop();
        let channel = match idle {
            Some(channel) => channel,
            None => open_channel(&self.connection).await?,
        };
        let confirmation = send(&channel, route, message).await?;
        // Only now: a channel whose publish failed or was given up is dropped, which closes it. The
        // late answer must not meet the next message.
        self.lock_idle().push(channel);
        Ok(confirmation)
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

/// A confirm that is awaited to its end even if nobody wants it any more: lapin keeps those that
/// are dropped for as long as the channel lives.
struct InFlight(Option<PublisherConfirm>);

impl InFlight {
    async fn confirmed(mut self) -> lapin::Result<Confirmation> {
        let result = match &mut self.0 {
            Some(confirm) => confirm.await,
            None => Ok(Confirmation::NotRequested),
        };
        self.0 = None;
        result
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let (Some(confirm), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            // Ends with the confirm, or with the channel.
            runtime.spawn(async move { drop(confirm.await) });
        }
    }
}

/// An unroutable mandatory message is confirmed all the same; only the returned message tells.
fn verdict(route: Route<'_>, confirmation: Confirmation) -> Result<(), PublishError> {
    let (exchange, key) = (route.exchange.to_owned(), route.key.to_owned());
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            Err(PublishError::Unroutable {
                exchange,
                key,
                reason: returned.reply_text.to_string(),
            })
        }
        Confirmation::Nack(None) | Confirmation::NotRequested => {
            Err(PublishError::Refused { exchange, key })
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
            let shared = open_channel(connection).await?;
            self.topology.declare(&shared).await?;
            Ok(Arc::new(Channels {
                connection: Arc::clone(connection),
                shared,
                idle: Mutex::default(),
            }))
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
        let channel = channels.shared.clone();
        self.generation += 1;
        let up = Link::Up {
            channels,
            generation: self.generation,
        };
        self.link.send_replace(up.clone());
        health.up();
        let mut liveness = interval(LIVENESS_CHECK);
        loop {
            tokio::select! {
                event = events.next() => match fatal(event)? {
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
                _ = liveness.tick() => {
                    if !connection.status().connected() {
                        return Err(SessionError::Closed);
                    }
                    if !channel.status().connected() {
                        return Err(SessionError::ChannelBroken);
                    }
                }
                () = self.broken.notified() => {
                    // A message that fails on a sound channel is no reason to drop it.
                    if !channel.status().connected() || !connection.status().connected() {
                        return Err(SessionError::ChannelBroken);
                    }
                }
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
