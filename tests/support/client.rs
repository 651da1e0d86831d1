//! A WebSocket client.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::stack::{PATIENCE, Running, http};

/// A connected client.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
}

/// A frame without what says where it stands in its stream, which is there.
pub fn unnumbered(mut frame: Value) -> Value {
    let fields = frame.as_object_mut().unwrap();
    for name in ["epoch", "seq"] {
        assert!(fields.remove(name).is_some(), "{name} in {fields:?}");
    }
    frame
}

/// How a connection ended: code and reason, or nothing.
pub type Closed = Option<(u16, String)>;

impl Client {
    /// Connects with the token in the header.
    pub async fn connect(address: SocketAddr, token: &str) -> Self {
        let request = request(
            address,
            "/ws",
            &[("authorization", &format!("Bearer {token}"))],
        );
        Self::open(request).await.unwrap().0
    }

    /// Connects with any request.
    pub async fn open(request: Request) -> Result<(Self, Response), Error> {
        let address = request.uri().authority().unwrap().to_string();
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, request).await
    }

    /// The same over a connection that is there already.
    pub async fn over(stream: TcpStream, request: Request) -> Result<(Self, Response), Error> {
        // Small, for tests with thousands.
        let config = WebSocketConfig::default().read_buffer_size(4096);
        let (socket, response) = client_async_with_config(request, stream, Some(config)).await?;
        Ok((Self { socket }, response))
    }

    /// Connects, if there is anybody.
    pub async fn try_open(request: Request) -> Result<Self, Error> {
        let address = request.uri().authority().unwrap().to_string();
        let stream = TcpStream::connect(address).await.map_err(Error::Io)?;
        let opened = Self::over(stream, request).await;
        opened.map(|(client, _)| client)
    }

    /// The next frame, as long as the connection lasts.
    pub async fn try_next(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => return serde_json::from_str(text.as_str()).ok(),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Says goodbye, and waits until the other side has, too.
    pub async fn close(mut self) {
        self.send_message(Message::Close(None)).await;
        self.closed().await;
    }

    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; panics if there is none in time or the connection ends.
    pub async fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// The next frame as it came.
    pub async fn next_text(&mut self) -> String {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await;
            match message.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return text.to_string(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("the connection ended: {other:?}"),
            }
        }
    }

    /// The next frame of a type; others are passed over.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The states of one task up to its end, in the order they came. Checks what holds for every
    /// task: `rev` grows. Only `queued`, which the producer says and not the worker, may be late.
    pub async fn task_to_end(&mut self, task_id: &str) -> Vec<Value> {
        let mut states: Vec<Value> = Vec::new();
        loop {
            let frame = self.next_of("task.updated").await;
            let state = frame["data"].clone();
            if state["task_id"] != task_id {
                continue;
            }
            let rev = state["rev"].as_u64().unwrap();
            let last = states.last().and_then(|last| last["rev"].as_u64());
            // Both go out beside what follows, which may overtake them.
            let may_be_late = state["status"] == "queued" || state["status"] == "running";
            if may_be_late && last.is_some_and(|last| rev <= last) {
                continue;
            }
            if let Some(last) = states.last() {
                assert!(
                    rev > last["rev"].as_u64().unwrap(),
                    "rev must grow: {states:?}"
                );
            }
            let word = state["status"].as_str().unwrap();
            let ended = ["succeeded", "failed", "cancelled"].contains(&word);
            states.push(state);
            if ended {
                return states;
            }
        }
    }

    /// Waits for a state of a task that fits.
    pub async fn task_until(&mut self, task_id: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next_of("task.updated").await;
            if frame["data"]["task_id"] == task_id && fits(&frame["data"]) {
                return frame["data"].clone();
            }
        }
    }

    /// Waits for a state of any task that fits.
    pub async fn task_until_any(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next_of("task.updated").await;
            if fits(&frame["data"]) {
                return frame["data"].clone();
            }
        }
    }

    /// Whether nothing comes for a while. The only way to see that a frame does not come; used
    /// after a later frame was seen to arrive elsewhere, so that the time is a margin, not a guess.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        timeout(time, self.next()).await.is_err()
    }

    /// Reads to the end of the connection and tells how it ended.
    pub async fn closed(&mut self) -> Closed {
        let reading = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(frame))) => {
                        return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("an end in time")
    }

    /// The socket itself, for a client that misbehaves.
    pub fn socket(&mut self) -> &mut WebSocketStream<TcpStream> {
        &mut self.socket
    }
}

/// A handshake with extra headers.
pub fn request(address: SocketAddr, path: &str, headers: &[(&'static str, &str)]) -> Request {
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    request
}

/// A client in bytes, for what no library does: frames against the rules, no answers, no reading.
pub struct Raw {
    stream: TcpStream,
}

impl Raw {
    /// Connects with the token in the header.
    pub async fn connect(address: SocketAddr, token: &str) -> Self {
        let header = format!("Authorization: Bearer {token}\r\n");
        let (mut raw, head) = Self::open(address, &header, &[]).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let (opcode, frame) = raw.frame().await.unwrap();
        let frame = String::from_utf8_lossy(&frame);
        assert!(opcode == 1 && frame.contains("connected"), "{frame}");
        raw
    }

    /// Sends a handshake and what comes behind it at once; answers with the head of the answer.
    pub async fn open(address: SocketAddr, headers: &str, behind: &[u8]) -> (Self, String) {
        let socket = TcpSocket::new_v4().unwrap();
        // Small, so that a client which does not read is soon full, and one that writes much is
        // in the middle of it when the answer comes.
        socket.set_recv_buffer_size(16 * 1024).unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let mut raw = Self { stream };
        let mut bytes = format!(
            "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             {headers}\r\n"
        )
        .into_bytes();
        bytes.extend_from_slice(behind);
        raw.send(&bytes).await;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(raw.read(1).await.expect("an answer to the handshake")[0]);
        }
        (raw, String::from_utf8(head).unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        sent.expect("sent in time").unwrap();
    }

    /// Ends the connection as TCP does, without a goodbye before, and waits for the other side to do the same.
    pub async fn end(mut self) {
        self.stream.shutdown().await.unwrap();
        self.closed().await;
    }

    /// Is gone without a word, as after a crash: the system resets the connection.
    pub fn vanish(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// The next frame's opcode and content; nothing at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.read(2).await?;
        let length = match head[1] {
            126 => u64::from(u16::from_be_bytes(self.read(2).await?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.read(8).await?.try_into().unwrap()),
            short => u64::from(short),
        };
        let content = self.read(usize::try_from(length).unwrap()).await?;
        Some((head[0] & 0x0f, content))
    }

    /// Reads up to the close frame or the end.
    pub async fn closed(&mut self) -> Closed {
        loop {
            let (opcode, content) = self.frame().await?;
            if opcode == 8 {
                let code = u16::from_be_bytes([content[0], content[1]]);
                return Some((code, String::from_utf8_lossy(&content[2..]).into_owned()));
            }
        }
    }

    async fn read(&mut self, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.expect("bytes in time").ok()?;
        Some(bytes)
    }
}

/// A client's frame: `first` is the byte of FIN and opcode, as 0x81 for a whole text. The mask is
/// zero, which leaves the content as it is.
pub fn masked(first: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match u16::try_from(content.len()) {
        Ok(length @ 0..=125) => frame.push(0x80 | length.to_be_bytes()[1]),
        Ok(length) => {
            frame.push(0xfe);
            frame.extend(length.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend((content.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(content);
    frame
}

/// The value of a series in `/metrics`, as `name` or `name{label="x"}`; 0 before it was touched.
pub async fn metric(service: &Running, series: &str) -> u64 {
    let answer = http().get(service.url("/metrics")).send().await.unwrap();
    let page = answer.text().await.unwrap();
    let mut lines = page.lines();
    let value = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map_or(0, |value| value.parse().unwrap())
}

/// Waits until a series has a value.
pub async fn metric_becomes(service: &Running, series: &str, wants: u64) {
    let wait = async {
        while metric(service, series).await != wants {
            sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = timeout(PATIENCE, wait).await;
    assert!(
        waited.is_ok(),
        "{series} is {}",
        metric(service, series).await
    );
}
