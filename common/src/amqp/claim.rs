//! Claims: of several that ask for one key, the first has it until its window is over.
//!
//! RabbitMQ keeps them, so that neither side needs a database. A claim is a classic queue of at
//! most one message, and the broker answers a second one with a nack. Everybody declares it,
//! publishes into it, and whoever is confirmed has the key until the message's TTL ends.
//!
//! Nobody reads that message: one that is with a reader does not count as being in the queue, and
//! the next publish would be confirmed, too. So the winner writes its name into a second queue,
//! and the others read it there. The queues are classic ones, because a quorum queue only
//! approximates its maximal length; both go a moment after the window, once nobody uses them.

use std::time::{Duration, Instant};

use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::AMQPSoftError;
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use thiserror::Error;
use tokio::time::{sleep, timeout, timeout_at};

use super::channels::Channels;
use super::connect::soft_error;
use super::publisher::{PublishError, Publisher};
use crate::backoff::{Backoff, jitter};

/// How long the queues outlive the window.
const MARGIN: Duration = Duration::from_secs(10);

/// Between two looks at a key that changes hands, or whose holder's name others read.
const LOOK: Backoff = Backoff {
    base: Duration::from_millis(20),
    cap: Duration::from_millis(200),
};

/// So often the name is missing before the claim itself is asked. Its holder died within the
/// milliseconds between the claim and the name, or lost its connection.
const MISSING_LOOKS: u32 = 10;

/// The holder's name goes this much before its claim, so that it is never taken for the next one's.
const NAME_GOES_FIRST: Duration = Duration::from_millis(50);

/// How long giving a claim back may take.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// A wish to be the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The queue that stands for the key, from [`Names::unique`](super::Names::unique).
    pub queue: &'a str,
    /// Who asks. The same one may ask again, and still has it.
    pub holder: &'a str,
    /// What the holder calls this wish, up to 255 bytes: told when it asks again.
    pub mark: &'a str,
    /// For how long, 1 ms to 8.5 years.
    pub window: Duration,
}

/// Who has the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The one who asked, from now on.
    Mine,
    /// The one who asked, and did so before: with what it called its wish then. Empty if it is not
    /// known.
    Still(String),
    /// This one, who asked first.
    By(String),
}

/// Why it is not known who has the key. The one who asked may have it.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// The broker is away, blocks us, or the key changes hands all the time.
    #[error("who has the unique key was not to be learnt within {after:?}{}", .last.as_ref().map(|error| format!(" (last: {error})")).unwrap_or_default())]
    Timeout {
        /// How long we tried.
        after: Duration,
        /// What went wrong meanwhile.
        last: Option<lapin::Error>,
    },
    /// The publisher was closed.
    #[error("the publisher is closed")]
    Closed,
}

impl Publisher {
    /// Asks for a key, for up to `amqp.publish_timeout`.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<Claimed, ClaimError> {
        let after = self.timeout();
        let deadline = tokio::time::Instant::now() + after;
        let mut last = None;
        match timeout_at(deadline, self.until_decided(claim, &mut last)).await {
            Ok(decided) => decided.map_err(|_| ClaimError::Closed),
            Err(_) => Err(ClaimError::Timeout { after, last }),
        }
    }

    /// Gives a claim back that turned out to be of no use. Only for whoever has it: it is not asked
    /// again. What cannot be given back ends with its window.
    pub async fn release(&self, queue: &str) {
        let releasing = async {
            let Ok(channels) = self.sound_channels().await else {
                return;
            };
            let deleting = async {
                let channel = channels.fresh().await?;
                delete(&channel, &name_queue(queue)).await?;
                delete(&channel, queue).await
            };
            if let Err(error) = deleting.await {
                tracing::warn!(%error, queue, "a unique key could not be given back");
            }
        };
        if timeout(RELEASE_TIMEOUT, releasing).await.is_err() {
            tracing::warn!(queue, "a unique key could not be given back in time");
        }
    }

    async fn until_decided(
        &self,
        claim: &Claim<'_>,
        last: &mut Option<lapin::Error>,
    ) -> Result<Claimed, PublishError> {
        let _place = self.place_for_channel().await?;
        let mut asking = Asking {
            claim,
            won: None,
            missing: 0,
        };
        let mut looks = 0;
        loop {
            let channels = self.sound_channels().await?;
            match asking.ask(&channels).await {
                Ok(Some(claimed)) => return Ok(claimed),
                Ok(None) => {}
                Err(error) => *last = Some(error),
            }
            sleep(LOOK.pause(looks, jitter())).await;
            looks += 1;
        }
    }
}

/// One who asks, over several attempts.
struct Asking<'a> {
    claim: &'a Claim<'a>,
    /// The claim is ours since, and the name is still to be written.
    won: Option<Instant>,
    missing: u32,
}

impl Asking<'_> {
    /// Asks once; `None` means to ask again.
    async fn ask(&mut self, channels: &Channels) -> lapin::Result<Option<Claimed>> {
        let queue = self.claim.queue;
        let mut channel = channels.fresh().await?;
        if self.won.is_none() {
            let declared = self.declare(&channel, queue).await?;
            if declared == Declared::WithOtherWindow {
                // The refusal took the channel with it.
                channel = channels.fresh().await?;
            }
            let since = Instant::now();
            match (self.publish(&channel, queue, since).await?, declared) {
                (Published::Vanished, _) => return Ok(None),
                (Published::Full, _) => return self.read_holder(&channel).await,
                (Published::Kept, Declared::WithOtherWindow) => {
                    // Left from an earlier window of another length, it would go too soon or stay.
                    // It is ours to delete: nobody else gets a claim in while ours is there.
                    delete(&channel, queue).await?;
                    return Ok(None);
                }
                (Published::Kept, Declared::AsAsked) => self.won = Some(since),
            }
        }
        if let Some(since) = self.won {
            self.write_name(channels, channel, since).await?;
        }
        Ok(Some(Claimed::Mine))
    }

    /// The lifetime counts from the last declaration, get or restart; the message's own TTL
    /// decides how long the claim holds.
    async fn declare(&self, channel: &Channel, queue: &str) -> lapin::Result<Declared> {
        let mut arguments = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            arguments.insert(name.into(), value);
        };
        set("x-max-length", AMQPValue::LongLongInt(1));
        let lifetime = millis(self.claim.window + MARGIN);
        set("x-expires", AMQPValue::LongLongInt(lifetime));
        if queue == self.claim.queue {
            set("x-overflow", AMQPValue::LongString("reject-publish".into()));
        }
        let options = QueueDeclareOptions::durable();
        match channel
            .queue_declare(queue.into(), options, arguments)
            .await
        {
            Ok(_) => Ok(Declared::AsAsked),
            Err(error) if soft_error(&error) == Some(&AMQPSoftError::PRECONDITIONFAILED) => {
                Ok(Declared::WithOtherWindow)
            }
            Err(error) => Err(error),
        }
    }

    async fn publish(
        &self,
        channel: &Channel,
        queue: &str,
        since: Instant,
    ) -> lapin::Result<Published> {
        let early = if queue == self.claim.queue {
            Duration::ZERO
        } else {
            NAME_GOES_FIRST
        };
        let left = self.claim.window.saturating_sub(since.elapsed() + early);
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(2)
            .with_message_id(self.claim.mark.into())
            .with_expiration(millis(left).to_string().into());
        let options = BasicPublishOptions {
            mandatory: true,
            immediate: false,
        };
        let holder = self.claim.holder.as_bytes();
        let confirm = channel
            .basic_publish("".into(), queue.into(), options, holder, properties)
            .await?;
        Ok(match confirm.await? {
            Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)) => Published::Vanished,
            Confirmation::Ack(None) => Published::Kept,
            Confirmation::Nack(None) | Confirmation::NotRequested => Published::Full,
        })
    }

    async fn write_name(
        &self,
        channels: &Channels,
        mut channel: Channel,
        since: Instant,
    ) -> lapin::Result<()> {
        let queue = name_queue(self.claim.queue);
        if self.declare(&channel, &queue).await? == Declared::WithOtherWindow {
            channel = channels.fresh().await?;
            delete(&channel, &queue).await?;
            self.declare(&channel, &queue).await?;
        }
        self.publish(&channel, &queue, since).await?;
        Ok(())
    }

    async fn read_holder(&mut self, channel: &Channel) -> lapin::Result<Option<Claimed>> {
        let name = name_queue(self.claim.queue);
        let looked = if self.missing < MISSING_LOOKS {
            peek(channel, &name).await
        } else {
            // Who asks while the claim is in our hand gets it, too: a millisecond's risk, and only
            // after a crash.
            peek(channel, self.claim.queue).await
        };
        let holder = match looked {
            Err(error) if soft_error(&error) == Some(&AMQPSoftError::NOTFOUND) => None,
            looked => looked?,
        };
        if holder.is_none() {
            self.missing += 1;
        }
        Ok(holder.map(|(holder, mark)| {
            if holder == self.claim.holder {
                Claimed::Still(mark)
            } else {
                Claimed::By(holder)
            }
        }))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Declared {
    AsAsked,
    WithOtherWindow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Published {
    Kept,
    Full,
    /// The queue went between the declaration and the message.
    Vanished,
}

/// Where the holder of a claim writes its name.
fn name_queue(queue: &str) -> String {
    format!("{queue}.holder")
}

/// The holder and its mark in the first message, which stays where it is.
async fn peek(channel: &Channel, queue: &str) -> lapin::Result<Option<(String, String)>> {
    let options = BasicGetOptions { no_ack: false };
    let Some(got) = channel.basic_get(queue.into(), options).await? else {
        return Ok(None);
    };
    let back = BasicNackOptions {
        requeue: true,
        multiple: false,
    };
    got.delivery.nack(back).await?;
    let holder = String::from_utf8_lossy(&got.delivery.data);
    let mark = got.delivery.properties.message_id().as_ref();
    let mark = mark.map(ToString::to_string).unwrap_or_default();
    Ok(Some((holder.into_owned(), mark)))
}

async fn delete(channel: &Channel, queue: &str) -> lapin::Result<()> {
    let options = QueueDeleteOptions::default();
    channel
        .queue_delete(queue.into(), options)
        .await
        .map(|_| ())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
