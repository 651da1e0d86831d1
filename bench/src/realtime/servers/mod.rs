//! The servers that are compared, each as a process of its own.

mod centrifuge;
mod nchan;
pub(crate) mod ours;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use bellhop_notifier::store::Position;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::client::Entry;
use super::publish::Publisher;
use super::scene::{Member, Scene};
use super::storage::Storage;
use crate::process::Group;

const READY: Duration = Duration::from_secs(20);

/// Who has a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Side {
    /// Our notifier.
    #[value(skip)]
    Ours,
    Centrifuge,
    Nchan,
}

impl Side {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Centrifuge => "centrifuge",
            Self::Nchan => "nchan",
        }
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) side: Side,
    pub(crate) group: Group,
    /// Where clients connect.
    pub(crate) address: SocketAddr,
    /// Where publications go, unless to the broker.
    publish: SocketAddr,
}

impl Server {
    /// Starts it, and waits until it is ready.
    pub(crate) async fn start(scene: &Scene<'_>, side: Side) -> anyhow::Result<Self> {
        match side {
            Side::Ours => ours::start(scene, None).await,
            Side::Centrifuge => centrifuge::start(scene).await,
            Side::Nchan => nchan::start(scene).await,
        }
    }

    /// Our notifier with a store.
    pub(crate) async fn keeping(scene: &Scene<'_>, storage: &Storage) -> anyhow::Result<Self> {
        ours::start(scene, Some(storage)).await
    }

    /// How a member comes back to our notifier, who is to be shown so many events that came after
    /// a position.
    pub(crate) fn return_of(
        &self,
        member: &Member,
        since: Position,
        missed: u32,
    ) -> anyhow::Result<Entry> {
        ours::return_of(self.address, member, since, missed)
    }

    /// How a member gets in.
    pub(crate) fn entry(&self, member: &Member) -> anyhow::Result<Entry> {
        match self.side {
            Side::Ours => ours::entry(self.address, member),
            Side::Centrifuge => centrifuge::entry(self.address, member),
            Side::Nchan => Ok(nchan::entry(self.address, member)),
        }
    }

    pub(crate) async fn publisher(&self, scene: &Scene<'_>) -> anyhow::Result<Publisher> {
        match self.side {
            Side::Ours => Publisher::amqp(&scene.amqp).await,
            Side::Centrifuge => Publisher::lines(self.publish).await,
            Side::Nchan => Publisher::http(self.publish).await,
        }
    }
}

/// An upgrade request; `more` are header lines with their ends.
fn handshake(address: SocketAddr, path: &str, more: &str) -> Vec<u8> {
    // The key is fixed: nobody here checks the answer to it.
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Waits until a port is open.
pub(super) async fn until_open(group: &mut Group, address: SocketAddr) -> anyhow::Result<()> {
    let until = Instant::now() + READY;
    while !matches!(timeout(READY, TcpStream::connect(address)).await, Ok(Ok(_))) {
        group.check()?;
        if Instant::now() > until {
            bail!("nothing listens on {address} after {READY:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
