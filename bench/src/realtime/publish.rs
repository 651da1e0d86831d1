//! How publications reach each side.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use bellhop_common::amqp::Names;
use bellhop_common::config::AmqpConfig;
use jiff::Timestamp;
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::client::{now, stamp};
use super::scene::Member;

const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a publication's body.
const BODY: usize = 200;

/// A way in, for one publisher.
pub(crate) enum Publisher {
    /// Our exchange, without confirms: live events are worth none.
    Amqp {
        _connection: Box<Connection>,
        channel: Channel,
        exchange: String,
    },
    /// A line each.
    Lines(TcpStream),
    /// A request each, without waiting for the answer to the last.
    Http {
        requests: OwnedWriteHalf,
        _answers: Answers,
    },
}

/// Reads answers and throws them away.
pub(crate) struct Answers(JoinHandle<()>);

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Publisher {
    pub(crate) async fn amqp(config: &AmqpConfig) -> anyhow::Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("bench load".into());
        let connecting = Connection::connect(config.url.expose(), properties);
        let connection = timeout(PATIENCE, connecting)
            .await
            .context("the broker does not answer")??;
        Ok(Self::Amqp {
            channel: connection.create_channel().await?,
            _connection: Box::new(connection),
            exchange: Names::new(config).events(),
        })
    }

    pub(crate) async fn lines(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::Lines(connect(address).await?))
    }

    pub(crate) async fn http(address: SocketAddr) -> anyhow::Result<Self> {
        let (mut answers, requests) = connect(address).await?.into_split();
        let reading = tokio::spawn(async move {
            drop(tokio::io::copy(&mut answers, &mut tokio::io::sink()).await);
        });
        Ok(Self::Http {
            requests,
            _answers: Answers(reading),
        })
    }

    /// Publishes one body for everybody who is where this member is.
    pub(crate) async fn publish(&mut self, member: &Member) -> anyhow::Result<()> {
        let body = body();
        let publishing = async {
            match self {
                Self::Amqp {
                    channel, exchange, ..
                } => {
                    let key = match &member.room {
                        Some(room) => format!("live.room.{room}.bench.message"),
                        None => format!("live.user.{}.bench.message", member.user),
                    };
                    let (options, properties) =
                        (BasicPublishOptions::default(), BasicProperties::default());
                    let (exchange, key) = (exchange.as_str().into(), key.into());
                    channel
                        .basic_publish(exchange, key, options, body.as_bytes(), properties)
                        .await?;
                }
                Self::Lines(stream) => {
                    let line = format!("{} {body}\n", member.channel());
                    stream.write_all(line.as_bytes()).await?;
                }
                Self::Http { requests, .. } => {
                    let request = format!(
                        "POST /publish?id={} HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n{body}",
                        member.channel(),
                        body.len()
                    );
                    requests.write_all(request.as_bytes()).await?;
                }
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, publishing)
            .await
            .context("a publication was not taken")?
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = timeout(PATIENCE, TcpStream::connect(address))
        .await
        .with_context(|| format!("{address} does not answer"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An event as a backend would write it, stamped with the time.
fn body() -> String {
    let (id, time) = (Uuid::now_v7(), Timestamp::now());
    let mut body = format!(
        r#"{{"type":"bench.message","id":"{id}","time":"{time:.3}","data":{{"at":"{}","text":""#,
        stamp(now())
    );
    let padding = BODY.saturating_sub(body.len() + 3);
    body.extend(std::iter::repeat_n('x', padding));
    body.push_str("\"}}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_an_event_of_its_size() {
        let event = bellhop_common::wire::Event::parse(body().as_bytes()).unwrap();
        assert_eq!(event.kind, "bench.message");
        assert_eq!(body().len(), BODY);
    }
}
