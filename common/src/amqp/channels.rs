//! What a publishing connection is asked for besides publishing.

use std::sync::Arc;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection};

use super::topology::Topology;

/// Opens the channels of one connection.
#[derive(Debug)]
pub(super) struct Channels {
    connection: Arc<Connection>,
    generation: u64,
}

impl Channels {
    pub(super) const fn new(connection: Arc<Connection>, generation: u64) -> Self {
        Self {
            connection,
            generation,
        }
    }

    /// Which connection of its publisher this is, from 1.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the connection still takes messages.
    pub(super) fn are_sound(&self) -> bool {
        self.connection.status().connected()
    }

    /// On a channel of its own, because a refusal closes it.
    pub(super) async fn declare(&self, topology: &Topology) -> lapin::Result<()> {
        let channel = self.connection.create_channel().await?;
        topology.declare(&channel).await
    }

    /// A channel with confirms for somebody's own use, closed when dropped.
    pub(super) async fn fresh(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(channel)
    }
}
