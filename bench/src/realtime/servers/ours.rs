//! Our side: the real notifier.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use bellhop_common::cli::health_check;
use bellhop_common::config::{HumanDuration, LogConfig, Secret};
use bellhop_common::shutdown;
use bellhop_common::telemetry::init_logs;
use bellhop_notifier::{NotifierConfig, StoreKind};
use clap::Args;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::{READY, Server, Side, handshake};
use crate::place::{Place, free_address, itself};
use crate::process::Group;
use crate::realtime::client::Entry;
use crate::realtime::scene::{Member, Scene};
use crate::realtime::token::SECRET;

/// The notifier as a process: `notifier run` with these settings.
#[derive(Debug, Args)]
pub(crate) struct Notifier {
    #[command(flatten)]
    place: Place,
    /// Where it listens
    #[arg(long)]
    listen: SocketAddr,
    /// `websocket.ping_interval`, in seconds
    #[arg(long)]
    ping: u64,
}

impl Notifier {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut config = NotifierConfig {
            amqp: self.place.config()?,
            ..NotifierConfig::default()
        };
        config.http.listen = self.listen;
        // What is measured is not kept; `stored` measures what is.
        config.store.kind = StoreKind::None;
        config.auth.secret = Some(Secret::new(SECRET));
        config.websocket.ping_interval = HumanDuration::from_secs(self.ping);
        config.websocket.pong_wait = HumanDuration::from_secs(self.ping * 2);
        // As centrifuge does unless it is asked to: what is counted is publications.
        config.rooms.announce_up_to = 0;
        config.shutdown.deadline = HumanDuration::from_secs(10);
        init_logs(&LogConfig {
            level: "warn".into(),
            ..LogConfig::default()
        })?;
        let listener = TcpListener::bind(self.listen).await?;
        let stop = shutdown::on_signal(|| {})?;
        Ok(bellhop_notifier::run(listener, config, stop).await?)
    }
}

pub(super) async fn start(scene: &Scene<'_>) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = itself("notifier", &scene.amqp)?;
    command
        .args(["--listen", &address.to_string()])
        .args(["--ping", &scene.ping_s.to_string()]);
    let log = scene.folder.join("notifier.log");
    let mut group = Group::start(command, "our notifier", log)?;
    let until = Instant::now() + READY;
    while let Err(error) = health_check(address).await {
        group.check()?;
        if Instant::now() > until {
            bail!("our notifier is not ready after {READY:?}: {error}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(Server {
        side: Side::Ours,
        group,
        address,
        publish: address,
    })
}

pub(super) fn entry(address: SocketAddr, member: &Member) -> anyhow::Result<Entry> {
    let authorization = format!("Authorization: Bearer {}\r\n", member.token()?);
    let (path, ready) = match &member.room {
        Some(room) => (format!("/ws?room_id={room}"), r#""subscribed""#),
        None => ("/ws".to_owned(), r#""connected""#),
    };
    Ok(Entry {
        request: handshake(address, &path, &authorization),
        then: None,
        ready: Some(ready),
    })
}
