//! A Redis of a test's own, which it may stop and kill, and whose answers it may have lost.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{copy, sink};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::stack::PATIENCE;

/// A server that keeps what it is told, on a socket in a folder. Gone, with its data, when dropped.
#[derive(Debug)]
pub struct OwnRedis {
    folder: PathBuf,
    server: Option<Child>,
}

impl OwnRedis {
    /// A running server.
    pub async fn started() -> Self {
        let name = format!("bellhop-redis-{}", Uuid::now_v7().simple());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir(&folder).unwrap();
        let mut redis = Self {
            folder,
            server: None,
        };
        redis.start().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Starts it with the data it had.
    pub async fn start(&mut self) {
        let server = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "yes"])
            .args(["--appendfsync", "always", "--unixsocket"])
            .arg(self.socket())
            .arg("--dir")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.server = Some(server);
        let answers = async {
            while UnixStream::connect(self.socket()).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, answers).await.expect("Redis answers");
    }

    /// A server at the same place, with nothing of what the other had.
    pub async fn started_instead_of(mut other: Self) -> Self {
        other.kill();
        for entry in std::fs::read_dir(&other.folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                std::fs::remove_dir_all(path).unwrap();
            } else {
                std::fs::remove_file(path).unwrap();
            }
        }
        other.start().await;
        other
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill().unwrap();
            server.wait().unwrap();
            drop(std::fs::remove_file(self.socket()));
        }
    }

    /// It keeps its connections and says nothing.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let server = self.server.as_ref().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for OwnRedis {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A way to Redis by TCP. Ends, with its connections, when dropped.
pub struct LossyWay {
    pub address: SocketAddr,
    loses: watch::Sender<()>,
    _serving: AbortOnDropHandle<()>,
}

impl LossyWay {
    pub async fn to(redis: &OwnRedis) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (loses, socket) = (watch::Sender::new(()), redis.socket());
        let lost = loses.clone();
        let serving = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                passing.spawn(pass(near, socket.clone(), lost.subscribe()));
            }
        });
        Self {
            address,
            loses,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// On the connections that there are, Redis still hears everything, and is heard no more. Those to
    /// come are sound.
    pub fn lose_answers(&self) {
        self.loses.send_replace(());
    }
}

async fn pass(near: TcpStream, socket: PathBuf, mut lost: watch::Receiver<()>) -> io::Result<()> {
    let (mut asks, mut hears) = near.into_split();
    let (mut answers, mut takes) = UnixStream::connect(socket).await?.into_split();
    let answering = async {
        tokio::select! {
            done = copy(&mut answers, &mut hears) => done,
            _ = lost.changed() => copy(&mut answers, &mut sink()).await,
        }
    };
    tokio::select! {
        done = copy(&mut asks, &mut takes) => done.map(drop),
        done = answering => done.map(drop),
    }
}
