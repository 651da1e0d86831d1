//! The real nginx and `HAProxy` before two notifiers, with the files that `deploy` has for them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::broker::free_port;
use crate::stack::{Folder, PATIENCE};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    Haproxy,
}

/// A running one. Stopped when dropped.
pub struct Balancer {
    child: Child,
    pub address: SocketAddr,
    _folder: Folder,
}

impl Balancer {
    /// Before notifiers on these ports, once it takes connections. `changes`: what else of the
    /// file is replaced, and by what.
    pub async fn start(
        kind: Kind,
        ports: [u16; 2],
        is_sticky: bool,
        changes: &[(&str, &str)],
    ) -> Self {
        let folder = Folder::new();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut text = kind.file();
        for (old, new) in kind.places(address, ports, &folder.0) {
            text = replaced(&text, old, &new);
        }
        if is_sticky {
            let (off, on) = kind.stickiness();
            text = replaced(&text, off, on);
        }
        for (old, new) in changes {
            text = replaced(&text, old, new);
        }
        let file = folder.0.join("balancer.conf");
        std::fs::write(&file, text).unwrap();
        let child = kind.command(&file, &folder.0).spawn();
        let child = child.unwrap_or_else(|error| panic!("{kind:?} is not installed: {error}"));
        let balancer = Self {
            child,
            address,
            _folder: folder,
        };
        let answers = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, answers).await.expect("it listens");
        balancer
    }
}

impl Kind {
    fn file(self) -> String {
        let name = match self {
            Self::Nginx => "nginx/notifier.conf",
            Self::Haproxy => "haproxy/notifier.cfg",
        };
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        std::fs::read_to_string(deploy.join(name)).unwrap()
    }

    /// Addresses, and what only root may have.
    fn places(
        self,
        address: SocketAddr,
        [one, two]: [u16; 2],
        folder: &Path,
    ) -> Vec<(&'static str, String)> {
        let folder = folder.display();
        let server = |port| format!("{}:{port}", Ipv4Addr::LOCALHOST);
        let mut places = vec![
            ("127.0.0.1:8181", server(one)),
            ("127.0.0.1:8182", server(two)),
        ];
        places.extend(match self {
            Self::Nginx => {
                let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
                let temp = kinds.map(|kind| format!("{kind}_temp_path {folder}/{kind};\n"));
                vec![
                    ("listen 8080;", format!("listen {address};")),
                    ("/var/log/nginx", folder.to_string()),
                    ("http {\n", format!("http {{\n{}", temp.concat())),
                    ("worker_rlimit_nofile 40000;", String::new()),
                    (
                        "worker_connections 20000;",
                        "worker_connections 400;".into(),
                    ),
                ]
            }
            Self::Haproxy => vec![
                ("bind :8080", format!("bind {address}")),
                ("maxconn 20000", "maxconn 200".into()),
            ],
        });
        places
    }

    fn stickiness(self) -> (&'static str, &'static str) {
        match self {
            Self::Nginx => (
                "#hash $remote_addr consistent;",
                "hash $remote_addr consistent;",
            ),
            Self::Haproxy => ("#cookie notifier", "cookie notifier"),
        }
    }

    /// In the foreground.
    fn command(self, file: &Path, folder: &Path) -> Command {
        let mut command = match self {
            Self::Nginx => {
                let settings = format!("daemon off; pid {}/pid;", folder.display());
                let mut command = Command::new("nginx");
                command.arg("-c").arg(file).arg("-p").arg(folder);
                command.args(["-e", "stderr", "-g", &settings]);
                command
            }
            Self::Haproxy => {
                let mut command = Command::new("haproxy");
                command.arg("-db").arg("-f").arg(file);
                command
            }
        };
        // Debian puts them where only root looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null());
        command
    }
}

/// A file that has changed is no longer what is tested here.
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "the file does not say {old:?}");
    text.replace(old, new)
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // SIGKILL would leave nginx's workers behind.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
            eprintln!("the balancer cannot be ended: {error}");
        }
        // Both end at once.
        drop(self.child.wait());
    }
}
