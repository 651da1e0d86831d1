//! What our worker publishes for one job, taken from the broker, so that the bare loop publishes
//! exactly that, whatever the worker's version.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use bellhop_common::wire::Event;
use lapin::options::{BasicGetOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::ours::{self, NOOP};
use super::scene::Scene;

/// How long the job may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One message that the worker publishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) key: String,
    pub(crate) body: String,
    pub(crate) persistent: bool,
    pub(crate) message_id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Sample {
    /// Final events are published `mandatory`.
    pub(crate) fn is_final(&self) -> bool {
        self.key.starts_with("stored.")
    }
}

/// Lets our worker declare its queues and run one job, and answers what it published for it.
pub(crate) async fn take(scene: &Scene<'_>, queue: &str) -> anyhow::Result<Vec<Sample>> {
    let worker = ours::start(scene, &[queue.to_owned()], 1).await?;
    let own = format!("{}sample", scene.config.prefix);
    let channel = &scene.probe.channel;
    let arguments = FieldTable::default();
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(own.as_str().into(), exclusive, arguments.clone())
        .await?;
    let (exchange, options) = (scene.names.events(), QueueBindOptions::default());
    channel
        .queue_bind(
            own.as_str().into(),
            exchange.into(),
            "#".into(),
            options,
            arguments,
        )
        .await?;
    ours::enqueue(scene, queue, NOOP, 1).await?;
    let samples = until_final(scene, &own).await?;
    worker.stop().await?;
    scene.probe.delete(&own).await?;
    Ok(samples)
}

async fn until_final(scene: &Scene<'_>, queue: &str) -> anyhow::Result<Vec<Sample>> {
    let mut samples: Vec<Sample> = Vec::new();
    let until = Instant::now() + PATIENCE;
    while !samples.iter().any(Sample::is_final) {
        let options = BasicGetOptions { no_ack: true };
        let Some(got) = scene.probe.channel.basic_get(queue.into(), options).await? else {
            if Instant::now() > until {
                bail!("our worker told no end of a job within {PATIENCE:?}");
            }
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        let delivery = got.delivery;
        Event::parse(&delivery.data)?;
        let properties = &delivery.properties;
        let headers = properties.headers().iter().flat_map(FieldTable::inner);
        samples.push(Sample {
            key: delivery.routing_key.to_string(),
            body: String::from_utf8(delivery.data)?,
            persistent: *properties.delivery_mode() == Some(2),
            message_id: properties.message_id().as_ref().map(ToString::to_string),
            kind: properties.kind().as_ref().map(ToString::to_string),
            headers: headers
                .filter_map(|(name, value)| match value {
                    AMQPValue::LongString(text) => Some((name.to_string(), text.to_string())),
                    _ => None,
                })
                .collect(),
        });
    }
    Ok(samples)
}
