//! A plain AMQP client, for what a test does behind the services' backs.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, BasicRejectOptions,
    ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::{Instant, sleep};

/// One connection and channel with confirms.
pub struct Rabbit {
    connection: Connection,
    channel: Channel,
    prefix: String,
}

/// A message taken from a queue.
#[derive(Debug, Clone)]
pub struct Taken {
    pub body: Vec<u8>,
    pub routing_key: String,
    pub headers: BTreeMap<String, String>,
    pub correlation_id: Option<String>,
}

impl Rabbit {
    pub async fn connect(url: &str, prefix: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default())
            .await
            .unwrap();
        let channel = connection.create_channel().await.unwrap();
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await.unwrap();
        Self {
            connection,
            channel,
            prefix: prefix.into(),
        }
    }

    /// Publishes to an exchange, named without the prefix.
    pub async fn publish(&self, exchange: &str, key: &str, body: impl AsRef<[u8]>) {
        self.publish_with(exchange, key, body, BasicProperties::default())
            .await;
    }

    /// Publishes straight to a queue, named without the prefix.
    pub async fn publish_to_queue(&self, queue: &str, body: impl AsRef<[u8]>) {
        let queue = format!("{}{queue}", self.prefix);
        let (options, body) = (BasicPublishOptions::default(), body.as_ref());
        let properties = BasicProperties::default().with_delivery_mode(2);
        let publishing =
            self.channel
                .basic_publish("".into(), queue.into(), options, body, properties);
        assert!(publishing.await.unwrap().await.unwrap().is_ack());
    }

    pub async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        properties: BasicProperties,
    ) {
        let exchange = format!("{}{exchange}", self.prefix);
        let options = BasicPublishOptions::default();
        let confirm = self
            .channel
            .basic_publish(
                exchange.into(),
                key.into(),
                options,
                body.as_ref(),
                properties.with_delivery_mode(2),
            )
            .await
            .unwrap();
        assert!(confirm.await.unwrap().is_ack());
    }

    pub async fn publish_headed(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        headers: &[(&str, String)],
    ) {
        self.publish_identified(exchange, key, body, "", headers)
            .await;
    }

    /// With a `message-id`.
    pub async fn publish_identified(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        id: &str,
        headers: &[(&str, String)],
    ) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            let value = AMQPValue::LongString(value.as_str().into());
            table.insert((*name).into(), value);
        }
        let properties = BasicProperties::default()
            .with_headers(table)
            .with_message_id(id.into());
        self.publish_with(exchange, key, body, properties).await;
    }

    /// Publishes many, and waits for the confirms together.
    pub async fn publish_all(&self, exchange: &str, key: &str, bodies: Vec<Vec<u8>>) {
        let exchange = format!("{}{exchange}", self.prefix);
        for some in bodies.chunks(500) {
            let mut confirms = Vec::new();
            for body in some {
                let publishing = self.channel.basic_publish(
                    exchange.as_str().into(),
                    key.into(),
                    BasicPublishOptions::default(),
                    body,
                    BasicProperties::default().with_delivery_mode(2),
                );
                confirms.push(publishing.await.unwrap());
            }
            for confirm in confirms {
                assert!(confirm.await.unwrap().is_ack());
            }
        }
    }

    /// A durable queue of a type (`classic`, `stream`) that hears an exchange; named without the
    /// prefix.
    pub async fn declare(&self, queue: &str, kind: &str, exchange: &str, pattern: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
        let name = format!("{}{queue}", self.prefix);
        let options = QueueDeclareOptions::durable();
        self.channel
            .queue_declare(name.as_str().into(), options, arguments)
            .await
            .unwrap();
        self.bind(&name, exchange, pattern).await;
    }

    /// Takes a message without an answer: it comes back when the connection is closed.
    pub async fn take_and_keep(&self, queue: &str) {
        let queue = format!("{}{queue}", self.prefix);
        let options = BasicGetOptions { no_ack: false };
        let got = self.channel.basic_get(queue.into(), options).await;
        assert!(got.unwrap().is_some());
    }

    pub async fn close(self) {
        self.connection.close(200, "bye".into()).await.unwrap();
    }

    /// A queue that goes with the connection; its whole name.
    pub async fn own_queue(&self) -> String {
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let name = format!("{}own", self.prefix);
        self.channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .unwrap();
        name
    }

    /// A queue that goes with the connection and hears an exchange; its name without the prefix.
    pub async fn listening(&self, exchange: &str, pattern: &str) -> String {
        let queue = self.own_queue().await;
        self.bind(&queue, exchange, pattern).await;
        queue.strip_prefix(&self.prefix).unwrap().to_owned()
    }

    async fn bind(&self, queue: &str, exchange: &str, pattern: &str) {
        let exchange = format!("{}{exchange}", self.prefix);
        let options = lapin::options::QueueBindOptions::default();
        self.channel
            .queue_bind(
                queue.into(),
                exchange.into(),
                pattern.into(),
                options,
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// Waits until a queue has no message that nobody holds.
    pub async fn fetched(&self, queue: &str) {
        let wait = async {
            while self.ready(queue).await > 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("nobody takes from {queue}"));
    }

    /// Waits until a message lies in a queue.
    pub async fn filled(&self, queue: &str) {
        let wait = async {
            while self.count(queue).await.unwrap_or(0) == 0 {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("nothing comes to {queue}"));
    }

    /// Waits until a queue has exactly so many messages that nobody holds. What goes back to a quorum
    /// queue is there only after the broker's next write to disk, and a broker that is slow to count
    /// says 0.
    pub async fn settles_at(&self, queue: &str, messages: u32) {
        let wait = async {
            while self.ready(queue).await != messages {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let settled = tokio::time::timeout(Duration::from_secs(20), wait).await;
        if settled.is_err() {
            assert_eq!(self.ready(queue).await, messages, "in {queue}");
        }
    }

    /// Waits until so many messages lie in a queue.
    pub async fn holds(&self, queue: &str, messages: u32) {
        let wait = async {
            while self.count(queue).await.unwrap_or(0) < messages {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("{queue} does not get {messages} messages"));
    }

    /// Takes the next message of a queue, named without the prefix, within ten seconds.
    pub async fn take(&self, queue: &str) -> Taken {
        let end = Instant::now() + Duration::from_secs(10);
        self.filled(queue).await;
        loop {
            if let Some(taken) = self.try_take(queue).await {
                return taken;
            }
            assert!(Instant::now() < end, "nothing came to {queue}");
            // The broker has no signal for "a message is there" but a consumer, which would hold
            // messages that the test wants to count.
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The same for a queue by its whole name.
    pub async fn take_named(&self, queue: &str) -> Taken {
        let name = queue.strip_prefix(&self.prefix).unwrap();
        self.take(name).await
    }

    pub async fn try_take(&self, queue: &str) -> Option<Taken> {
        let queue = format!("{}{queue}", self.prefix);
        let options = BasicGetOptions { no_ack: false };
        let got = self
            .channel
            .basic_get(queue.into(), options)
            .await
            .unwrap()?;
        got.delivery.ack(BasicAckOptions::default()).await.unwrap();
        let headers = got.delivery.properties.headers();
        let headers = headers.iter().flat_map(FieldTable::inner);
        Some(Taken {
            routing_key: got.delivery.routing_key.to_string(),
            headers: headers
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            correlation_id: got
                .delivery
                .properties
                .correlation_id()
                .as_ref()
                .map(ToString::to_string),
            body: got.delivery.data.clone(),
        })
    }

    /// Publishes to an exchange with headers that are texts.
    pub async fn publish_headers(
        &self,
        exchange: &str,
        key: &str,
        body: impl AsRef<[u8]>,
        headers: &[(&str, &str)],
    ) {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let properties = BasicProperties::default().with_headers(table);
        self.publish_with(exchange, key, body, properties).await;
    }

    /// Takes the next message of a queue and gives it back, as a consumer that cannot go on.
    pub async fn give_back(&self, queue: &str) -> bool {
        let queue = format!("{}{queue}", self.prefix);
        let options = BasicGetOptions { no_ack: false };
        let got = self.channel.basic_get(queue.into(), options).await.unwrap();
        let Some(got) = got else { return false };
        let options = BasicRejectOptions { requeue: true };
        got.delivery.reject(options).await.unwrap();
        true
    }

    /// Declares a queue, named without the prefix, that is full and refuses what comes.
    pub async fn declare_full(&self, queue: &str) {
        let name = format!("{}{queue}", self.prefix);
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
        let refuses = AMQPValue::LongString("reject-publish".into());
        arguments.insert("x-overflow".into(), refuses);
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = self.channel.queue_declare(name.into(), options, arguments);
        declared.await.unwrap();
        self.publish_to_queue(queue, "the only one").await;
    }

    /// Declares a queue, named without the prefix, that only this connection may use.
    pub async fn hold(&self, queue: &str) {
        let queue = format!("{}{queue}", self.prefix);
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let arguments = FieldTable::default();
        let declared = self.channel.queue_declare(queue.into(), options, arguments);
        declared.await.unwrap();
    }

    /// Declares a queue that goes with its last consumer, or after so many milliseconds without any.
    /// It may be there, if it is the same.
    pub async fn declare_passing(&self, queue: &str, expires: i64) {
        let queue = format!("{}{queue}", self.prefix);
        let options = QueueDeclareOptions {
            durable: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString("classic".into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-expires".into(), AMQPValue::LongLongInt(expires));
        let declared = self.channel.queue_declare(queue.into(), options, arguments);
        declared.await.unwrap();
    }

    /// Whether there is such a queue. Asks on a channel of its own, which a no closes.
    pub async fn exists(&self, queue: &str) -> bool {
        let queue = format!("{}{queue}", self.prefix);
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let none = FieldTable::default();
        channel
            .queue_declare(queue.into(), options, none)
            .await
            .is_ok()
    }

    /// Throws away what waits in a queue.
    pub async fn purge(&self, queue: &str) {
        let queue = format!("{}{queue}", self.prefix);
        let options = QueuePurgeOptions::default();
        let purging = self.channel.queue_purge(queue.into(), options);
        purging.await.unwrap();
    }

    /// How many messages of a queue nobody holds.
    pub async fn ready(&self, queue: &str) -> u32 {
        self.count(queue).await.unwrap()
    }

    /// The same for a queue that may not be there yet.
    async fn count(&self, queue: &str) -> Option<u32> {
        Some(self.look(queue).await?.message_count())
    }

    /// How many consume a queue.
    pub async fn consumers(&self, queue: &str) -> u32 {
        self.look(queue).await.unwrap().consumer_count()
    }

    async fn look(&self, queue: &str) -> Option<lapin::Queue> {
        let queue = format!("{}{queue}", self.prefix);
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        // On a channel of its own, which ends with a queue that is not there.
        let channel = self.connection.create_channel().await.unwrap();
        let declared = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .ok()?;
        channel.close(200, "done".into()).await.unwrap();
        Some(declared)
    }
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => format!("{other:?}"),
    }
}
