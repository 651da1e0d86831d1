//! nchan: nginx with a module that holds channels. It knows no tokens.

use std::net::SocketAddr;

use tokio::process::Command;

use super::{Server, Side, handshake, until_open};
use crate::machine::cores;
use crate::place::free_address;
use crate::process::Group;
use crate::realtime::client::Entry;
use crate::realtime::limits;
use crate::realtime::peers::nginx_conf;
use crate::realtime::scene::{Member, Scene};

pub(super) async fn start(scene: &Scene<'_>) -> anyhow::Result<Server> {
    let address = free_address()?;
    let file = scene.folder.join("nginx.conf");
    let conf = nginx_conf(&[
        ("workers", &cores().to_string()),
        ("files", &limits::files().to_string()),
        ("folder", &scene.folder.display().to_string()),
        ("listen", &address.to_string()),
        ("ping", &scene.ping_s.to_string()),
    ])?;
    std::fs::write(&file, conf)?;
    let mut command = Command::new(scene.peers.nginx()?);
    command
        .arg("-p")
        .arg(scene.folder)
        .arg("-c")
        .arg(&file)
        .args(["-e", "stderr"]);
    let mut group = Group::start(command, "nginx", scene.folder.join("nginx.log"))?;
    until_open(&mut group, address).await?;
    Ok(Server {
        side: Side::Nchan,
        group,
        address,
        publish: address,
    })
}

pub(super) fn entry(address: SocketAddr, member: &Member) -> Entry {
    let path = format!("/ws?id={}", member.channel());
    Entry {
        request: handshake(address, &path, ""),
        then: None,
        ready: None,
        missed: 0,
    }
}
