//! What a [`Topology`] is for the broker.

use lapin::Channel;
use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use super::topology::{Binding, Exchange, ExchangeKind, Queue, QueueKind, Target, Topology};

/// How often a job may come back unsettled (its worker died, or lost its connection) before the
/// broker moves it to the dead letters, without a word to its owner: only for what kills a worker
/// before it can look at it. Workers that start slowly and die often have let 20 go by unseen.
const JOB_DELIVERY_LIMIT: i64 = 100;

/// The same for queues whose messages may come back often: those whose consumer holds them through
/// long outages on purpose, and those that people look through. RabbitMQ 4
/// would otherwise apply its default of 20.
const PATIENT_DELIVERY_LIMIT: i64 = 100_000;

/// The part of a stream that goes at once, so that a small limit means something.
const STREAM_SEGMENT_BYTES: i64 = 16 << 20;

impl Topology {
    /// Declares everything. Declaring what exists already is no change; an existing queue with
    /// other arguments is an error that names it.
    pub(super) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for Exchange { name, kind } in &self.exchanges {
            let (kind, durable) = match kind {
                ExchangeKind::Direct => (lapin::ExchangeKind::Direct, true),
                ExchangeKind::Topic => (lapin::ExchangeKind::Topic, true),
                ExchangeKind::TransientFanout => (lapin::ExchangeKind::Fanout, false),
                ExchangeKind::TransientDirect => (lapin::ExchangeKind::Direct, false),
            };
            let options = ExchangeDeclareOptions {
                durable,
                ..ExchangeDeclareOptions::default()
            };
            let (name, arguments) = (name.as_str().into(), FieldTable::default());
            channel
                .exchange_declare(name, kind, options, arguments)
                .await?;
        }
        for queue in &self.queues {
            let (name, arguments) = (queue.name.as_str().into(), queue.arguments());
            channel
                .queue_declare(name, QueueDeclareOptions::durable(), arguments)
                .await?;
        }
        for binding in &self.bindings {
            binding.declare(channel).await?;
        }
        Ok(())
    }
}

impl Binding {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        match &self.to {
            Target::Queue(queue) => bind(channel, queue, &self.exchange, &self.pattern).await,
            Target::Exchange(next) => {
                channel
                    .exchange_bind(
                        next.as_str().into(),
                        self.exchange.as_str().into(),
                        self.pattern.as_str().into(),
                        ExchangeBindOptions::default(),
                        FieldTable::default(),
                    )
                    .await
            }
        }
    }
}

pub(super) async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    pattern: &str,
) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            pattern.into(),
            options,
            FieldTable::default(),
        )
        .await
}

impl Queue {
    /// The arguments of `queue.declare`. They cannot change once the queue exists.
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            arguments.insert(name.into(), value);
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        if let QueueKind::Classic { max_priority } = self.kind {
            if let Some(most) = max_priority {
                set("x-max-priority", AMQPValue::LongLongInt(i64::from(most)));
            }
            return arguments;
        }
        let set = &mut set;
        if let QueueKind::Stream { age, bytes } = &self.kind {
            // https://www.rabbitmq.com/docs/streams#declaring
            set("x-queue-type", text("stream"));
            set("x-max-age", text(age));
            set("x-max-length-bytes", AMQPValue::LongLongInt(*bytes));
            let segment = AMQPValue::LongLongInt(STREAM_SEGMENT_BYTES);
            set("x-stream-max-segment-size-bytes", segment);
            return arguments;
        }
        if let QueueKind::Newest { bytes } = self.kind {
            // Said, because a virtual host may have another default.
            set("x-queue-type", text("classic"));
            set("x-single-active-consumer", AMQPValue::Boolean(true));
            set("x-max-length-bytes", AMQPValue::LongLongInt(bytes));
            set("x-overflow", text("drop-head"));
            return arguments;
        }
        // Replicated, on disk, and counts deliveries: https://www.rabbitmq.com/docs/quorum-queues
        set("x-queue-type", text("quorum"));
        let next = match &self.kind {
            QueueKind::Plain
            | QueueKind::Stream { .. }
            | QueueKind::Classic { .. }
            | QueueKind::Newest { .. } => return arguments,
            QueueKind::Keep => {
                // Whoever looks through the queue puts back what he does not take, and each time
                // counts. Beyond the limit a message would be gone: there is no exchange behind.
                let limit = AMQPValue::LongLongInt(PATIENT_DELIVERY_LIMIT);
                set("x-delivery-limit", limit);
                return arguments;
            }
            QueueKind::Work { dead_letters } => {
                let limit = AMQPValue::LongLongInt(JOB_DELIVERY_LIMIT);
                set("x-delivery-limit", limit);
                dead_letters
            }
            QueueKind::Ordered { dead_letters } => {
                set("x-single-active-consumer", AMQPValue::Boolean(true));
                let limit = AMQPValue::LongLongInt(PATIENT_DELIVERY_LIMIT);
                set("x-delivery-limit", limit);
                dead_letters
            }
            QueueKind::Delay { seconds, next } => {
                let ms = i64::try_from(seconds * 1000).unwrap_or(i64::MAX);
                set("x-message-ttl", AMQPValue::LongLongInt(ms));
                next
            }
        };
        set("x-dead-letter-exchange", text(next));
        // The default strategy dead-letters without confirms and may lose messages; this one needs
        // `reject-publish`: https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
        set("x-dead-letter-strategy", text("at-least-once"));
        set("x-overflow", text("reject-publish"));
        arguments
    }
}
