//! The bytes of a socket, read as the notifier reads them.
#![no_main]

use std::io::{self, Read, Write};

use bellhop_notifier::{WebSocketConfig, socket_config};
use libfuzzer_sys::fuzz_target;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Message, WebSocket};

/// Small, so that inputs reach it.
const LIMIT: u64 = 256;

/// Gives its bytes in pieces, and counts what is answered.
struct Wire<'a> {
    bytes: &'a [u8],
    piece: usize,
    answered: usize,
}

impl Read for Wire<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.piece.min(into.len());
        let piece = piece.min(self.bytes.len());
        let (now, later) = self.bytes.split_at(piece);
        into[..piece].copy_from_slice(now);
        self.bytes = later;
        Ok(piece)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.answered += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came of it: the messages, and the kind of error at the end.
fn read_all(bytes: &[u8], piece: usize) -> (Vec<Message>, String) {
    let mut settings = WebSocketConfig::default();
    settings.max_message_size.0 = LIMIT;
    let wire = Wire {
        bytes,
        piece,
        answered: 0,
    };
    let config = Some(socket_config(&settings));
    let mut socket = WebSocket::from_raw_socket(wire, Role::Server, config);
    let mut messages = Vec::new();
    let error = loop {
        match socket.read() {
            Ok(message) => {
                assert!(message.len() as u64 <= LIMIT, "{}", message.len());
                messages.push(message);
            }
            Err(error) => break error,
        }
        // A message has at least the two bytes of a frame's head.
        assert!(messages.len() <= bytes.len() / 2);
    };
    // The notifier reads no further, which the library would.
    // Each frame is answered by at most its own size and a head.
    assert!(socket.get_ref().answered <= 2 * bytes.len() + 256);
    (messages, error.to_string())
}

fuzz_target!(|bytes: &[u8]| {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read_all(bytes, usize::MAX);
    let pieces = read_all(bytes, usize::from(*piece).max(1));
    assert_eq!(whole, pieces, "it does not matter how the bytes are cut");
});
