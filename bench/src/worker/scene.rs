//! Where one turn happens: a prefix that nothing else uses, on the scenario's broker.

use std::path::Path;

use bellhop_common::amqp::Names;
use bellhop_common::config::AmqpConfig;
use tokio::process::Command;

use super::Options;
use super::celery::Celery;
use crate::broker::Probe;
use crate::place;

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

impl<'a> Scene<'a> {
    pub(crate) async fn new(stage: Stage<'a>) -> anyhow::Result<Self> {
        let config = place::fresh(stage.url);
        Ok(Self {
            stage,
            names: Names::new(&config),
            config,
            probe: Probe::connect(stage.url).await?,
        })
    }

    /// The command that runs a part of this program here.
    pub(crate) fn itself(&self, part: &str) -> anyhow::Result<Command> {
        place::itself(part, &self.config)
    }

    /// Frees what the turn left with the broker.
    pub(crate) async fn clear(&self, queues: &[String]) -> anyhow::Result<()> {
        for queue in queues {
            self.probe.delete(queue).await?;
        }
        Ok(())
    }
}
