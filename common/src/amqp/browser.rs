//! Looking through a queue: everything in it once, in order, and only what is taken out goes.

use std::sync::Weak;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions, BasicQosOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use thiserror::Error;
use tokio::time::{sleep, timeout};

use super::connect::{ConnectError, FOREIGN_FRAME, close, connect};
use super::delivery::{Delivery, Receipt, SettleError};
use super::topology::Topology;
use crate::config::AmqpConfig;

/// Between two looks whether the other one has finished. The broker has no signal for it.
const LOCK_RETRY: Duration = Duration::from_millis(100);

/// AMQP's reply code for an exclusive queue of another connection.
const RESOURCE_LOCKED: u16 = 405;

/// How many messages the first batch holds; each is larger than the last, up to what a quorum
/// queue allows a consumer.
const FIRST_BATCH: u16 = 16;
const LAST_BATCH: u16 = 2000;

/// How many bytes may be on their way to us, as far as earlier messages tell.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// One look through one queue, over a connection of its own.
///
/// What is delivered stays with us until [`Browser::finish`] puts back what was not taken out.
/// Meanwhile nobody else sees it; so that two browsers do not each see a part, each holds an
/// exclusive queue as a lock, which ends with its connection.
///
/// A consumer gets no more than its prefetch while nothing is settled, so there is one after the
/// other. Asking for each message (`basic.get`) would keep a record of each in the queue, and take
/// minutes for 100,000 where this takes seconds.
#[derive(Debug)]
pub struct Browser {
    connection: Connection,
    channel: Channel,
    queue: String,
    batch: Option<Batch>,
    /// Of which batch the next will be.
    number: u32,
    /// How many there are still to see; known after the first.
    left: Option<u32>,
    /// How many were seen: their delivery tags are 1 up to this.
    seen: u64,
    /// Nothing was taken out.
    untouched: bool,
    largest: usize,
    limit: Duration,
}

/// One consumer. Dropped, it is cancelled, and keeps what it has.
#[derive(Debug)]
struct Batch {
    consumer: lapin::Consumer,
    size: u16,
    /// How many it has that are not settled. Nothing more comes when they are `size`.
    held: u16,
}

/// A message that was found.
#[derive(Debug)]
pub struct Found {
    /// The message.
    pub delivery: Delivery,
    /// Where the broker took it from, if it was the broker who dead-lettered it.
    pub death: Option<Death>,
    /// Of which batch it is.
    pub(crate) batch: u32,
}

/// The newest entry of the broker's `x-death`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The whole name of the queue.
    pub queue: String,
    /// `delivery_limit`, `rejected`, `expired` or `maxlen`.
    pub reason: String,
    /// When, by the broker's clock, in whole seconds.
    pub at: Option<Timestamp>,
}

/// Why a queue could not be looked through. What was not settled is in the queue.
#[derive(Debug, Error)]
pub enum BrowseError {
    /// There is no connection.
    #[error("cannot reach RabbitMQ at {url}")]
    Connect {
        /// Where, without the password.
        url: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// Somebody else is at it.
    #[error(
        "somebody else is looking through `{queue}`, for longer than {waited:?} now: try again \
         when they have finished"
    )]
    Busy {
        /// Which queue.
        queue: String,
        /// How long we waited.
        waited: Duration,
    },
    /// A step took too long.
    #[error("the broker did not answer within {after:?} to: {step}")]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// For what.
        step: &'static str,
    },
    /// The broker ended it, because the queue was deleted.
    #[error("the broker no longer delivers what is in the queue")]
    Ended,
    /// The broker or the network refused.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
}

impl Browser {
    /// Connects, declares `topology`, and waits up to `wait` for its turn at `queue`. `lock` names
    /// the exclusive queue that says whose turn it is.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn open(
        config: &AmqpConfig,
        name: &str,
        topology: &Topology,
        (queue, lock): (String, &str),
        wait: Duration,
    ) -> Result<Self, BrowseError> {
        let limit = config.connect_timeout.0;
        let connecting = connect(config, name, FOREIGN_FRAME).await;
        let connection = connecting.map_err(|source| BrowseError::Connect {
            url: config.url.to_string(),
            source,
        })?;
        let opening = async {
            let declaring = async {
                let channel = connection.create_channel().await?;
                topology.declare(&channel).await
            };
            in_time(limit, "declare exchanges and queues", declaring).await?;
            take_turn(&connection, &queue, lock, limit, wait).await
        };
        match opening.await {
            Ok(channel) => Ok(Self {
                connection,
                channel,
                queue,
                batch: None,
                number: 0,
                left: None,
                seen: 0,
                untouched: true,
                largest: 1,
                limit,
            }),
            Err(error) => {
                close(&connection).await;
                Err(error)
            }
        }
    }

    /// The next message, oldest first. `None` after the last of those that were there when the
    /// first was asked for; what comes in later is left to the next look.
    ///
    /// # Errors
    /// [`BrowseError`]; nothing more can be asked for.
    pub async fn next(&mut self) -> Result<Option<Found>, BrowseError> {
        let delivery = match self.left {
            Some(0) => return Ok(None),
            None => {
                let options = BasicGetOptions { no_ack: false };
                let getting = self.channel.basic_get(self.queue.as_str().into(), options);
                let Some(first) = in_time(self.limit, "get a message", getting).await? else {
                    self.left = Some(0);
                    return Ok(None);
                };
                // The count of `queue.declare` lags behind what the one before us put back.
                self.left = Some(first.message_count);
                first.delivery
            }
            Some(left) => {
                let delivery = self.delivered().await?;
                self.left = Some(left - 1);
                delivery
            }
        };
        self.seen += 1;
        self.largest = self.largest.max(delivery.data.len());
        Ok(Some(Found {
            death: death(delivery.properties.headers().as_ref()),
            delivery: Delivery::new(delivery, Weak::new()),
            batch: self.number,
        }))
    }

    async fn delivered(&mut self) -> Result<lapin::message::Delivery, BrowseError> {
        if self
            .batch
            .as_ref()
            .is_none_or(|batch| batch.held >= batch.size)
        {
            self.cancel().await?;
            self.batch = Some(self.begin_batch().await?);
        }
        let Some(batch) = &mut self.batch else {
            return Err(BrowseError::Ended);
        };
        let next = async { batch.consumer.next().await.transpose() };
        let delivery = in_time(self.limit, "deliver a message", next).await?;
        batch.held += 1;
        delivery.ok_or(BrowseError::Ended)
    }

    async fn begin_batch(&mut self) -> Result<Batch, BrowseError> {
        let before = self.batch_size();
        self.number += 1;
        let fits = u16::try_from(BATCH_BYTES / self.largest).unwrap_or(LAST_BATCH);
        let size = before.min(fits.max(FIRST_BATCH));
        // Put back together, batches go by the order of these.
        let tag = format!("{:08}", self.number);
        let consuming = async {
            let options = BasicQosOptions::default();
            self.channel.basic_qos(size, options).await?;
            let (queue, options) = (self.queue.as_str().into(), BasicConsumeOptions::default());
            let arguments = FieldTable::default();
            self.channel
                .basic_consume(queue, tag.into(), options, arguments)
                .await
        };
        let consumer = in_time(self.limit, "consume", consuming).await?;
        Ok(Batch {
            consumer,
            size,
            held: 0,
        })
    }

    fn batch_size(&self) -> u16 {
        let growth = 4_u16.saturating_pow(self.number);
        FIRST_BATCH.saturating_mul(growth).min(LAST_BATCH)
    }

    async fn cancel(&mut self) -> Result<(), BrowseError> {
        let Some(batch) = self.batch.take() else {
            return Ok(());
        };
        let (tag, options) = (batch.consumer.tag(), BasicCancelOptions::default());
        let cancelling = self.channel.basic_cancel(tag, options);
        in_time(self.limit, "cancel a consumer", cancelling).await
    }

    /// Takes a message out of the queue for good. When this returns, the broker knows.
    ///
    /// # Errors
    /// [`SettleError`]: it may be in the queue again.
    pub async fn take_out(&mut self, batch: u32, receipt: Receipt) -> Result<(), SettleError> {
        self.untouched = false;
        receipt.ack().await?;
        if let Some(current) = self.batch.as_mut().filter(|_| batch == self.number) {
            current.held -= 1;
        }
        // An acknowledgement has no answer; this has, and comes behind it.
        let fence = self
            .channel
            .basic_qos(FIRST_BATCH, BasicQosOptions::default());
        match timeout(self.limit, fence).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(SettleError::Timeout),
        }
    }

    /// Puts back what was not taken out, and closes the connection. The first thousand keep their
    /// order if nothing was taken out; for more, RabbitMQ 3 does not. Without this the messages go
    /// back all the same, but in any order.
    ///
    /// # Errors
    /// [`BrowseError`]: what was settled last may be in the queue again, too.
    pub async fn finish(mut self) -> Result<(), BrowseError> {
        // Or it would be given again what is put back.
        let cancelled = self.cancel().await;
        let putting_back = async {
            let all = BasicNackOptions {
                multiple: true,
                requeue: true,
            };
            // Of more than 32 messages of one consumer RabbitMQ 3 loses the order, and of more than
            // 32 answers under way, too.
            if self.untouched {
                for tag in (32..=self.seen).step_by(32).take(30) {
                    self.channel.basic_nack(tag, all).await?;
                }
            }
            self.channel.basic_nack(0, all).await?;
            // An answer comes when everything before the question is done.
            let options = BasicQosOptions::default();
            self.channel.basic_qos(FIRST_BATCH, options).await?;
            self.channel.close(200, "finished".into()).await
        };
        let ended = in_time(self.limit, "put messages back", putting_back).await;
        close(&self.connection).await;
        cancelled.and(ended)
    }
}

async fn take_turn(
    connection: &Connection,
    queue: &str,
    lock: &str,
    limit: Duration,
    wait: Duration,
) -> Result<Channel, BrowseError> {
    let since = Instant::now();
    loop {
        // A refusal closes the channel, so each try has its own.
        let trying = async {
            let channel = connection.create_channel().await?;
            let options = QueueDeclareOptions {
                exclusive: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(lock.into(), options, FieldTable::default())
                .await?;
            Ok(channel)
        };
        match in_time(limit, "declare the lock", trying).await {
            Err(BrowseError::Broker(error)) if is_locked(&error) => {}
            ended => return ended,
        }
        if since.elapsed() >= wait {
            return Err(BrowseError::Busy {
                queue: queue.to_owned(),
                waited: wait,
            });
        }
        sleep(LOCK_RETRY).await;
    }
}

fn is_locked(error: &lapin::Error) -> bool {
    matches!(error.kind(), lapin::ErrorKind::ProtocolError(error) if error.get_id() == RESOURCE_LOCKED)
}

async fn in_time<T>(
    after: Duration,
    step: &'static str,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, BrowseError> {
    match timeout(after, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(BrowseError::Timeout { after, step }),
    }
}

/// `x-death` is a list of tables, the newest first.
fn death(headers: Option<&FieldTable>) -> Option<Death> {
    let AMQPValue::FieldArray(deaths) = headers?.inner().get("x-death")? else {
        return None;
    };
    let AMQPValue::FieldTable(newest) = deaths.as_slice().first()? else {
        return None;
    };
    let text = |name: &str| match newest.inner().get(name) {
        Some(AMQPValue::LongString(text)) => {
            Some(String::from_utf8_lossy(text.as_bytes()).into_owned())
        }
        _ => None,
    };
    let at = match newest.inner().get("time") {
        Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok(),
        _ => None,
    };
    Some(Death {
        queue: text("queue")?,
        reason: text("reason")?,
        at: at.and_then(|seconds| Timestamp::from_second(seconds).ok()),
    })
}
