//! A publisher of stored events: persistent, and each confirmed.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bellhop_common::amqp::Names;
use bellhop_common::config::AmqpConfig;
use jiff::Timestamp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
};
use tokio::time::timeout;
use uuid::Uuid;

/// How many may wait for their confirms, so that the broker always has work.
const WINDOW: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an event.
const BODY: usize = 300;
/// Before an event's number in its body.
const NUMBER: &str = r#""n":"#;

/// A connection, and what it waits for.
pub(crate) struct Confirmed {
    _connection: Connection,
    channel: Channel,
    exchange: String,
    waiting: VecDeque<PublisherConfirm>,
}

impl Confirmed {
    pub(crate) async fn connect(config: &AmqpConfig) -> anyhow::Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("bench load".into());
        let connecting = Connection::connect(config.url.expose(), properties);
        let connection = timeout(PATIENCE, connecting)
            .await
            .context("the broker does not answer")??;
        let channel = connection.create_channel().await?;
        let options = ConfirmSelectOptions::default();
        channel.confirm_select(options).await?;
        Ok(Self {
            channel,
            _connection: connection,
            exchange: Names::new(config).events(),
            waiting: VecDeque::new(),
        })
    }

    /// Publishes the event of a number for a user.
    pub(crate) async fn publish(&mut self, user: &str, number: u32) -> anyhow::Result<()> {
        let (_, body) = event(number);
        self.put(&format!("stored.user.{user}.note"), &body).await
    }

    /// Publishes an event.
    pub(crate) async fn put(&mut self, key: &str, body: &[u8]) -> anyhow::Result<()> {
        if self.waiting.len() >= WINDOW {
            self.confirm_one().await?;
        }
        let properties = BasicProperties::default().with_delivery_mode(2);
        let (exchange, options) = (self.exchange.as_str(), BasicPublishOptions::default());
        let publishing =
            self.channel
                .basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirm = timeout(PATIENCE, publishing)
            .await
            .context("an event was not taken")??;
        self.waiting.push_back(confirm);
        Ok(())
    }

    /// Waits until the broker has all that was published.
    pub(crate) async fn all(&mut self) -> anyhow::Result<()> {
        while !self.waiting.is_empty() {
            self.confirm_one().await?;
        }
        Ok(())
    }

    async fn confirm_one(&mut self) -> anyhow::Result<()> {
        let Some(confirm) = self.waiting.pop_front() else {
            return Ok(());
        };
        let confirmed = timeout(PATIENCE, confirm)
            .await
            .context("an event was not confirmed")??;
        ensure!(
            matches!(confirmed, Confirmation::Ack(None)),
            "the broker refused an event"
        );
        Ok(())
    }
}

/// An event as a backend would write it, with its id.
pub(crate) fn event(number: u32) -> (Uuid, Vec<u8>) {
    let (id, time) = (Uuid::now_v7(), Timestamp::now());
    let mut body = format!(
        r#"{{"type":"note","id":"{id}","time":"{time:.3}","data":{{{NUMBER}{number},"text":""#
    );
    let padding = BODY.saturating_sub(body.len() + 3);
    body.extend(std::iter::repeat_n('x', padding));
    body.push_str("\"}}");
    (id, body.into_bytes())
}

/// The number of an event, in a frame that shows it.
pub(crate) fn number(frame: &str) -> Option<u32> {
    let (_, rest) = frame.split_once(NUMBER)?;
    let (digits, _) = rest.split_once(',')?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_and_number() {
        let (id, body) = event(1234);
        assert_eq!(body.len(), BODY);
        let event = bellhop_common::wire::Event::parse(&body).unwrap();
        assert_eq!((event.kind.as_str(), event.id), ("note", id));
        assert_eq!(number(std::str::from_utf8(&body).unwrap()), Some(1234));
        assert_eq!(number(r#"{"type":"resumed"}"#), None);
    }
}
