//! `notifier vapid`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bellhop_common::cli::say;
use bellhop_common::config::Secret;
use bellhop_notifier::push::VapidKey;
use clap::Args;
use p256::elliptic_curve::rand_core::OsRng;

#[derive(Debug, Args)]
pub(super) struct Vapid {
    /// Where the private key goes (PEM, PKCS#8); for `push.key_file`
    #[arg(long, value_name = "FILE", default_value = "vapid.pem")]
    out: PathBuf,
}

impl Vapid {
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let pem = VapidKey::generate(&mut OsRng).context("no key could be made")?;
        let key = VapidKey::parse(pem.expose()).context("no key could be made")?;
        write(&self.out, &pem)?;
        say(key.public());
        Ok(())
    }
}

/// Never over another file: a key that is lost takes everybody's subscriptions with it.
fn write(path: &Path, pem: &Secret) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => anyhow::anyhow!(
            "{} is there already and is left as it is: name another with --out",
            path.display()
        ),
        _ => anyhow::Error::new(error).context(format!("cannot make {}", path.display())),
    })?;
    let written = file.write_all(pem.expose().as_bytes());
    written
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}
