//! The broker alone: the same messages through the same queue to a loop that does nothing with them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use bellhop_common::amqp::{Names, Publisher, Topology};
use bellhop_common::shutdown;
use bellhop_common::telemetry::Health;
use clap::Args;
use futures_util::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use tokio::time::{sleep, timeout};

use crate::place::{Place, itself};
use crate::process::Group;
use crate::realtime::client::now;
use crate::realtime::scene::Scene;

/// As many as our notifier takes at once.
const PREFETCH: u16 = 2000;
/// As many as it acknowledges together at most.
const TOGETHER: usize = 500;
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is seen whether the end has come. The end is stamped by who sees it.
const LOOK: Duration = Duration::from_millis(10);

/// The loop as a process. It ends on SIGTERM.
#[derive(Debug, Args)]
pub(crate) struct BareInbox {
    #[command(flatten)]
    place: Place,
    /// A file that is there once it consumes
    #[arg(long)]
    ready: PathBuf,
    /// How many messages come
    #[arg(long)]
    count: u32,
    /// A file that is there once they have come, with the time
    #[arg(long)]
    done: PathBuf,
}

impl BareInbox {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let config = self.place.clone().config()?;
        let stop = shutdown::on_signal(|| {})?;
        let names = Names::new(&config);
        // What our services declare, so that the queue has the arguments that it really has.
        let declared = Health::new().component("declared");
        let topology = Topology::base(&names);
        let (_publisher, task) = Publisher::start(&config, "bare", topology, declared.clone());
        let declaring = async {
            while !declared.is_up() {
                sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, declaring)
            .await
            .context("the broker does not declare the inbox")?;
        let properties = ConnectionProperties::default().with_connection_name("bare".into());
        let connection = Connection::connect(config.url.expose(), properties).await?;
        let channel = connection.create_channel().await?;
        let options = BasicQosOptions::default();
        channel.basic_qos(PREFETCH, options).await?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let deliveries = channel
            .basic_consume(names.inbox().into(), "bare".into(), options, arguments)
            .await?;
        std::fs::write(&self.ready, "")?;
        tokio::select! {
            taken = self.take(deliveries) => taken?,
            () = stop.cancelled() => {}
        }
        stop.cancelled().await;
        task.close().await;
        Ok(())
    }

    async fn take(&self, deliveries: lapin::Consumer) -> anyhow::Result<()> {
        let mut left = self.count as usize;
        let mut batches = deliveries.ready_chunks(TOGETHER);
        while left > 0 {
            let batch = batches.next().await;
            let batch = batch.context("the broker ended the consumer")?;
            left = left.saturating_sub(batch.len());
            if let Some(last) = batch.into_iter().last() {
                last?.ack(BasicAckOptions { multiple: true }).await?;
            }
        }
        // In one step, so that nobody reads half of it.
        let unfinished = self.done.with_extension("part");
        std::fs::write(&unfinished, now().to_string())?;
        std::fs::rename(unfinished, &self.done)?;
        Ok(())
    }
}

/// A running loop.
pub(crate) struct Bare {
    pub(crate) group: Group,
    done: PathBuf,
}

impl Bare {
    /// Starts it, and waits until it consumes.
    pub(crate) async fn start(scene: &Scene<'_>, count: u32) -> anyhow::Result<Self> {
        let [ready, done] =
            ["ready", "done"].map(|what| scene.folder.join(format!("inbox.{what}")));
        // Of the last turn.
        drop(std::fs::remove_file(&ready));
        drop(std::fs::remove_file(&done));
        let mut command = itself("bare-inbox", &scene.amqp)?;
        command.args(["--count", &count.to_string()]);
        command.arg("--ready").arg(&ready).arg("--done").arg(&done);
        let log = scene.folder.join("inbox.log");
        let mut group = Group::start(command, "the bare loop", log)?;
        group.until(|| ready.exists()).await?;
        Ok(Self { group, done })
    }

    /// Waits until everything has come; answers when.
    pub(crate) async fn end(&mut self, patience: Duration) -> anyhow::Result<u64> {
        let waiting = async {
            while !self.done.exists() {
                self.group.check()?;
                sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        timeout(patience, waiting)
            .await
            .context("messages are missing")??;
        Ok(std::fs::read_to_string(&self.done)?.parse()?)
    }
}
