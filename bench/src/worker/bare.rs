//! The bare lapin loop: the broker work of a job and nothing else.
//!
//! No job is read, no handler called, no event written: each delivery publishes the same bytes
//! that our worker once published, waits for their confirms and is acknowledged. As many at once
//! as the prefetch allows, all in one task, because that is the least work.

use std::path::PathBuf;

use anyhow::Context as _;
use bellhop_common::amqp::Names;
use bellhop_common::shutdown;
use clap::Args;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, future::try_join_all};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use super::sample::Sample;
use super::scene::Scene;
use crate::place::Place;
use crate::process::Group;

/// The version in `Cargo.lock`, found when this is compiled.
pub(crate) const LAPIN: &str = env!("LAPIN_VERSION");

/// The loop as a process.
#[derive(Debug, Args)]
pub(crate) struct Bare {
    #[command(flatten)]
    place: Place,
    /// How many messages it holds at once
    #[arg(long)]
    prefetch: u16,
    /// What to publish for each, as JSON
    #[arg(long)]
    samples: PathBuf,
    /// The queue
    queue: String,
}

/// A message as lapin takes it.
struct Ready {
    key: String,
    options: BasicPublishOptions,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl Bare {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.config()?;
        let samples: Vec<Sample> = serde_json::from_slice(&std::fs::read(&self.samples)?)?;
        let messages: Vec<_> = samples.into_iter().map(Ready::from).collect();
        let names = Names::new(&config);
        let exchange = names.events();
        // Two connections, as our worker has: each is a thread of lapin's.
        let publishing = connect(config.url.expose()).await?;
        let out = publishing.create_channel().await?;
        out.confirm_select(ConfirmSelectOptions::default()).await?;
        let consuming = connect(config.url.expose()).await?;
        let channel = consuming.create_channel().await?;
        channel
            .basic_qos(self.prefetch, BasicQosOptions::default())
            .await?;
        let queue = names.job_queue(&self.queue);
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let deliveries = channel
            .basic_consume(queue.into(), "bare".into(), options, arguments)
            .await?;
        let stop = shutdown::on_signal(|| {})?;
        tokio::select! {
            ended = work(&out, &exchange, &messages, deliveries) => ended,
            () = stop.cancelled() => Ok(()),
        }
    }
}

async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await
}

async fn work(
    out: &Channel,
    exchange: &str,
    messages: &[Ready],
    mut deliveries: Consumer,
) -> anyhow::Result<()> {
    let mut in_hand = FuturesUnordered::new();
    loop {
        tokio::select! {
            delivery = deliveries.next() => {
                let delivery = delivery.context("the broker ended the consumer")??;
                in_hand.push(settle(out, exchange, messages, delivery));
            }
            Some(settled) = in_hand.next() => settled?,
        }
    }
}

async fn settle(
    out: &Channel,
    exchange: &str,
    messages: &[Ready],
    delivery: Delivery,
) -> lapin::Result<()> {
    try_join_all(messages.iter().map(|message| async move {
        out.basic_publish(
            exchange.into(),
            message.key.as_str().into(),
            message.options,
            &message.body,
            message.properties.clone(),
        )
        .await?
        .await
    }))
    .await?;
    delivery.ack(BasicAckOptions::default()).await?;
    Ok(())
}

impl From<Sample> for Ready {
    fn from(sample: Sample) -> Self {
        let mut properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(if sample.persistent { 2 } else { 1 });
        let mandatory = sample.is_final();
        if let Some(id) = sample.message_id {
            properties = properties.with_message_id(id.into());
        }
        if let Some(kind) = sample.kind {
            properties = properties.with_type(kind.into());
        }
        if !sample.headers.is_empty() {
            let mut headers = FieldTable::default();
            for (name, value) in sample.headers {
                headers.insert(name.into(), AMQPValue::LongString(value.into()));
            }
            properties = properties.with_headers(headers);
        }
        Self {
            key: sample.key,
            options: BasicPublishOptions {
                mandatory,
                immediate: false,
            },
            properties,
            body: sample.body.into_bytes(),
        }
    }
}

/// Starts it; it takes jobs as soon as it is connected.
pub(crate) fn start(scene: &Scene<'_>, queue: &str, samples: &[Sample]) -> anyhow::Result<Group> {
    let file = scene.stage.folder.join("samples.json");
    std::fs::write(&file, serde_json::to_vec(samples)?)?;
    let mut command = scene.itself("bare")?;
    command
        .args(["--prefetch", &scene.stage.options.prefetch.to_string()])
        .arg("--samples")
        .arg(file)
        .arg(queue);
    let log = scene.stage.folder.join("bare.log");
    Group::start(command, "the bare loop", log)
}
