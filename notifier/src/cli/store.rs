//! `notifier store`.

use std::path::PathBuf;

use anyhow::Context as _;
use bellhop_common::cli::say;
use bellhop_common::config::{ConfigFlags, Sources};
use bellhop_notifier::store::{backup, check, vacuum};
use bellhop_notifier::{NotifierConfig, StoreKind};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// See whether the file is sound; exit with 1 if it is not
    Check {
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Copy the file, also while the notifier runs
    Backup {
        /// Where to; there must be no file yet
        copy: PathBuf,
        #[command(flatten)]
        config: ConfigFlags,
    },
    /// Give the room of what was removed back to the system, while no notifier runs
    Vacuum {
        #[command(flatten)]
        config: ConfigFlags,
    },
}

impl Store {
    pub(super) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Check { config } => {
                let path = path(&config)?;
                let found = check(&path)?;
                for line in &found {
                    say(line);
                }
                let count = found.len();
                anyhow::ensure!(count == 0, "{}: {count} things are wrong", path.display());
                say(&format!("{}: sound", path.display()));
            }
            Self::Backup { copy, config } => {
                let path = path(&config)?;
                backup(&path, &copy)?;
                say(&format!("copied {} to {}", path.display(), copy.display()));
            }
            Self::Vacuum { config } => {
                let path = path(&config)?;
                let before = std::fs::metadata(&path)?.len();
                vacuum(&path)?;
                let after = std::fs::metadata(&path)?.len();
                say(&format!("{}: {before} bytes, now {after}", path.display()));
            }
        }
        Ok(())
    }
}

fn path(config: &ConfigFlags) -> anyhow::Result<PathBuf> {
    let config: NotifierConfig = Sources::of_process(config).load()?;
    anyhow::ensure!(
        config.store.kind == StoreKind::Sqlite,
        "store.kind is not \"sqlite\": there is no file; Redis has commands of its own"
    );
    let path = config.store.path;
    let is_there = path.try_exists();
    anyhow::ensure!(
        is_there.with_context(|| format!("cannot look for {}", path.display()))?,
        "there is no file {}: store.path says where it is",
        path.display()
    );
    Ok(path)
}
