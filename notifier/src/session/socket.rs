//! The socket of one connection: writes frames as they are, says goodbye.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;

use futures_util::SinkExt as _;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::{Duration, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tracing::debug;

use crate::protocol::Frame;
use crate::protocol::close::Close;

/// How long a client may take to answer our close before the socket goes.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// How many frames go to the system in one call.
const TOGETHER: usize = 64;

/// For so many times the deadline of one write a client may be slow, if it takes a little each time.
/// Meanwhile its task does nothing else.
const PATIENCE: u32 = 6;

/// Why frames could not be written.
#[derive(Debug, Error)]
pub(super) enum WriteError {
    /// The connection is gone.
    #[error(transparent)]
    Socket(#[from] Error),
    /// The client takes nothing.
    #[error("the client takes nothing")]
    Stuck,
}

impl From<Elapsed> for WriteError {
    fn from(_: Elapsed) -> Self {
        Self::Stuck
    }
}

/// The socket under the protocol.
pub(crate) type Socket = WebSocketStream<TcpStream>;

/// The socket of an upgraded HTTP connection, and what was read of it ahead.
pub(crate) fn socket_of(
    upgraded: hyper::upgrade::Upgraded,
) -> Result<(TcpStream, bytes::Bytes), hyper::upgrade::Upgraded> {
    let parts = upgraded.downcast::<TokioIo<TcpStream>>()?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Frames on their way, written from where they are, without a copy for each connection.
#[derive(Debug)]
pub(super) struct Unsent {
    frames: VecDeque<Frame>,
    /// How much of the first frame is written.
    written: usize,
}

impl Unsent {
    pub(super) fn new(frames: VecDeque<Frame>) -> Self {
        Self { frames, written: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Writes what the system takes at once, which is nearly always all.
    pub(super) fn write_now(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.is_empty() {
            match self.write_some(socket.get_ref()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(wrote) => self.advance(wrote),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes everything, as fast as the client takes it: each time something within `limit`, and
    /// all within [`PATIENCE`] times that.
    pub(super) async fn write_all(
        self,
        socket: &mut Socket,
        limit: Duration,
    ) -> Result<(), WriteError> {
        let all = timeout(limit * PATIENCE, self.write_steadily(socket, limit));
        all.await.unwrap_or(Err(WriteError::Stuck))
    }

    async fn write_steadily(
        mut self,
        socket: &mut Socket,
        limit: Duration,
    ) -> Result<(), WriteError> {
        // Between two frames of ours the library's own answers (pongs) must be out whole.
        timeout(limit, socket.flush()).await??;
        loop {
            self.write_now(socket).map_err(Error::Io)?;
            if self.is_empty() {
                return Ok(());
            }
            let writable = timeout(limit, socket.get_ref().writable()).await?;
            writable.map_err(Error::Io)?;
        }
    }

    fn write_some(&self, stream: &TcpStream) -> io::Result<usize> {
        // The system does less for one piece than for a list of one.
        if let (Some(frame), 1) = (self.frames.front(), self.frames.len()) {
            return stream.try_write(frame.wire().get(self.written..).unwrap_or_default());
        }
        let mut slices = [IoSlice::new(&[]); TOGETHER];
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(frame.wire());
        }
        let count = self.frames.len().min(TOGETHER);
        let mut slices = slices.get_mut(..count).unwrap_or_default();
        IoSlice::advance_slices(&mut slices, self.written);
        stream.try_write_vectored(slices)
    }

    fn advance(&mut self, wrote: usize) {
        self.written += wrote;
        while let Some(first) = self.frames.front()
            && self.written >= first.wire().len()
        {
            self.written -= first.wire().len();
            self.frames.pop_front();
        }
    }
}

/// Sends the close frame and ends our side, for which clients wait (RFC 6455, 7.1.1); then waits a
/// moment for the client to go. What the client still sends is read and thrown away: a socket
/// closed with unread data is reset, and the reset may overtake the close frame.
pub(super) async fn say_goodbye(socket: &mut Socket, close: Close, write_wait: Duration) {
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
