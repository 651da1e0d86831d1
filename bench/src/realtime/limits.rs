//! How many files a process may open.

use anyhow::ensure;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Those of a process besides the connections.
const SPARE: u64 = 200;
/// From one address to one port. Linux gives outgoing connections 28,232 ports by default.
const PORTS: u64 = 28_000;

/// Raises the limit as far as it goes, for this process and what it starts, and makes sure that so
/// many connections fit, on both ends.
pub(crate) fn raise(connections: u64) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let most = (files() - SPARE.min(files())).min(PORTS);
    ensure!(
        connections <= most,
        "{connections} connections are more than {most}, which is what open files (ulimit -Hn) and \
         ports allow"
    );
    Ok(())
}

/// How many there may be now.
pub(crate) fn files() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(1 << 20)
}
