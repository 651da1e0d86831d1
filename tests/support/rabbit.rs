//! A plain AMQP client, for what a test does behind the services' backs.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueuePurgeOptions,
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

    /// Takes the next message of a queue, named without the prefix, within ten seconds.
    pub async fn take(&self, queue: &str) -> Taken {
        let end = Instant::now() + Duration::from_secs(10);
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
            body: got.delivery.data.clone(),
        })
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
        let queue = format!("{}{queue}", self.prefix);
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        self.channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .unwrap()
            .message_count()
    }
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        other => format!("{other:?}"),
    }
}
