//! One connection of the load generator.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::frames::{Frames, Piece, masked};
use super::{age, now};
use crate::realtime::confirmed::number;

/// A server that does not take a connection on loopback in that time takes none.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer to a handshake, or first frames.
const FIRST_WORDS: usize = 16 * 1024;

/// How one client gets in.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The HTTP request.
    pub(crate) request: Vec<u8>,
    /// What is sent once the server has agreed.
    pub(crate) then: Option<Vec<u8>>,
    /// A part of the frame by which the server says that the client is in; the handshake alone if
    /// there is none.
    pub(crate) ready: Option<&'static str>,
    /// How many stored events it must have been shown then, numbered from 1 without a gap.
    pub(crate) missed: u32,
}

/// What counts as a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// A message.
    Messages,
    /// A line, where a message may hold several deliveries.
    Lines,
    /// A message, whose age is noted.
    Ages,
    /// A message; noted is when the client got in.
    Entries,
}

/// What a read brought.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    pub(crate) deliveries: u64,
    /// The client got in with it.
    pub(crate) entered: bool,
    /// In nanoseconds.
    pub(crate) ages: Vec<u64>,
}

/// A socket and how far it has come.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) socket: TcpStream,
    state: State,
    frames: Frames,
}

#[derive(Debug)]
enum State {
    /// The answer to the handshake so far, and what comes then.
    Handshake(Vec<u8>, Entry),
    /// The first messages, until the client is in.
    Greeting(Greeting),
    In,
}

/// What comes before a client is in.
#[derive(Debug)]
struct Greeting {
    /// The message so far.
    words: Vec<u8>,
    ready: &'static str,
    /// How many stored events came, and how many are to.
    shown: u32,
    missed: u32,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, entry: Entry) -> anyhow::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, CONNECT)
            .with_context(|| format!("cannot connect to {address}"))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let connection = Self {
            socket,
            state: State::Handshake(Vec::new(), entry),
            frames: Frames::default(),
        };
        if let State::Handshake(_, entry) = &connection.state {
            connection.send(&entry.request)?;
        }
        Ok(connection)
    }

    /// All at once: what a client says is short, and the socket has room for it.
    fn send(&self, bytes: &[u8]) -> anyhow::Result<()> {
        let sent = (&self.socket).write(bytes)?;
        ensure!(sent == bytes.len(), "the server does not read");
        Ok(())
    }

    /// Reads what has come, with one call: what is left makes epoll call again.
    pub(crate) fn read(&mut self, buffer: &mut [u8], count: Count) -> anyhow::Result<Brought> {
        let length = match (&self.socket).read(buffer) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error).context("a connection was lost"),
        };
        let mut input = buffer.get(..length).unwrap_or_default();
        let mut brought = Brought::default();
        if let State::Handshake(answer, _) = &mut self.state {
            answer.extend_from_slice(input);
            let Some(rest) = self.end_handshake()? else {
                return Ok(brought);
            };
            brought.entered = matches!(self.state, State::In);
            return self.take(&rest, count, brought);
        }
        self.take(std::mem::take(&mut input), count, brought)
    }

    /// What came behind the server's agreement, once there is one.
    fn end_handshake(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        const END: &[u8] = b"\r\n\r\n";
        let State::Handshake(answer, entry) = &mut self.state else {
            return Ok(None);
        };
        let Some(end) = answer.windows(END.len()).position(|part| part == END) else {
            ensure!(answer.len() < FIRST_WORDS, "a handshake without an end");
            return Ok(None);
        };
        let rest = answer.split_off(end + END.len());
        let agreed = answer.starts_with(b"HTTP/1.1 101 ");
        ensure!(agreed, "refused: {}", String::from_utf8_lossy(answer));
        let (then, missed) = (entry.then.take(), entry.missed);
        self.state = entry.ready.map_or(State::In, |ready| {
            State::Greeting(Greeting {
                words: Vec::new(),
                ready,
                shown: 0,
                missed,
            })
        });
        if let Some(then) = then {
            self.send(&masked(0x81, &then))?;
        }
        Ok(Some(rest))
    }

    fn take(&mut self, input: &[u8], count: Count, mut b: Brought) -> anyhow::Result<Brought> {
        let (state, socket, mut trouble) = (&mut self.state, &self.socket, None);
        let taken = self.frames.take(input, |piece| match (piece, &mut *state) {
            (Piece::Content(part), State::Greeting(greeting)) => {
                greeting.words.extend_from_slice(part);
            }
            (Piece::End, State::Greeting(greeting)) => match greeting.end() {
                Ok(false) => {}
                Ok(true) => (*state, b.entered) = (State::In, true),
                Err(error) => trouble = Some(error),
            },
            (Piece::Content(part), _) => match count {
                Count::Messages | Count::Entries => {}
                Count::Lines => b.deliveries += lines(part),
                // The messages are short: the stamp is cut in two so rarely that it may be missed.
                Count::Ages => b.ages.extend(age(part, now())),
            },
            (Piece::End, _) => b.deliveries += u64::from(count != Count::Lines),
            (Piece::Ping(content), _) => {
                let mut socket: &TcpStream = socket;
                if let Err(error) = socket.write_all(&masked(0x8a, content)) {
                    trouble = Some(error.into());
                }
            }
            (Piece::Close(code), _) => {
                trouble = Some(anyhow::anyhow!(
                    "the server closed a connection with {code}"
                ));
            }
        });
        if taken.is_err() {
            bail!("the server broke the protocol");
        }
        trouble.map_or(Ok(b), Err)
    }
}

#[expect(
    clippy::naive_bytecount,
    reason = "the compiler makes it fast enough without a crate"
)]
fn lines(part: &[u8]) -> u64 {
    part.iter().filter(|&&byte| byte == b'\n').count() as u64
}

impl Greeting {
    /// Whether the message that ends lets the client in.
    fn end(&mut self) -> anyhow::Result<bool> {
        let message = std::mem::take(&mut self.words);
        let message = String::from_utf8_lossy(&message);
        if let Some(number) = number(&message) {
            self.shown += 1;
            let wants = self.shown;
            ensure!(number == wants, "event {number} came instead of {wants}");
            return Ok(false);
        }
        for bad in [r#""error""#, r#""recovered":false"#] {
            ensure!(!message.contains(bad), "refused: {message}");
        }
        let is_in = message.contains(self.ready);
        let (shown, missed) = (self.shown, self.missed);
        ensure!(
            !is_in || shown == missed,
            "{shown} events came instead of {missed}"
        );
        Ok(is_in)
    }
}
