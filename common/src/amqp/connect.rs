//! Opening a connection, and keeping one open for ever.

use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_compat::{Compat, CompatExt as _};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties, ErrorKind, Event};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::backoff::{Backoff, jitter};
use crate::config::{AmqpConfig, TlsConfig};
use crate::telemetry::{Component, with_causes};

const RECONNECT: Backoff = Backoff {
    base: Duration::from_millis(200),
    cap: Duration::from_secs(10),
};

/// A connection that lasted this long was sound: the next pause starts from the beginning.
const SOUND_AFTER: Duration = Duration::from_secs(10);

/// How long the broker may take to answer our goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address cannot be read. The text does not quote it, as it may hold a password.
    #[error("the AMQP address is malformed: {0}")]
    Url(String),
    /// A certificate or key file cannot be read.
    #[error("cannot read {path}")]
    TlsFile {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The broker did not answer in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The broker or the network refused.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
}

/// Whether an address can be read.
///
/// # Errors
/// [`ConnectError::Url`] with the reason.
pub fn check_url(url: &str) -> Result<(), ConnectError> {
    parse(url).map(|_| ())
}

fn parse(url: &str) -> Result<AMQPUri, ConnectError> {
    if !url.starts_with("amqp://") && !url.starts_with("amqps://") {
        return Err(ConnectError::Url(
            "it does not start with amqp:// or amqps://".into(),
        ));
    }
    url.parse().map_err(ConnectError::Url)
}

/// `frame_max` is in bytes; one that the address asks for comes first.
pub(super) async fn connect(
    config: &AmqpConfig,
    name: &str,
    frame_max: u32,
) -> Result<Connection, ConnectError> {
    let mut uri = parse(config.url.expose())?;
    let heartbeat = u16::try_from(config.heartbeat.0.as_secs()).unwrap_or(u16::MAX);
    uri.query.heartbeat.get_or_insert(heartbeat.max(1));
    // Said in advance even where it is the broker's own: lapin's buffers are 64 frames, and only
    // those that need not grow cost no memory before they are used.
    uri.query.frame_max.get_or_insert(frame_max);
    let tls = read_tls(&config.tls).await?;
    let limit = config.connect_timeout.0;
    let socket = Arc::new(Mutex::new(None));
    let dial = {
        let socket = Arc::clone(&socket);
        // lapin dials on a thread of its own, which a timeout around the whole would leave behind
        // until the operating system gives up; so the dial has its own.
        async move |uri: AMQPUri, _| match timeout(limit, dial(uri, &tls, &socket)).await {
            Ok(dialled) => dialled.map_err(lapin::Error::from),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    };
    let runtime = lapin::runtime::default_runtime()?;
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let connecting = Connection::connector(uri, runtime, dial, properties);
    if let Ok(connection) = timeout(limit, connecting).await {
        return Ok(connection?);
    }
    // A broker that takes the connection and says nothing: lapin's thread would wait for ever.
    if let Some(socket) = lock(&socket).take() {
        drop(socket.shutdown(Shutdown::Both));
    }
    Err(ConnectError::Timeout(limit))
}

/// A second handle of the socket that is being connected.
type SocketHandle = Mutex<Option<std::net::TcpStream>>;

async fn dial(
    uri: AMQPUri,
    tls: &OwnedTLSConfig,
    socket: &SocketHandle,
) -> std::io::Result<AsyncTcpStream<Compat<TcpStream>>> {
    let host = uri.authority.host.as_str();
    let stream = TcpStream::connect((host, uri.authority.port)).await?;
    stream.set_nodelay(true)?;
    *lock(socket) = Some(stream.as_fd().try_clone_to_owned()?.into());
    let stream = AsyncTcpStream::Plain(stream.compat());
    match uri.scheme {
        AMQPScheme::AMQP => Ok(stream),
        AMQPScheme::AMQPS => stream.into_tls(host, tls.as_ref()).await,
    }
}

fn lock(socket: &SocketHandle) -> MutexGuard<'_, Option<std::net::TcpStream>> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_tls(config: &TlsConfig) -> Result<OwnedTLSConfig, ConnectError> {
    let cert_chain = match &config.ca_file {
        Some(path) => Some(String::from_utf8_lossy(&read(path).await?).into_owned()),
        None => None,
    };
    let identity = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: read(cert).await?,
            key: read(key).await?,
        }),
        _ => None,
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain,
    })
}

async fn read(path: &Path) -> Result<Vec<u8>, ConnectError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| ConnectError::TlsFile {
            path: path.display().to_string(),
            source,
        })
}

/// The largest frame of a connection that takes what others wrote, in bytes: RabbitMQ's default. The
/// headers of a message are one frame whatever we ask for, and lapin breaks with a broker that sends
/// a larger one, again and again as the message is delivered again.
pub(super) const FOREIGN_FRAME: u32 = 128 * 1024;

/// The largest frame of a connection that takes nothing but what we wrote, in bytes. lapin keeps 64 of
/// them in each direction, and touches all of that memory in time.
pub(super) const OWN_FRAME: u32 = 48 * 1024;

/// What a connection is used for.
pub(super) trait Session: Send {
    /// The largest frame, in bytes.
    const FRAME_MAX: u32;

    /// Declares what it needs, reports itself up, and works until the connection breaks. Dropped
    /// when it is to stop.
    fn serve(
        &mut self,
        connection: &Arc<Connection>,
        health: &Component,
    ) -> impl Future<Output = SessionError> + Send;
}

/// Why a session ended although nobody asked it to.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    /// The broker said so, or the network.
    #[error(transparent)]
    Broker(#[from] lapin::Error),
    /// The connection is gone, and nothing said why.
    #[error("the connection was closed")]
    Closed,
    /// The broker cancelled a consumer, because its queue was deleted or an acknowledgement took
    /// too long.
    #[error("the broker ended the consumer of {0}")]
    ConsumerEnded(String),
    /// A step took too long.
    #[error("the broker did not answer within {after:?} to: {step}")]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// For what.
        step: String,
    },
    /// Somebody else has the lock.
    #[error("another one has {0}")]
    Locked(String),
    /// A publisher found the channel unusable.
    #[error("the channel no longer takes messages")]
    ChannelBroken,
}

/// Gives a session one connection after the other until `stop`.
pub(super) async fn supervise<S: Session>(
    mut session: S,
    config: AmqpConfig,
    name: String,
    health: Component,
    stop: CancellationToken,
) {
    let mut failures = 0;
    loop {
        let attempt = tokio::select! {
            attempt = connect(&config, &name, S::FRAME_MAX) => attempt,
            () = stop.cancelled() => return,
        };
        match attempt {
            Ok(connection) => {
                let connection = Arc::new(connection);
                info!(amqp.connection = name, "connected to RabbitMQ");
                let since = Instant::now();
                let broken = tokio::select! {
                    error = session.serve(&connection, &health) => Some(error),
                    () = stop.cancelled() => None,
                };
                health.down();
                close(&connection).await;
                let Some(error) = broken else { return };
                if since.elapsed() >= SOUND_AFTER {
                    failures = 0;
                }
                let why = with_causes(&error);
                if let SessionError::Locked(_) = error {
                    warn!(amqp.connection = name, why, "waiting for its turn");
                } else {
                    error!(
                        amqp.connection = name,
                        error = why,
                        "lost RabbitMQ, connecting again"
                    );
                }
            }
            Err(error) => {
                let error = with_causes(&error);
                warn!(amqp.connection = name, error, url = %config.url, "cannot reach RabbitMQ, trying again");
            }
        }
        let pause = RECONNECT.pause(failures, jitter());
        failures = failures.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

pub(super) async fn close(connection: &Connection) {
    if connection.status().connected() {
        // The connection is dropped next; a broker that does not answer sees the socket close.
        let goodbye = connection.close(200, "goodbye".into());
        if timeout(CLOSE_TIMEOUT, goodbye).await.is_err() {
            warn!("RabbitMQ did not answer the goodbye in time");
        }
    }
}

/// Does one step with the broker within `limit`; `step` names it where it takes longer.
pub(super) async fn in_time<T>(
    limit: Duration,
    step: impl Into<String>,
    work: impl Future<Output = lapin::Result<T>>,
) -> Result<T, SessionError> {
    match timeout(limit, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(SessionError::Timeout {
            after: limit,
            step: step.into(),
        }),
    }
}

/// What an event says about the connection as a whole: an error means that it is gone.
pub(super) fn fatal(event: Option<Event>) -> Result<Option<Event>, SessionError> {
    match event {
        None => Err(SessionError::Closed),
        Some(Event::Error(error)) => Err(error.into()),
        Some(event) => Ok(Some(event)),
    }
}

/// Whether an error ends one channel and not the connection.
pub(super) fn is_soft(error: &lapin::Error) -> bool {
    soft_error(error).is_some()
}

/// What the broker closed a channel for.
pub(super) fn soft_error(error: &lapin::Error) -> Option<&AMQPSoftError> {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return None;
    };
    match error.kind() {
        AMQPErrorKind::Soft(error) => Some(error),
        AMQPErrorKind::Hard(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_without_being_quoted() {
        assert!(check_url("amqp://guest:guest@127.0.0.1:5672/%2f").is_ok());
        assert!(check_url("amqps://broker.example").is_ok());
        for wrong in ["http://u:hunter2@h", "hunter2", "amqp://h:port"] {
            let error = check_url(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
