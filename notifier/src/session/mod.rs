//! One connection: reads frames, writes what its outbox holds, keeps the heartbeat.
//!
//! One task does all three. It holds little between events, because there may be very many of it.
//! A client of `/sse` (`event_stream`) is the same [`Session`] with another way out and none in.

mod commands;
mod event_stream;
mod login;
mod pending;
mod recovery;
mod rooms;
mod seen;
mod socket;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use metrics::{counter, gauge};
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tracing::debug;
use uuid::Uuid;

pub(crate) use self::event_stream::{Line, serve as serve_events};
use self::login::Login;
use self::pending::Pending;
pub(crate) use self::socket::{Socket, socket_of};
use self::socket::{Unsent, WriteError, say_goodbye};
use crate::admission::Slot;
use crate::auth::{Identity, TokenError};
use crate::gateway::Gateway;
use crate::heartbeat::{Due, Heartbeat};
use crate::hub::Removed;
use crate::metric;
use crate::outbox::{Next, Outbox};
use crate::pace::Pace;
use crate::protocol::close::{self, Close};
use crate::protocol::{Frame, Place};

/// What comes so soon after a write belongs to a burst, of which more will follow.
const BURST: Duration = Duration::from_millis(20);

/// What the handshake told of a client.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Who it is, if it said so; or that its token is bad.
    pub(crate) identity: Result<Option<Identity>, TokenError>,
    /// Where it wants to go at once.
    pub(crate) places: Vec<Place>,
    /// Where it was in its streams.
    pub(crate) since: Option<String>,
    /// Its place among the connections.
    pub(crate) slot: Slot,
}

/// Why a session goes on no longer.
enum End {
    /// We say why.
    Close(Close),
    /// The client takes nothing more, perhaps in the middle of a frame, where a close frame would
    /// be read as a part of it.
    Cut(Close),
    /// The client said goodbye.
    Left,
    /// The client is gone without a word.
    Gone,
}

impl End {
    /// Whether what was written has arrived, as far as anybody can know.
    fn has_arrived(&self) -> bool {
        match self {
            Self::Left => true,
            // All are sent away then, and hardly one of them is cut off.
            Self::Close(close) => *close == close::RESTART,
            Self::Gone | Self::Cut(_) => false,
        }
    }
}

struct Session {
    gateway: Arc<Gateway>,
    outbox: Arc<Outbox>,
    login: Option<Box<Login>>,
    heartbeat: Heartbeat,
    frames: Pace,
    entries: Pace,
    /// How many frames in a row were too many.
    refusals: u32,
    /// Where the client wants to go at once, the last first.
    wanted: Vec<Place>,
    /// While the backend or the store is asked. Nothing is read meanwhile, so that the client's
    /// frames take effect in their order.
    pending: Option<Box<Pending>>,
    /// What is written before the outbox: answers of the store, and what came before them.
    lead: VecDeque<Frame>,
    /// Before the login the hub cannot tell this connection that the notifier stops.
    stop: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    wrote_at: Instant,
    /// A pong of the library's may be written in part, and nothing else may come between.
    owes_pong: bool,
    _slot: Slot,
}

/// Serves a connection to its end. A client that is not known yet has a limited time to log in; a
/// refused one is told by the close code.
///
/// The future lives as long as the connection, and holds what it captures for as long. So it is no
/// `async fn`, which would keep its arguments a second time, and what only the end needs is boxed.
pub(crate) fn serve(
    gateway: Arc<Gateway>,
    mut socket: Socket,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send {
    let (mut session, refused) = Session::begin(gateway, arrival);
    async move {
        let end = match refused {
            Some(end) => end,
            None => session.run(&mut socket).await,
        };
        session.go(end.has_arrived());
        let write_wait = session.write_wait();
        match end {
            End::Close(close) => {
                counter!(metric::CLOSES, "reason" => close.reason).increment(1);
                Box::pin(say_goodbye(&mut socket, close, write_wait)).await;
            }
            End::Cut(close) => counter!(metric::CLOSES, "reason" => close.reason).increment(1),
            // The library's answer to a goodbye goes out with the next write: there is no other.
            End::Left | End::Gone => drop(Box::pin(timeout(write_wait, socket.flush())).await),
        }
    }
}

/// However it ends, even by a panic, nothing of it stays behind.
impl Drop for Session {
    fn drop(&mut self) {
        self.go(false);
        gauge!(metric::CONNECTIONS).decrement(1.0);
    }
}

impl Session {
    /// Lets a known client in, gives an unknown one its time, and refuses a bad token.
    fn begin(gateway: Arc<Gateway>, arrival: Arrival) -> (Self, Option<End>) {
        gauge!(metric::CONNECTIONS).increment(1.0);
        let settings = &gateway.config.websocket;
        let (interval, wait) = (settings.ping_interval.0, settings.pong_wait.0);
        let now = Instant::now();
        let mut session = Self {
            outbox: Outbox::new(Uuid::now_v7(), settings.queue_size.bytes()),
            login: None,
            heartbeat: Heartbeat::new(now, interval, wait),
            frames: Pace::new(now),
            entries: Pace::new(now),
            refusals: 0,
            wanted: arrival.places,
            pending: None,
            lead: VecDeque::new(),
            stop: None,
            wrote_at: now,
            owes_pong: false,
            _slot: arrival.slot,
            gateway,
        };
        let refused = match arrival.identity {
            Ok(Some(identity)) => {
                session.welcome(identity, arrival.since.as_deref());
                None
            }
            Ok(None) => {
                session.wait_for_login(now);
                None
            }
            Err(error) => Some(End::Close(error.close())),
        };
        (session, refused)
    }

    fn wait_for_login(&mut self, now: Instant) {
        let limit = self.gateway.config.websocket.auth_timeout.0;
        self.heartbeat.ends_at(Some(now + limit), None);
        let stop = self.gateway.stop.clone().cancelled_owned();
        self.stop = Some(Box::pin(stop));
    }

    /// Leaves every room, the hub and the streams. `arrived`: what was written has arrived.
    fn go(&mut self, arrived: bool) {
        let Some(login) = self.login.take() else {
            return;
        };
        for place in &login.places {
            self.gateway.leave(place, &login.user, self.outbox.id);
        }
        let removed = self.gateway.hub.remove(&login.user, self.outbox.id);
        self.gateway.directory.note(&login.user, self.outbox.id);
        self.leave_streams(&login, removed == Removed::Last, arrived);
    }
}

impl Session {
    async fn run(&mut self, socket: &mut Socket) -> End {
        let outbox = Arc::clone(&self.outbox);
        // One timer for as long as the connection lives, looked at when it runs out.
        let mut timer = std::pin::pin!(sleep_until(self.heartbeat.wake_at()));
        loop {
            if let Some(lead) = self.take_lead()
                && let Some(end) = self.write(socket, lead).await
            {
                return end;
            }
            let end = tokio::select! {
                message = socket.next(), if self.pending.is_none() => self.read(message),
                next = gather(&outbox, self.wrote_at), if !self.is_held() => {
                    self.write(socket, next).await
                }
                outcome = pending::outcome(&mut self.pending), if self.pending.is_some() => {
                    self.learn(outcome);
                    None
                }
                () = timer.as_mut() => {
                    let end = self.beat(socket).await;
                    timer.as_mut().reset(self.heartbeat.wake_at());
                    end
                }
                () = stopping(&mut self.stop), if self.stop.is_some() => {
                    Some(End::Close(close::RESTART))
                }
            };
            if let Some(end) = end {
                return end;
            }
            if self.heartbeat.wake_at() < timer.deadline() {
                timer.as_mut().reset(self.heartbeat.wake_at());
            }
        }
    }

    fn read(&mut self, message: Option<Result<Message, Error>>) -> Option<End> {
        let now = Instant::now();
        self.heartbeat.sign_of_life(now);
        match message {
            Some(Ok(Message::Text(text))) => self.take(text.as_str(), now),
            Some(Ok(Message::Binary(_))) => Some(End::Close(close::UNSUPPORTED)),
            Some(Ok(Message::Ping(_))) => self.take_ping(now),
            Some(Ok(Message::Pong(_))) => {
                self.pong();
                None
            }
            Some(Ok(Message::Frame(_))) => None,
            Some(Err(Error::Capacity(_))) => Some(End::Close(close::TOO_BIG)),
            // The connection ended, and nobody said goodbye.
            Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                Some(End::Gone)
            }
            Some(Err(Error::Protocol(error))) => {
                debug!(%error, "a client broke the protocol");
                Some(End::Close(close::PROTOCOL_ERROR))
            }
            Some(Err(Error::Utf8(_))) => Some(End::Close(close::NOT_UTF8)),
            Some(Ok(Message::Close(_))) => Some(End::Left),
            Some(Err(_)) | None => Some(End::Gone),
        }
    }

    async fn beat(&mut self, socket: &mut Socket) -> Option<End> {
        match self.on_time() {
            Ok(true) => {
                self.ping();
                self.write_out(socket, [Frame::ping()].into()).await
            }
            Ok(false) => None,
            Err(end) => Some(end),
        }
    }

    /// Does what is due, except for the ping: whether there is to be one.
    fn on_time(&mut self) -> Result<bool, End> {
        match self.heartbeat.due(Instant::now()) {
            Due::Nothing => Ok(false),
            Due::Gone => Err(End::Close(close::PONG_TIMEOUT)),
            Due::End if self.login.is_none() => Err(End::Close(close::AUTH_TIMEOUT)),
            Due::End => Err(End::Close(close::TOKEN_EXPIRED)),
            Due::Notice => {
                self.give_notice();
                Ok(false)
            }
            Due::Ping => Ok(true),
        }
    }

    async fn write(&mut self, socket: &mut Socket, next: Next) -> Option<End> {
        let (mut frames, close) = match next {
            Next::Write(frames) => (frames, None),
            Next::Close(frames, close) => (frames, Some(close)),
            Next::Review => return self.review(),
        };
        self.leave_out_what_was_seen(&mut frames);
        let (count, written) = (frames.len() as u64, self.last_of_own(&frames));
        let end = self.write_out(socket, frames).await;
        if end.is_some() {
            return end;
        }
        self.wrote(written);
        counter!(metric::FRAMES_SENT).increment(count);
        self.wrote_at = Instant::now();
        close.map(End::Close)
    }

    async fn write_out(&mut self, socket: &mut Socket, frames: VecDeque<Frame>) -> Option<End> {
        let mut unsent = Unsent::new(frames);
        if !self.owes_pong {
            match unsent.write_now(socket) {
                Ok(()) if unsent.is_empty() => return None,
                Ok(()) => {}
                Err(_) => return Some(End::Gone),
            }
        }
        // Rare, so boxed: the connection's own future stays small.
        let written = Box::pin(unsent.write_all(socket, self.write_wait())).await;
        self.owes_pong = false;
        match written {
            Ok(()) => None,
            Err(WriteError::Socket(_)) => Some(End::Gone),
            Err(WriteError::Stuck) => Some(End::Cut(close::SLOW_CONSUMER)),
        }
    }

    fn write_wait(&self) -> Duration {
        self.gateway.config.websocket.write_wait.0
    }
}

/// What there is to write. A connection that has just written lets the others have their turn
/// first: when many events come at once, each writes what has gathered meanwhile in one call. The
/// first event after a pause is taken at once. Cancel safe.
async fn gather(outbox: &Outbox, wrote_at: Instant) -> Next {
    outbox.filled().await;
    if wrote_at.elapsed() < BURST {
        yield_now().await;
    }
    outbox.next().await
}

/// When the notifier stops; never without a `stop`.
async fn stopping(stop: &mut Option<Pin<Box<WaitForCancellationFutureOwned>>>) {
    match stop {
        Some(stop) => stop.as_mut().await,
        None => std::future::pending().await,
    }
}
