//! Fills a queue, as fast as confirms allow.

use bellhop_common::amqp::{Message, Publisher, Route, Topology};
use bellhop_common::config::AmqpConfig;
use bellhop_common::telemetry::Component;
use futures_util::{StreamExt as _, TryStreamExt as _};

/// How many messages wait for their confirm at once.
const IN_FLIGHT: usize = 1000;

/// Publishes `count` messages, and returns when the broker keeps them all.
pub(crate) async fn fill(
    config: &AmqpConfig,
    topology: Topology,
    route: Route<'_>,
    count: u32,
    message: impl Fn() -> anyhow::Result<Message>,
) -> anyhow::Result<()> {
    let (publisher, task) = Publisher::start(config, "bench load", topology, Component::default());
    let publishing = futures_util::stream::iter(0..count).map(|_| {
        let (message, publisher) = (message(), &publisher);
        async move { anyhow::Ok(publisher.publish(route, &message?).await?) }
    });
    let filled = publishing
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await;
    task.close().await;
    filled
}
