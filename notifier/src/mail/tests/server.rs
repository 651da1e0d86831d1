//! A mail server that does as it is told, well or badly.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What the server does at a command.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reply {
    /// As a good server would.
    Usual,
    Say(&'static [u8]),
    SayAndClose(&'static [u8]),
    Close,
    Hang,
}

/// What came: the number of the connection, from 0, and the command. `text` is the mail itself.
pub(super) type Command = (usize, String);

/// Asked with the connection's number, the command (`greet` before the first) and how often it came
/// there before.
type Plan = Box<dyn Fn(usize, &str, usize) -> Reply + Send + Sync>;

/// Gone when dropped.
pub(super) struct Server {
    pub(super) port: u16,
    seen: Arc<Mutex<Vec<Command>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn that(
        plan: impl Fn(usize, &str, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let plan: Arc<Plan> = Arc::new(Box::new(plan));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                connections.spawn(serve(socket, number, Arc::clone(&plan), Arc::clone(&noted)));
            }
        });
        Self { port, seen, task }
    }

    /// One that fails at one command, each time.
    pub(super) async fn failing_at(command: &'static str, reply: Reply) -> Self {
        Self::that(move |_, found, _| {
            if found == command {
                reply
            } else {
                Reply::Usual
            }
        })
        .await
    }

    pub(super) fn seen(&self) -> Vec<Command> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn count(&self, command: &str) -> usize {
        self.seen()
            .iter()
            .filter(|(_, found)| found == command)
            .count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: TcpStream, number: usize, plan: Arc<Plan>, seen: Arc<Mutex<Vec<Command>>>) {
    let mut socket = BufReader::new(socket);
    let mut command = "greet".to_owned();
    loop {
        let before = {
            let mut seen = seen.lock().unwrap();
            let same = seen
                .iter()
                .filter(|found| **found == (number, command.clone()));
            let before = same.count();
            seen.push((number, command.clone()));
            before
        };
        let usual: &[u8] = match &*command {
            "greet" => b"220 double ESMTP\r\n",
            "ehlo" => b"250-double\r\n250 AUTH PLAIN\r\n",
            "data" => b"354 go on\r\n",
            "quit" => b"221 bye\r\n",
            _ => b"250 2.0.0 fine\r\n",
        };
        let reply = plan(number, &command, before);
        let (answer, goes_on) = match reply {
            Reply::Usual => (usual, command != "quit"),
            Reply::Say(answer) => (answer, true),
            Reply::SayAndClose(answer) => (answer, false),
            Reply::Close => (&b""[..], false),
            Reply::Hang => return std::future::pending().await,
        };
        if socket.write_all(answer).await.is_err() || !goes_on {
            return;
        }
        let is_text = command == "data" && answer.starts_with(b"354");
        match next(&mut socket, is_text).await {
            Some(next) => command = next,
            None => return,
        }
    }
}

/// The next command's name, or `text` when all of a mail came.
async fn next(socket: &mut BufReader<TcpStream>, is_text: bool) -> Option<String> {
    loop {
        let mut line = Vec::new();
        if socket.read_until(b'\n', &mut line).await.ok()? == 0 {
            return None;
        }
        if is_text && line == b".\r\n" {
            return Some("text".into());
        }
        if !is_text {
            let line = String::from_utf8_lossy(&line);
            let word = line.split_whitespace().next().unwrap_or_default();
            return Some(word.to_ascii_lowercase());
        }
    }
}
