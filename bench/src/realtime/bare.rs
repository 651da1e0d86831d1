//! The bare lapin consumer: what is left of the way when there is no notifier.

use std::path::PathBuf;

use anyhow::Context as _;
use bellhop_common::amqp::Names;
use bellhop_common::shutdown;
use clap::Args;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};

use super::client::{age, now};
use super::scene::Scene;
use crate::place::{Place, itself};
use crate::process::Group;

/// As many as our notifier takes at once.
const PREFETCH: u16 = 500;

/// The consumer as a process. It ends on SIGTERM, and then writes the age of everything that came.
#[derive(Debug, Args)]
pub(crate) struct BareConsumer {
    #[command(flatten)]
    place: Place,
    /// A file that is there once it consumes
    #[arg(long)]
    ready: PathBuf,
    /// Where to write the ages, as a JSON list of nanoseconds
    #[arg(long)]
    ages: PathBuf,
}

impl BareConsumer {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let stop = shutdown::on_signal(|| {})?;
        let properties = ConnectionProperties::default().with_connection_name("bare".into());
        let connection = Connection::connect(config.url.expose(), properties).await?;
        let channel = connection.create_channel().await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await?;
        let exchange = Names::new(&config).events();
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let (queue, none) = (format!("{}bare", config.prefix), FieldTable::default());
        channel
            .exchange_declare(
                exchange.as_str().into(),
                ExchangeKind::Topic,
                durable,
                none.clone(),
            )
            .await?;
        let exclusive = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        channel
            .queue_declare(queue.as_str().into(), exclusive, none.clone())
            .await?;
        let options = QueueBindOptions::default();
        channel
            .queue_bind(
                queue.as_str().into(),
                exchange.into(),
                "live.#".into(),
                options,
                none.clone(),
            )
            .await?;
        let options = BasicConsumeOptions::default();
        let mut deliveries = channel
            .basic_consume(queue.into(), "bare".into(), options, none)
            .await?;
        std::fs::write(&self.ready, "")?;
        let mut ages = Vec::new();
        loop {
            tokio::select! {
                delivery = deliveries.next() => {
                    let delivery = delivery.context("the broker ended the consumer")??;
                    ages.extend(age(&delivery.data, now()));
                    delivery.ack(BasicAckOptions::default()).await?;
                }
                () = stop.cancelled() => break,
            }
        }
        std::fs::write(&self.ages, serde_json::to_vec(&ages)?)?;
        Ok(())
    }
}

/// A running bare consumer.
pub(crate) struct Bare {
    pub(crate) group: Group,
    ages: PathBuf,
}

impl Bare {
    /// Starts it, and waits until it consumes.
    pub(crate) async fn start(scene: &Scene<'_>) -> anyhow::Result<Self> {
        let ready = scene.folder.join("bare.ready");
        let ages = scene.folder.join("bare.json");
        // Of the last turn.
        drop(std::fs::remove_file(&ready));
        let mut command = itself("bare-consumer", &scene.amqp)?;
        command.arg("--ready").arg(&ready).arg("--ages").arg(&ages);
        let log = scene.folder.join("bare.log");
        let mut group = Group::start(command, "the bare consumer", log)?;
        group.until(|| ready.exists()).await?;
        Ok(Self { group, ages })
    }

    /// Ends it; answers the ages, in nanoseconds, in the order in which the events came.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<u64>> {
        self.group.stop().await?;
        Ok(serde_json::from_slice(&std::fs::read(&self.ages)?)?)
    }
}
