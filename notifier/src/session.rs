//! One connection: reads frames, writes what its outbox holds, keeps the heartbeat.
//!
//! One task does all three. It holds little between events, because there may be very many of it.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use metrics::{counter, gauge};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::debug;
use uuid::Uuid;

use crate::auth::{Identity, TokenError};
use crate::gateway::Gateway;
use crate::heartbeat::{Due, Heartbeat};
use crate::metric;
use crate::outbox::{Next, Outbox};
use crate::protocol::close::{self, Close};
use crate::protocol::{self, ClientFrame, Frame};

/// How long a client may take to answer our close before the socket goes.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// The socket under the protocol.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// Why a session goes on no longer.
enum End {
    /// We say why.
    Close(Close),
    /// The client said goodbye, or is gone.
    Left,
}

struct Session {
    gateway: Arc<Gateway>,
    outbox: Arc<Outbox>,
    user: Option<Arc<str>>,
    heartbeat: Heartbeat,
}

/// Serves a connection to its end. A client that is not known yet has a limited time to log in; a
/// refused one is told by the close code.
///
/// The future lives as long as the connection, and holds what it captures for as long. So it is no
/// `async fn`, which would keep its arguments a second time, and what only the end needs is boxed.
pub(crate) fn serve(
    gateway: Arc<Gateway>,
    mut socket: Socket,
    identity: Result<Option<Identity>, TokenError>,
) -> impl Future<Output = ()> + Send {
    let mut session = Session::new(gateway);
    let refused = session.begin(identity);
    async move {
        let end = match refused {
            Some(end) => end,
            None => session.run(&mut socket).await,
        };
        session.leave();
        let write_wait = session.gateway.config.websocket.write_wait.0;
        match end {
            End::Close(close) => {
                counter!(metric::CLOSES, "reason" => close.reason).increment(1);
                Box::pin(say_goodbye(&mut socket, close, write_wait)).await;
            }
            // The library's answer to a goodbye goes out with the next write: there is no other.
            End::Left => drop(Box::pin(timeout(write_wait, socket.flush())).await),
        }
        gauge!(metric::CONNECTIONS).decrement(1.0);
    }
}

impl Session {
    fn new(gateway: Arc<Gateway>) -> Self {
        gauge!(metric::CONNECTIONS).increment(1.0);
        let settings = &gateway.config.websocket;
        let (interval, wait) = (settings.ping_interval.0, settings.pong_wait.0);
        Self {
            outbox: Outbox::new(Uuid::now_v7(), settings.queue_size.bytes()),
            user: None,
            heartbeat: Heartbeat::new(Instant::now(), interval, wait),
            gateway,
        }
    }

    /// Lets a known client in, gives an unknown one its time, and refuses a bad token.
    fn begin(&mut self, identity: Result<Option<Identity>, TokenError>) -> Option<End> {
        match identity {
            Ok(Some(identity)) => self.welcome(identity),
            Ok(None) => {
                let limit = self.gateway.config.websocket.auth_timeout.0;
                self.heartbeat.ends_at(Some(Instant::now() + limit));
            }
            Err(error) => return Some(End::Close(refusal(&error))),
        }
        None
    }

    fn leave(&self) {
        if let Some(user) = &self.user {
            self.gateway.hub.remove(user, self.outbox.id);
        }
    }
}

impl Session {
    async fn run(&mut self, socket: &mut Socket) -> End {
        let (gateway, outbox) = (Arc::clone(&self.gateway), Arc::clone(&self.outbox));
        let mut stop = std::pin::pin!(gateway.stop.cancelled());
        let mut stopping = false;
        loop {
            let wake_at = self.heartbeat.wake_at();
            let end = tokio::select! {
                message = socket.next() => self.read(message),
                next = outbox.next() => self.write(socket, next).await,
                () = sleep_until(wake_at) => self.beat(socket).await,
                () = &mut stop, if !stopping => {
                    stopping = true;
                    // What waits is written before.
                    outbox.close(close::RESTART);
                    None
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn read(&mut self, message: Option<Result<Message, Error>>) -> Option<End> {
        self.heartbeat.sign_of_life(Instant::now());
        match message {
            Some(Ok(Message::Text(text))) => {
                self.answer(text.as_str());
                None
            }
            Some(Ok(Message::Binary(_))) => Some(End::Close(close::UNSUPPORTED)),
            // Pings are answered by the library; the answer goes out with the next write.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => None,
            Some(Err(Error::Capacity(_))) => Some(End::Close(close::TOO_BIG)),
            Some(Err(Error::Protocol(error))) => {
                debug!(%error, "a client broke the protocol");
                Some(End::Close(close::PROTOCOL_ERROR))
            }
            Some(Err(Error::Utf8(_))) => Some(End::Close(close::NOT_UTF8)),
            Some(Ok(Message::Close(_)) | Err(_)) | None => Some(End::Left),
        }
    }

    fn answer(&mut self, text: &str) {
        let frame = match ClientFrame::parse(text) {
            Ok(ClientFrame::Ping { id }) => protocol::pong(id.as_ref()),
            Ok(ClientFrame::Auth { id, token }) => {
                self.log_in(id.as_ref(), &token);
                return;
            }
            Err(error) => protocol::error(error.code(), &error.to_string(), error.id()),
        };
        self.outbox.push(frame);
    }

    /// The first login of a client that came without a token, or the renewal of a login.
    fn log_in(&mut self, id: Option<&serde_json::Value>, token: &str) {
        let identity = match self.gateway.verifier.verify(token, Timestamp::now()) {
            Ok(identity) => identity,
            Err(error) => {
                let refusal = refusal(&error);
                let frame = protocol::error(refusal.reason, &error.to_string(), id);
                self.outbox.push(frame);
                // A bad renewal leaves the login that still holds.
                if self.user.is_none() {
                    self.outbox.close(refusal);
                }
                return;
            }
        };
        match &self.user {
            None => self.welcome(identity),
            Some(user) if **user == *identity.user_id => self.expires_at(identity.expires),
            Some(_) => {
                let message = "the token belongs to another user: open another connection";
                let frame = protocol::error("wrong_user", message, id);
                self.outbox.push(frame);
            }
        }
    }

    fn welcome(&mut self, identity: Identity) {
        let user: Arc<str> = identity.user_id.into();
        self.expires_at(identity.expires);
        // First in the queue, before anything that the hub delivers.
        self.outbox.push(protocol::connected(
            &self.outbox.id.to_string(),
            &user,
            &self.gateway.instance,
            Timestamp::now(),
            self.gateway.config.websocket.ping_interval.0,
        ));
        self.gateway.hub.add(&user, Arc::clone(&self.outbox));
        self.user = Some(user);
    }

    fn expires_at(&mut self, expires: Option<Timestamp>) {
        let end = expires.map(|expires| {
            let left = Timestamp::now().duration_until(expires);
            // A far future would overflow the clock; no connection lasts a year.
            let left = Duration::try_from(left).unwrap_or_default();
            Instant::now() + left.min(Duration::from_hours(365 * 24))
        });
        self.heartbeat.ends_at(end);
    }

    async fn beat(&mut self, socket: &mut Socket) -> Option<End> {
        match self.heartbeat.due(Instant::now()) {
            Due::Nothing => None,
            Due::Gone => Some(End::Close(close::PONG_TIMEOUT)),
            Due::End if self.user.is_none() => Some(End::Close(close::AUTH_TIMEOUT)),
            Due::End => Some(End::Close(close::TOKEN_EXPIRED)),
            Due::Ping => {
                let ping = socket.send(Message::Ping(bytes::Bytes::new()));
                self.in_time(ping).await
            }
        }
    }

    async fn write(&self, socket: &mut Socket, next: Next) -> Option<End> {
        let (frames, close) = match next {
            Next::Write(frames) => (frames, None),
            Next::Close(frames, close) => (frames, Some(close)),
        };
        counter!(metric::FRAMES_SENT).increment(frames.len() as u64);
        let end = self.in_time(write_all(socket, frames)).await;
        end.or(close.map(End::Close))
    }

    async fn in_time(&self, write: impl Future<Output = Result<(), Error>>) -> Option<End> {
        match timeout(self.gateway.config.websocket.write_wait.0, write).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(End::Left),
            // The socket takes nothing; a close frame would not pass either, but costs little.
            Err(_) => Some(End::Close(close::SLOW_CONSUMER)),
        }
    }
}

/// Writes all frames and flushes once.
async fn write_all(
    socket: &mut Socket,
    frames: impl IntoIterator<Item = Frame>,
) -> Result<(), Error> {
    for frame in frames {
        socket.feed(Message::Text(frame.text)).await?;
    }
    socket.flush().await
}

fn refusal(error: &TokenError) -> Close {
    match error {
        TokenError::Expired => close::TOKEN_EXPIRED,
        _ => close::INVALID_TOKEN,
    }
}

/// Sends the close frame and ends our side, for which clients wait (RFC 6455, 7.1.1); then waits a
/// moment for the client to go. What the client still sends is read and thrown away: a socket
/// closed with unread data is reset, and the reset may overtake the close frame.
async fn say_goodbye(socket: &mut Socket, close: Close, write_wait: Duration) {
    let frame = CloseFrame {
        code: close.code.into(),
        reason: close.reason.into(),
    };
    let Ok(Ok(())) = timeout(write_wait, socket.close(Some(frame))).await else {
        return;
    };
    drop(socket.get_mut().shutdown().await);
    let drain = async {
        let mut rest = [0; 1024];
        while matches!(socket.get_mut().read(&mut rest).await, Ok(read) if read > 0) {}
    };
    if timeout(CLOSE_WAIT, drain).await.is_err() {
        debug!("a client did not go after our close");
    }
}

/// The socket of an upgraded HTTP connection, and what was read of it ahead.
pub(crate) fn socket_of(
    upgraded: hyper::upgrade::Upgraded,
) -> Result<(TcpStream, bytes::Bytes), hyper::upgrade::Upgraded> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>()?;
    Ok((parts.io.into_inner(), parts.read_buf))
}
