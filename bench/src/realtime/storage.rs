//! What a notifier keeps stored events in: a fresh store for each turn.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bellhop_notifier::StoreConfig;
use bellhop_notifier::store::{Redis, SharedStore, Sqlite};
use tokio::process::Command;
use uuid::Uuid;

use super::progress;
use super::servers::until_open;
use crate::place::free_address;
use crate::process::Group;

const SERVER: &str = "redis-server";
const PLACES: [&str; 3] = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Redis,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Redis => "Redis",
        }
    }

    /// Those that this machine has; says which it has not.
    pub(crate) fn here() -> Vec<Self> {
        let mut kinds = vec![Self::Sqlite];
        if redis_server().is_some() {
            kinds.push(Self::Redis);
        } else {
            progress(
                "Redis is left out: there is no redis-server (on Debian: apt-get install redis-server)",
            );
        }
        kinds
    }
}

fn redis_server() -> Option<PathBuf> {
    let mut files = PLACES.iter().map(|place| Path::new(place).join(SERVER));
    files.find(|file| file.exists())
}

/// An empty store, in a folder of its own that ends with it.
#[derive(Debug)]
pub(crate) struct Storage {
    folder: PathBuf,
    redis: Option<(Group, SocketAddr)>,
}

impl Storage {
    pub(crate) async fn start(within: &Path, kind: Kind) -> anyhow::Result<Self> {
        let folder = within.join(format!("store-{}", Uuid::now_v7().simple()));
        std::fs::create_dir(&folder)?;
        let redis = match kind {
            Kind::Sqlite => None,
            Kind::Redis => Some(start_redis(&folder).await?),
        };
        Ok(Self { folder, redis })
    }

    /// The file of the embedded store.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("bellhop.db")
    }

    fn url(&self) -> Option<String> {
        let (_, address) = self.redis.as_ref()?;
        Some(format!("redis://{address}"))
    }

    /// What tells the notifier's process where it is.
    pub(crate) fn arguments(&self) -> Vec<String> {
        match self.url() {
            Some(url) => vec!["--redis".into(), url],
            None => vec!["--sqlite".into(), self.file().display().to_string()],
        }
    }

    /// Opens it here, as a notifier does.
    pub(crate) fn open(&self) -> anyhow::Result<SharedStore> {
        let config = StoreConfig::default();
        let retention = config.retention();
        Ok(match self.url() {
            Some(url) => Arc::new(Redis::open(&url, &config.prefix, retention)?),
            None => Arc::new(Sqlite::open(&self.file(), retention)?),
        })
    }

    /// What Redis has resident, in bytes.
    pub(crate) fn resident(&self) -> Option<u64> {
        let (server, _) = self.redis.as_ref()?;
        Some(server.usage().resident_kib * 1024)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        match self.redis.take() {
            Some((server, _)) => server.stop().await,
            None => Ok(()),
        }
    }
}

/// The next turn needs the room on the disk.
impl Drop for Storage {
    fn drop(&mut self) {
        drop(self.redis.take());
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// As the documentation asks for: a log that is written to disk each second.
async fn start_redis(folder: &Path) -> anyhow::Result<(Group, SocketAddr)> {
    let address = free_address()?;
    let mut command = Command::new(redis_server().context("there is no redis-server")?);
    command
        .args(["--bind", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .args(["--appendonly", "yes", "--appendfsync", "everysec"])
        .args(["--save", "", "--dir"])
        .arg(folder);
    let mut group = Group::start(command, SERVER, folder.join("redis.log"))?;
    until_open(&mut group, address).await?;
    Ok((group, address))
}
