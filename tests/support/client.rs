//! A WebSocket client.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::stack::PATIENCE;

/// A connected client.
pub struct Client {
    socket: WebSocketStream<TcpStream>,
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
        let (socket, response) = client_async(request, stream).await?;
        Ok((Self { socket }, response))
    }

    pub async fn send(&mut self, text: &str) {
        self.send_message(Message::text(text)).await;
    }

    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next frame; panics if there is none in time or the connection ends.
    pub async fn next(&mut self) -> Value {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await;
            match message.expect("a frame in time") {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
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
    /// task: `rev` grows, and nothing comes after the end.
    pub async fn task_to_end(&mut self, task_id: &str) -> Vec<Value> {
        let mut states: Vec<Value> = Vec::new();
        loop {
            let frame = self.next_of("task.updated").await;
            let state = frame["data"].clone();
            if state["task_id"] != task_id {
                continue;
            }
            let rev = state["rev"].as_u64().unwrap();
            if let Some(last) = states.last() {
                assert!(
                    rev > last["rev"].as_u64().unwrap(),
                    "rev must grow: {states:?}"
                );
            }
            let ended = state["status"] != "queued" && state["status"] != "running";
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
