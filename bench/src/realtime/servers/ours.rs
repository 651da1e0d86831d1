//! Our side: the real notifier.

use std::net::SocketAddr;
use std::path::PathBuf;

use bellhop_common::config::{HumanDuration, LogConfig, Secret};
use bellhop_common::telemetry::init_logs;
use bellhop_common::{http, shutdown};
use bellhop_notifier::store::Position;
use bellhop_notifier::{NotifierConfig, StoreConfig, StoreKind};
use clap::Args;
use uuid::Uuid;

use super::{Server, Side, handshake};
use crate::place::{Place, free_address, itself};
use crate::process::Group;
use crate::realtime::client::Entry;
use crate::realtime::scene::{Member, Scene};
use crate::realtime::storage::Storage;
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
    /// `store.path`; nothing is kept if this and the next are not given
    #[arg(long)]
    sqlite: Option<PathBuf>,
    /// `store.url`
    #[arg(long)]
    redis: Option<String>,
}

impl Notifier {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut config = NotifierConfig {
            amqp: self.place.config()?,
            ..NotifierConfig::default()
        };
        config.http.listen = self.listen;
        config.store = store(self.sqlite, self.redis);
        config.auth.secret = Some(Secret::new(SECRET));
        config.websocket.ping_interval = HumanDuration::from_secs(self.ping);
        config.websocket.pong_wait = HumanDuration::from_secs(self.ping * 2);
        // As centrifuge does unless it is asked to: what is counted is publications.
        config.rooms.announce_up_to = 0;
        config.shutdown.deadline = HumanDuration::from_secs(10);
        serve(config).await
    }
}

/// Runs it until this process is told to end.
pub(crate) async fn serve(config: NotifierConfig) -> anyhow::Result<()> {
    init_logs(&LogConfig {
        level: "warn".into(),
        ..LogConfig::default()
    })?;
    let listener = http::listen(config.http.listen)?;
    let stop = shutdown::on_signal(|| {})?;
    Ok(bellhop_notifier::run(listener, config, stop).await?)
}

fn store(sqlite: Option<PathBuf>, redis: Option<String>) -> StoreConfig {
    let mut config = StoreConfig {
        kind: StoreKind::None,
        ..StoreConfig::default()
    };
    if let Some(path) = sqlite {
        (config.kind, config.path) = (StoreKind::Sqlite, path);
    } else if let Some(url) = redis {
        (config.kind, config.url) = (StoreKind::Redis, Some(Secret::new(url)));
    }
    config
}

/// Without storage it has a file of its own, as it has by default.
pub(super) async fn start(scene: &Scene<'_>, storage: Option<&Storage>) -> anyhow::Result<Server> {
    let address = free_address()?;
    let mut command = itself("notifier", &scene.amqp)?;
    command
        .args(["--listen", &address.to_string()])
        .args(["--ping", &scene.ping_s.to_string()])
        .args(storage.map_or_else(|| own_file(scene), Storage::arguments));
    let log = scene.folder.join("notifier.log");
    let mut group = Group::start(command, "our notifier", log)?;
    group.until_ready(address).await?;
    Ok(Server {
        side: Side::Ours,
        group,
        address,
        publish: address,
    })
}

fn own_file(scene: &Scene<'_>) -> Vec<String> {
    let path = scene.folder.join(format!("{}.db", Uuid::now_v7()));
    vec!["--sqlite".into(), path.display().to_string()]
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
        missed: 0,
    })
}

/// It is in when it is told that all of that was recovered.
pub(super) fn return_of(
    address: SocketAddr,
    member: &Member,
    since: Position,
    missed: u32,
) -> anyhow::Result<Entry> {
    let authorization = format!("Authorization: Bearer {}\r\n", member.token()?);
    let path = format!("/ws?since=user.{}.{}", since.epoch, since.seq);
    Ok(Entry {
        request: handshake(address, &path, &authorization),
        then: None,
        ready: Some(r#""recovered":true"#),
        missed,
    })
}
