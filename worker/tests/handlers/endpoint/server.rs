//! A server that answers byte by byte as a test wants it to.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::LONG;

pub(super) struct Server {
    listener: TcpListener,
}

/// A request that waits for its answer.
pub(super) struct Call {
    stream: TcpStream,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { listener }
    }

    pub(super) fn host(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// Takes the next connection and reads a whole request from it.
    pub(super) async fn call(&self) -> Call {
        let reading = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let head_end = loop {
                if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
            };
            let body = bytes.split_off(head_end);
            let head = String::from_utf8(bytes).unwrap();
            let mut call = Call { stream, head, body };
            let length = call.header("content-length").unwrap().parse().unwrap();
            while call.body.len() < length {
                assert!(call.stream.read_buf(&mut call.body).await.unwrap() > 0);
            }
            call
        };
        timeout(LONG, reading).await.unwrap()
    }
}

impl Call {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what comes next of a chunked answer.
    pub(super) async fn chunk(&mut self, text: &str) {
        self.send(format!("{:x}\r\n{text}\r\n", text.len())).await;
    }

    /// Sends an answer and closes the connection.
    pub(super) async fn answer(mut self, bytes: impl AsRef<[u8]>) {
        // Who has seen enough of an answer leaves before its end.
        drop(self.stream.write_all(bytes.as_ref()).await);
        drop(self.stream.shutdown().await);
        self.closed().await;
    }

    /// Waits until the other side has closed the connection.
    pub(super) async fn closed(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end, too.
        drop(
            timeout(LONG, self.stream.read_to_end(&mut rest))
                .await
                .unwrap(),
        );
    }

    /// Breaks the connection as a server that crashes does.
    pub(super) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }
}
