//! Where a part of the program that runs as a process of its own finds the others.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use bellhop_common::config::{AmqpConfig, AmqpUrl};
use tokio::process::Command;
use uuid::Uuid;

/// The variable that tells a part where the broker is: an argument would show its password.
const URL: &str = "BELLHOP_BENCH_AMQP_URL";

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

/// A prefix that nothing else uses, on a broker.
pub(crate) fn fresh(url: &str) -> AmqpConfig {
    config(url, format!("b-{}.", Uuid::now_v7().simple()))
}

fn config(url: &str, prefix: String) -> AmqpConfig {
    AmqpConfig {
        url: AmqpUrl::new(url),
        prefix,
        ..AmqpConfig::default()
    }
}

/// The command that runs a part of this program there.
pub(crate) fn itself(part: &str, config: &AmqpConfig) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command
        .args(["act", part, "--prefix", &config.prefix])
        .env(URL, config.url.expose());
    Ok(command)
}

/// A loopback address that was free a moment ago, below the range from which outgoing connections
/// take their ports: there may be very many of those.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    // Not always the same first, so that two programs rarely try the same.
    let first = 15_000 + u16::try_from(Uuid::new_v4().as_u128() % 16_000)?;
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut ports = (first..31_000).chain(15_000..first);
    ports
        .find(|&port| TcpListener::bind(address(port)).is_ok())
        .map(address)
        .context("no free port")
}
