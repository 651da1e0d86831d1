//! Where one turn happens: a prefix that nothing else uses, on the scenario's broker.

use std::path::Path;

use anyhow::Context as _;
use bellhop_common::amqp::Names;
use bellhop_common::config::{AmqpConfig, AmqpUrl};
use tokio::process::Command;
use uuid::Uuid;

use super::Options;
use super::celery::Celery;
use crate::broker::Probe;

/// The variable that tells a part where the broker is: an argument would show its password.
const URL: &str = "BELLHOP_BENCH_AMQP_URL";

/// What all turns share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stage<'a> {
    pub(crate) options: &'a Options,
    /// The broker.
    pub(crate) url: &'a str,
    /// For logs.
    pub(crate) folder: &'a Path,
    /// If it has a turn.
    pub(crate) celery: Option<&'a Celery>,
}

/// One turn's own.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) stage: Stage<'a>,
    pub(crate) config: AmqpConfig,
    pub(crate) names: Names,
    pub(crate) probe: Probe,
}

/// Where a part finds the broker.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// What all names begin with
    #[arg(long)]
    prefix: String,
}

impl Place {
    pub(crate) fn config(self) -> anyhow::Result<AmqpConfig> {
        let url = std::env::var(URL).with_context(|| format!("{URL} is not set"))?;
        Ok(config(&url, self.prefix))
    }
}

fn config(url: &str, prefix: String) -> AmqpConfig {
    AmqpConfig {
        url: AmqpUrl::new(url),
        prefix,
        ..AmqpConfig::default()
    }
}

impl<'a> Scene<'a> {
    pub(crate) async fn new(stage: Stage<'a>) -> anyhow::Result<Self> {
        let config = config(stage.url, format!("b-{}.", Uuid::now_v7().simple()));
        Ok(Self {
            stage,
            names: Names::new(&config),
            config,
            probe: Probe::connect(stage.url).await?,
        })
    }

    /// The command that runs a part of this program here.
    pub(crate) fn itself(&self, part: &str) -> anyhow::Result<Command> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["act", part, "--prefix", &self.config.prefix])
            .env(URL, self.stage.url);
        Ok(command)
    }

    /// Frees what the turn left with the broker.
    pub(crate) async fn clear(&self, queues: &[String]) -> anyhow::Result<()> {
        for queue in queues {
            self.probe.delete(queue).await?;
        }
        Ok(())
    }
}
