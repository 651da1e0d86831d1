//! One of several: a queue that stands for what one alone may have, or any number may share.
//!
//! RabbitMQ gives an exclusive queue to one connection, and a shared one to all but who wants it
//! alone. Both go with those who have them, so that nobody has to clean up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connect::{SessionError, in_time, soft_error};

/// So long one that starts waits for one that ends: the broker sees a lost connection of another
/// machine only by its heartbeat.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shared queue goes with its last consumer. One that is left without (its process died before it
/// consumed, or the broker died and nobody came back) goes by itself, in milliseconds, before one that
/// starts has lost its patience. It cannot change while others of another version share the queue.
const SHARED_EXPIRES: i64 = 5000;

/// A wish of a [`Consumer`](super::Consumer), before it consumes.
#[derive(Debug, Clone)]
pub struct Lock {
    queue: String,
    wish: Wish,
    state: Arc<Mutex<State>>,
    refused: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Alone,
    Shared,
}

#[derive(Debug, Default)]
struct State {
    /// When it was wished for first.
    since: Option<Instant>,
    was_granted: bool,
}

impl Lock {
    /// To be the only one.
    #[must_use]
    pub fn alone(queue: String) -> Self {
        Self::new(queue, Wish::Alone)
    }

    /// To be one of any number, none of which is the only one.
    #[must_use]
    pub fn shared(queue: String) -> Self {
        Self::new(queue, Wish::Shared)
    }

    fn new(queue: String, wish: Wish) -> Self {
        Self {
            queue,
            wish,
            state: Arc::default(),
            refused: CancellationToken::new(),
        }
    }

    /// Waits until it is clear, at the start, that somebody else is in the way. Later on the consumer
    /// waits its turn, because it may be its own last connection that has it.
    pub async fn refused(&self) {
        self.refused.cancelled().await;
    }

    /// Takes it for as long as the connection lasts; a share of it for as long as that is consumed.
    pub(super) async fn take(
        &self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<Option<Share>, SessionError> {
        let step = format!("take the lock {}", self.queue);
        let taking = async {
            let channel = connection.create_channel().await?;
            let taken = match self.wish {
                Wish::Alone => self.declare_exclusive(&channel).await.map(|()| None),
                Wish::Shared => self.share(channel).await.map(Some),
            };
            match taken {
                Err(error) if soft_error(&error) == Some(&AMQPSoftError::RESOURCELOCKED) => {
                    Ok(None)
                }
                taken => taken.map(Some),
            }
        };
        let taken = in_time(limit, step, taking).await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *state.since.get_or_insert_with(Instant::now);
        state.was_granted |= taken.is_some();
        if !state.was_granted && since.elapsed() >= PATIENCE {
            self.refused.cancel();
        }
        taken.ok_or_else(|| SessionError::Locked(self.queue.clone()))
    }

    async fn declare_exclusive(&self, channel: &Channel) -> lapin::Result<()> {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self.queue.as_str().into();
        let declaring = channel.queue_declare(queue, options, FieldTable::default());
        declaring.await.map(drop)
    }

    async fn share(&self, channel: Channel) -> lapin::Result<Share> {
        let options = QueueDeclareOptions {
            durable: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        // Said, because a virtual host may have another default, which knows no end with the last.
        let kind = AMQPValue::LongString("classic".into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(SHARED_EXPIRES));
        let queue = self.queue.as_str();
        channel
            .queue_declare(queue.into(), options, arguments)
            .await?;
        let tag = Uuid::now_v7();
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = channel
            .basic_consume(
                queue.into(),
                tag.to_string().into(),
                options,
                FieldTable::default(),
            )
            .await?;
        Ok(Share {
            queue: queue.to_owned(),
            channel,
            tag,
            consumer,
        })
    }
}

/// A share of a lock: a consumer of its queue, where nothing ever comes.
pub(super) struct Share {
    queue: String,
    pub(super) channel: Channel,
    pub(super) tag: Uuid,
    consumer: lapin::Consumer,
}

impl Share {
    /// Holds it until the broker takes it away.
    pub(super) async fn hold(mut self) -> SessionError {
        while let Some(delivery) = self.consumer.next().await {
            if let Err(error) = delivery {
                return error.into();
            }
        }
        SessionError::ConsumerEnded(self.queue)
    }
}
