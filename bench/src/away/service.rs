//! Our notifier with push, mail or alerts, as a process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bellhop_common::config::{AmqpConfig, HumanDuration, Secret};
use bellhop_notifier::NotifierConfig;
use bellhop_tests::stack;
use clap::Args;
use serde_json::Value;
use tokio::time::sleep;

use crate::place::{Place, free_address, itself};
use crate::process::Group;
use crate::realtime::servers::ours;
use crate::realtime::token::{self, SECRET};

/// Who may do everything over HTTP.
const ADMINISTRATOR: &str = "bench";

/// The notifier as a process: `notifier run` with these settings.
#[derive(Debug, Args)]
pub(crate) struct Notifier {
    #[command(flatten)]
    place: Place,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// A file with the sections that the scenario is about
    #[arg(long)]
    settings: PathBuf,
}

impl Notifier {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(&self.settings).context("the settings")?;
        let mut config: NotifierConfig = toml::from_str(&text).context("the settings")?;
        config.amqp = self.place.config()?;
        config.http.listen = self.listen;
        config.auth.secret = Some(Secret::new(SECRET));
        config.auth.administrators = vec![ADMINISTRATOR.into()];
        config.websocket.drain_window = HumanDuration::from_secs(0);
        ours::serve(config).await
    }
}

/// A running notifier, and who asks it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) group: Group,
    address: SocketAddr,
    client: reqwest::Client,
}

impl Service {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(
        folder: &Path,
        amqp: &AmqpConfig,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let name = amqp.prefix.trim_end_matches('.');
        let file = folder.join(format!("{name}.toml"));
        let store = folder.join(format!("{name}.db"));
        let settings = format!(
            "{settings}\n[store]\npath = {:?}\n",
            store.display().to_string()
        );
        std::fs::write(&file, settings).context("cannot write the settings")?;
        let mut command = itself("notifier-of", amqp)?;
        command
            .args(["--listen", &address.to_string()])
            .arg("--settings")
            .arg(&file);
        let log = folder.join(format!("{name}.log"));
        let mut group = Group::start(command, "our notifier", log)?;
        group.until_ready(address).await?;
        Ok(Self {
            group,
            address,
            client: stack::http(),
        })
    }

    /// A request to its interface that has to succeed.
    pub(super) async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        user: &str,
        body: &Value,
    ) -> anyhow::Result<String> {
        let url = format!("http://{}{path}", self.address);
        let request = self.client.request(method, url);
        let request = request.bearer_auth(token::mint(user, user)?);
        let answer = request.body(body.to_string()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(text)
    }

    /// The same as an administrator.
    pub(super) async fn administer(
        &self,
        method: reqwest::Method,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<String> {
        self.ask(method, path, ADMINISTRATOR, body).await
    }

    /// Waits until something is done.
    pub(super) async fn until(
        &mut self,
        what: &str,
        patience: Duration,
        done: impl Fn() -> bool,
    ) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        while !done() {
            self.group.check()?;
            ensure!(Instant::now() < until, "{what}: not within {patience:?}");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}
