//! A Redis Cluster of a test's own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::broker;
use crate::stack::Folder;

/// How many primaries there are.
const PRIMARIES: u16 = 3;

const SLOTS: u32 = 16_384;

/// How far above its port a server listens for the others.
const BUS: u16 = 10_000;

/// Primaries that share the slots and keep nothing on disk. Gone when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<(Child, u16)>,
    _folder: Folder,
}

impl RedisCluster {
    /// Its servers run; it begins in two seconds.
    pub fn starting() -> Self {
        let folder = Folder::new();
        let ports: Vec<_> = (0..PRIMARIES).map(|_| free_port()).collect();
        let servers = (0..PRIMARIES).zip(&ports).map(|(number, port)| {
            let own = folder.0.join(number.to_string());
            std::fs::create_dir(&own).unwrap();
            std::fs::write(own.join("nodes.conf"), members(&ports, number)).unwrap();
            let server = Command::new("redis-server")
                .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
                .args(["--cluster-enabled", "yes", "--save", ""])
                .arg("--dir")
                .arg(own)
                .stdout(Stdio::null())
                .spawn();
            (server.unwrap(), *port)
        });
        Self {
            servers: servers.collect(),
            _folder: folder,
        }
    }

    /// The addresses of all.
    pub fn urls(&self) -> String {
        let urls = self.servers.iter();
        let urls: Vec<_> = urls
            .map(|(_, port)| format!("redis://127.0.0.1:{port}"))
            .collect();
        urls.join(",")
    }

    /// How many keys each server has.
    pub fn keys(&self) -> Vec<u64> {
        let count = |port| {
            let mut server = TcpStream::connect(("127.0.0.1", port)).unwrap();
            server.write_all(b"DBSIZE\r\n").unwrap();
            let mut answer = String::new();
            BufReader::new(server).read_line(&mut answer).unwrap();
            answer.trim_start_matches(':').trim().parse().unwrap()
        };
        self.servers.iter().map(|(_, port)| count(*port)).collect()
    }
}

impl Drop for RedisCluster {
    fn drop(&mut self) {
        for (server, _) in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
    }
}

/// What a server keeps of its cluster, so that they need not be introduced to each other
/// (<https://redis.io/docs/latest/commands/cluster-nodes/>).
fn members(ports: &[u16], own: u16) -> String {
    let member = |(number, port): (u16, &u16)| {
        let flags = if number == own { "myself," } else { "" };
        let first = |number| u32::from(number) * SLOTS / u32::from(PRIMARIES);
        format!(
            "{number:040x} 127.0.0.1:{port}@{bus} {flags}master - 0 0 {epoch} connected {from}-{to}",
            bus = port + BUS,
            epoch = number + 1,
            from = first(number),
            to = first(number + 1) - 1,
        )
    };
    let mut lines: Vec<_> = (0..).zip(ports).map(member).collect();
    lines.push(format!("vars currentEpoch {PRIMARIES} lastVoteEpoch 0\n"));
    lines.join("\n")
}

fn free_port() -> u16 {
    loop {
        let port = broker::free_port();
        // Outgoing connections take theirs from there on.
        let is_below = port + BUS < 32_768;
        if is_below && TcpListener::bind(("127.0.0.1", port + BUS)).is_ok() {
            return port;
        }
    }
}
