//! The accept loop.
//!
//! warp's own loop neither turns Nagle's algorithm off, which would delay small frames, nor limits
//! how long a client may take to send its request, nor says which connections are still open.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use warp::{Filter, Reply};

/// What the listener allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a client may take to send the head of a request; idle keep-alive connections end
    /// after it too.
    pub header_timeout: Duration,
    /// How many HTTP connections may be open. An upgraded WebSocket no longer counts, nor one whose
    /// answer is [`Endless`].
    pub max_connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            max_connections: 4096,
        }
    }
}

/// Who is at the other end of a request's connection; an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The connection of a request; an extension of every request.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Its place among `max_connections`.
    place: Mutex<Option<OwnedSemaphorePermit>>,
    /// The endless answer has come to its end.
    answered: CancellationToken,
}

impl Connection {
    fn new(place: Option<OwnedSemaphorePermit>) -> Self {
        Self(Arc::new(Shared {
            place: Mutex::new(place),
            answered: CancellationToken::new(),
        }))
    }

    /// For an answer that goes on until the client leaves. It must say `Connection: close`.
    #[must_use]
    pub fn endless(&self) -> Endless {
        self.give_place_back();
        Endless(self.0.answered.clone())
    }

    fn give_place_back(&self) {
        let mut place = self.0.place.lock().unwrap_or_else(PoisonError::into_inner);
        drop(place.take());
    }
}

/// An answer without an end: its connection does not count among [`Limits::max_connections`], so
/// that whoever gives it needs a limit of his own. When this is dropped, the client has
/// five seconds to take what is left; then the connection ends, even of a client that reads nothing.
#[derive(Debug)]
pub struct Endless(CancellationToken);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How long the end of an endless answer may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// After so many milliseconds without an acknowledgement of what was sent, a client is gone.
const UNREACHABLE_MS: u32 = 60_000;

/// How long open requests may go on after `stop`.
const LAST_REQUESTS: Duration = Duration::from_secs(3);

/// How many connections may wait to be accepted; the system may allow fewer
/// (`net.core.somaxconn`).
const WAITING: u32 = 4096;

/// Listens where everybody may come back at once: beyond the 128 that are usual, the system drops
/// connections without a word, and each client tries again a second later.
///
/// # Errors
/// If the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // As `TcpListener::bind` does: the last process's connections must not be in the way.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING)
}

/// Serves until `stop`, then lets open requests finish for three seconds. Dropping the future ends
/// every connection that is not a WebSocket by then.
pub async fn serve<F>(listener: TcpListener, filter: F, limits: Limits, stop: CancellationToken)
where
    F: Filter<Error = Infallible> + Clone + Send + Sync + 'static,
    F::Extract: Reply,
{
    let service = TowerToHyperService::new(warp::service(filter));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        // Requests are small; hyper's default would let each connection grow to 400 KiB.
        .max_buf_size(16 * 1024);
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.cancelled() => break,
        };
        let held = Connection::new(place);
        let (service, of_request) = (service.clone(), held.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(of_request.clone());
            service.call(request)
        });
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let stop = stop.clone();
        connections.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = held.0.answered.cancelled() => {
                    timeout(LAST_WORDS, connection).await.unwrap_or(Ok(()))
                }
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "an HTTP connection ended badly");
            }
            held.give_place_back();
        });
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(LAST_REQUESTS, finish).await.is_err() {
        debug!("HTTP connections were still open at the end");
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, Peer, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed, so there is always a permit to wait for.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "cannot turn Nagle's algorithm off");
                }
                give_up_in_time(&stream);
                return (stream, Peer(address), place);
            }
            Err(error) => back_off(&error).await,
        }
    }
}

/// A stream of events is only written to. Without this a client that vanished without a word would
/// be there for as long as the system tries to reach it, a quarter of an hour.
fn give_up_in_time(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, UNREACHABLE_MS) {
        debug!(%error, "cannot limit how long a client may be unreachable");
    }
}

/// A client that left is no reason to wait; a process out of file descriptors is, or the loop
/// would spin on the same error.
async fn back_off(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        return;
    }
    warn!(%error, "cannot accept connections");
    tokio::time::sleep(Duration::from_millis(200)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux's limit was 128 before 5.4.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_crowd_may_wait_to_be_accepted() {
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let crowd = most.trim().parse::<usize>().unwrap().min(500);
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        for _ in 0..crowd {
            let connecting = timeout(Duration::from_millis(900), TcpStream::connect(address));
            waiting.push(connecting.await.unwrap().unwrap());
        }
    }
}
