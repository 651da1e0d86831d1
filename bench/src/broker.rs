//! The broker that a scenario runs on, and a look into its queues.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use crate::machine::cores;

const PATIENCE: Duration = Duration::from_secs(10);

/// A broker: one that is given, or a private node that ends with this value.
#[derive(Debug)]
pub(crate) struct Broker {
    /// Its address.
    pub(crate) url: String,
    own: Option<PathBuf>,
}

impl Broker {
    /// The one at `BELLHOP_TEST_AMQP_URL`, or a new one in `folder` that may use every core.
    pub(crate) async fn start(folder: &Path) -> anyhow::Result<Self> {
        if let Ok(url) = std::env::var("BELLHOP_TEST_AMQP_URL") {
            return Ok(Self { url, own: None });
        }
        let dir = folder.join("broker");
        let mut broker = Self {
            url: String::new(),
            own: Some(dir.clone()),
        };
        script("start", &dir).await?;
        let settings = script("env", &dir).await?;
        let mut lines = settings.lines();
        let url = lines.find_map(|line| line.strip_prefix("AMQP_URL="));
        broker.url = url
            .context("scripts/rabbitmq env names no AMQP_URL")?
            .into();
        Ok(broker)
    }

    /// Its process, if it is a private one.
    pub(crate) fn pid(&self) -> Option<i32> {
        // Its id and its time of birth.
        let file = std::fs::read_to_string(self.own.as_ref()?.join("beam.pid")).ok()?;
        file.split_whitespace().next()?.parse().ok()
    }

    /// What the broker calls its version, from the first frame that it sends.
    pub(crate) async fn version(&self) -> anyhow::Result<String> {
        let uri: AMQPUri = self.url.parse().map_err(anyhow::Error::msg)?;
        let asking = async {
            let address = (uri.authority.host.as_str(), uri.authority.port);
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"AMQP\0\0\x09\x01").await?;
            let mut answer = vec![0; 2048];
            let length = stream.read(&mut answer).await?;
            answer.truncate(length);
            anyhow::Ok(answer)
        };
        let answer = timeout(PATIENCE, asking)
            .await
            .context("the broker does not answer")??;
        Ok(text_property(&answer, b"\x07version").unwrap_or_else(|| "unknown".into()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(dir) = &self.own else { return };
        // What the node holds is thrown away, so it need not end in order.
        for command in ["kill", "stop"] {
            drop(
                std::process::Command::new(SCRIPT)
                    .arg(command)
                    .arg(dir)
                    .output(),
            );
        }
    }
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/rabbitmq");

async fn script(command: &str, dir: &Path) -> anyhow::Result<String> {
    let output = Command::new(SCRIPT)
        .arg(command)
        .arg(dir)
        // As many schedulers as RabbitMQ takes by default; the script gives a test's node one.
        .env("RABBITMQ_ERL_ARGS", format!("+S {0}:{0}", cores()))
        .output()
        .await
        .context("cannot run scripts/rabbitmq")?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("scripts/rabbitmq {command}: {}", errors.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The value of a long string in an AMQP table, by its encoded name.
fn text_property(table: &[u8], name: &[u8]) -> Option<String> {
    let at = table
        .windows(name.len())
        .position(|window| window == name)?;
    let rest = table.get(at + name.len()..)?.strip_prefix(b"S")?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..length)?).into_owned())
}

/// A connection that looks into queues while others work on them.
#[derive(Debug)]
pub(crate) struct Probe {
    _connection: Connection,
    /// For what only a test of the broker does.
    pub(crate) channel: Channel,
}

impl Probe {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let properties = ConnectionProperties::default().with_connection_name("bench probe".into());
        let connection = timeout(PATIENCE, Connection::connect(url, properties))
            .await
            .context("the broker does not answer")??;
        let channel = connection.create_channel().await?;
        Ok(Self {
            _connection: connection,
            channel,
        })
    }

    /// How many messages of a queue nobody has taken.
    pub(crate) async fn ready(&self, queue: &str) -> anyhow::Result<u32> {
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            let ready = self.ask_ready(queue).await?;
            // A quorum queue that does not answer its own broker within 250 ms is said to be empty.
            if ready > 0 || asked.elapsed() < Duration::from_millis(200) {
                return Ok(ready);
            }
            ensure!(asked < until, "the broker does not say how long {queue} is");
        }
    }

    async fn ask_ready(&self, queue: &str) -> anyhow::Result<u32> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declaring = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        let declared = timeout(PATIENCE, declaring)
            .await
            .with_context(|| format!("the broker does not say how long {queue} is"))??;
        Ok(declared.message_count())
    }

    /// Deletes a queue with what it holds.
    pub(crate) async fn delete(&self, queue: &str) -> anyhow::Result<()> {
        let options = QueueDeleteOptions::default();
        let deleting = self.channel.queue_delete(queue.into(), options);
        timeout(Duration::from_mins(1), deleting)
            .await
            .with_context(|| format!("the broker does not delete {queue}"))??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_a_table() {
        let table = b"\x07productS\0\0\0\x08RabbitMQ\x07versionS\0\0\0\x063.10.8\x01x";
        assert_eq!(text_property(table, b"\x07version").unwrap(), "3.10.8");
        assert_eq!(
            text_property(b"\x07versionS\0\0\0\xff1", b"\x07version"),
            None
        );
    }
}
