//! Network namespaces: a program with a network of its own, and a link to ours that can be cut so that
//! packets are lost.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// A namespace with one link. It goes when dropped.
pub struct Network {
    name: String,
    /// Our end of the link.
    link: String,
    pub ours: Ipv4Addr,
    pub theirs: Ipv4Addr,
}

impl Network {
    pub fn new() -> Self {
        // A name of a link has 15 letters at most.
        let (number, ..) = Uuid::new_v4().as_fields();
        let (name, link) = (format!("bellhop-{number:08x}"), format!("bh{number:08x}"));
        // Four addresses of 10.128.0.0/9.
        let first = (10 << 24) | (1 << 23) | ((number & 0x001f_ffff) << 2);
        let network = Self {
            name,
            link,
            ours: Ipv4Addr::from(first + 1),
            theirs: Ipv4Addr::from(first + 2),
        };
        network.build();
        network
    }

    fn build(&self) {
        let Self {
            name,
            link,
            ours,
            theirs,
        } = self;
        for command in [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name eth0 netns {name}"),
            format!("addr add {ours}/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add {theirs}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
            format!("-n {name} link set lo up"),
        ] {
            let errors = ip(&command);
            assert!(
                errors.is_empty(),
                "ip {command}: {errors}; this test needs iproute2 and root (CAP_NET_ADMIN, CAP_SYS_ADMIN)"
            );
        }
    }

    /// The command by which a program is started that has this network.
    pub fn inside(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.name].map(Into::into).to_vec()
    }

    /// From now on nothing arrives on either side, and nobody is told.
    pub fn cut(&self) {
        assert_eq!(ip(&format!("link set {} down", self.link)), "");
    }

    /// The link works again.
    pub fn join(&self) {
        assert_eq!(ip(&format!("link set {} up", self.link)), "");
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The other end goes with it.
        ip(&format!("link del {}", self.link));
        ip(&format!("netns del {}", self.name));
    }
}

/// Runs `ip`; what it complains of.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    match output {
        Ok(output) if output.status.success() => String::new(),
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned() + ".",
        Err(error) => error.to_string(),
    }
}

/// The way from a network to a service on our loopback. Ends when dropped.
pub struct Door {
    pub address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Door {
    /// To `host:port`, or to a socket if it begins with a slash.
    pub async fn open(network: &Network, target: String) -> Self {
        let listener = TcpListener::bind((network.ours, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                passing.spawn(pass(near, target.clone()));
            }
        });
        Self {
            address,
            _serving: AbortOnDropHandle::new(serving),
        }
    }
}

/// Its end is both connections', as if there was nothing between.
async fn pass(mut near: TcpStream, target: String) {
    drop(near.set_nodelay(true));
    if target.starts_with('/') {
        if let Ok(mut far) = UnixStream::connect(&target).await {
            drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
        }
    } else if let Ok(mut far) = TcpStream::connect(&target).await {
        drop(far.set_nodelay(true));
        drop(tokio::io::copy_bidirectional(&mut near, &mut far).await);
    }
}
