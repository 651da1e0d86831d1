//! A question to whoever listens, and how full queues are: for a command that looks and leaves.

use std::time::Duration;

use futures_util::StreamExt as _;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ErrorKind};
use thiserror::Error;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use super::connect::{ConnectError, OWN_FRAME, connect};
use super::names::Names;
use super::topology::{Exchange, ExchangeKind, Topology};
use crate::config::AmqpConfig;
use crate::tls;

/// How long the broker may take to answer the goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most answers that are read.
const MAX_ANSWERS: usize = 1000;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum InquiryError {
    /// There is no connection.
    #[error("cannot reach RabbitMQ at {url}")]
    Connect {
        /// Where, without the password.
        url: String,
        /// Why.
        #[source]
        source: ConnectError,
    },
    /// A step took too long.
    #[error("the broker did not answer within {after:?} to: {step}")]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// For what.
        step: String,
    },
    /// The broker refused.
    #[error("the broker refused to: {step}")]
    Broker {
        /// What.
        step: String,
        /// Why.
        #[source]
        source: lapin::Error,
    },
}

/// How full a queue is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Messages that nobody holds.
    pub ready: u32,
    /// Who consumes it.
    pub consumers: u32,
}

/// A connection to ask over. Each step has `amqp.connect_timeout`.
#[derive(Debug)]
pub struct Inquiry {
    connection: Connection,
    names: Names,
    limit: Duration,
}

impl Inquiry {
    /// Connects, once.
    ///
    /// # Errors
    /// [`InquiryError::Connect`].
    pub async fn open(config: &AmqpConfig, name: &str) -> Result<Self, InquiryError> {
        tls::install_provider();
        let connecting = connect(config, name, OWN_FRAME);
        let connection = connecting.await.map_err(|source| InquiryError::Connect {
            url: config.url.to_string(),
            source,
        })?;
        Ok(Self {
            connection,
            names: Names::new(config),
            limit: config.connect_timeout.0,
        })
    }

    /// How full a queue is; `None` if there is no such queue.
    ///
    /// # Errors
    /// [`InquiryError`].
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, InquiryError> {
        let step = format!("look at queue {queue}");
        let looking = async {
            // A channel of its own, which ends with a queue that is not there.
            let channel = self.connection.create_channel().await?;
            let options = QueueDeclareOptions {
                passive: true,
                ..QueueDeclareOptions::default()
            };
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
            let depth = match declared.await {
                Ok(queue) => Depth {
                    ready: queue.message_count(),
                    consumers: queue.consumer_count(),
                },
                Err(error) if is_not_found(&error) => return Ok(None),
                Err(error) => return Err(error),
            };
            channel.close(200, "seen".into()).await?;
            Ok(Some(depth))
        };
        self.step(step, looking).await
    }

    /// Publishes a question to the exchange `control` and collects the answers that come within
    /// `wait`, in the order they come.
    ///
    /// # Errors
    /// [`InquiryError`]. That nobody answers is no error.
    pub async fn ask(&self, key: &str, wait: Duration) -> Result<Vec<Vec<u8>>, InquiryError> {
        let control = Topology {
            exchanges: vec![Exchange {
                name: self.names.control(),
                kind: ExchangeKind::Topic,
            }],
            ..Topology::default()
        };
        let id = Uuid::now_v7().to_string();
        let asking = async {
            let channel = self.connection.create_channel().await?;
            control.declare(&channel).await?;
            let answers = self.answers(&channel, &id).await?;
            let properties = BasicProperties::default()
                .with_reply_to(self.own_queue(&id).into())
                .with_correlation_id(id.as_str().into());
            let (exchange, options) = (self.names.control(), BasicPublishOptions::default());
            channel
                .basic_publish(exchange.into(), key.into(), options, &[], properties)
                .await?;
            Ok((channel, answers))
        };
        // The channel is held until the last answer.
        let (_channel, mut answers) = self.step(format!("ask {key}"), asking).await?;
        let (end, mut bodies) = (Instant::now() + wait, Vec::new());
        while bodies.len() < MAX_ANSWERS {
            match timeout_at(end, answers.next()).await {
                Ok(Some(Ok(answer))) => {
                    let correlation = answer.properties.correlation_id();
                    if correlation.as_ref().is_some_and(|c| c.as_str() == id) {
                        bodies.push(answer.data);
                    }
                }
                Ok(Some(Err(source))) => {
                    let step = format!("read the answers to {key}");
                    return Err(InquiryError::Broker { step, source });
                }
                Ok(None) | Err(_) => break,
            }
        }
        Ok(bodies)
    }

    /// Says goodbye.
    pub async fn close(self) {
        // The command ends next, whatever the broker says.
        drop(timeout(CLOSE_TIMEOUT, self.connection.close(200, "goodbye".into())).await);
    }

    fn own_queue(&self, id: &str) -> String {
        format!("{}ask.{id}", self.names.worker())
    }

    async fn answers(&self, channel: &Channel, id: &str) -> lapin::Result<lapin::Consumer> {
        let name = self.own_queue(id);
        let own = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(name.as_str().into(), own, FieldTable::default())
            .await?;
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        channel
            .basic_consume(name.into(), "".into(), options, FieldTable::default())
            .await
    }

    async fn step<T>(
        &self,
        step: String,
        work: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, InquiryError> {
        match timeout(self.limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(source)) => Err(InquiryError::Broker { step, source }),
            Err(_) => Err(InquiryError::Timeout {
                after: self.limit,
                step,
            }),
        }
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(error) => {
            *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND)
        }
        _ => false,
    }
}
