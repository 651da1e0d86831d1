//! centrifuge: the library of Centrifugo, in a small server of its own.

use std::net::SocketAddr;

use serde_json::json;
use tokio::process::Command;

use super::{Server, Side, handshake, until_open};
use crate::place::free_address;
use crate::process::Group;
use crate::realtime::client::Entry;
use crate::realtime::scene::{Member, Scene};
use crate::realtime::token::SECRET;

pub(super) async fn start(scene: &Scene<'_>) -> anyhow::Result<Server> {
    let (address, publish) = (free_address()?, free_address()?);
    let mut command = Command::new(scene.peers.centrifuge()?);
    command
        .args(["-listen", &address.to_string()])
        .args(["-publish", &publish.to_string()])
        .args(["-ping", &format!("{}s", scene.ping_s)])
        .env("BELLHOP_BENCH_SECRET", SECRET);
    let log = scene.folder.join("centrifuge.log");
    let mut group = Group::start(command, "centrifuge", log)?;
    until_open(&mut group, address).await?;
    until_open(&mut group, publish).await?;
    Ok(Server {
        side: Side::Centrifuge,
        group,
        address,
        publish,
    })
}

/// The token comes in the first frame: the protocol has no other place for it.
pub(super) fn entry(address: SocketAddr, member: &Member) -> anyhow::Result<Entry> {
    let connect = json!({ "id": 1, "params": { "token": member.token()? } });
    Ok(Entry {
        request: handshake(address, "/connection/websocket", ""),
        then: Some(connect.to_string().into_bytes()),
        ready: Some(r#""client""#),
        missed: 0,
    })
}
