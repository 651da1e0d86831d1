//! A frame as it goes over the wire: encoded once, shared by all who get it.

use std::sync::Arc;

use bytes::Bytes;

use crate::store::{Position, StreamName};

/// FIN and the opcode of a text (RFC 6455, 5.2).
const TEXT: u8 = 0x81;

/// FIN and the opcode of a ping.
const PING: u8 = 0x89;

/// A whole WebSocket frame with a text; clones share its bytes. The server's frames are not masked,
/// so that the same bytes are good for every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    wire: Bytes,
    /// How many of the bytes are the frame's head.
    head: u8,
    /// A frame that waits in a queue is replaced by a newer one of the same subject: of a task's
    /// progress only the newest counts.
    pub subject: Option<Arc<str>>,
    /// What it says of streams.
    pub at: Option<Arc<At>>,
}

/// What a frame says of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// It tells the stored event that stands there.
    Event(StreamName, Position),
    /// From here on they come by themselves. What was before is not shown any more.
    GoOn(Vec<(StreamName, Position)>),
}

impl Frame {
    /// A frame with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut wire = Vec::with_capacity(text.len() + 10);
        wire.push(TEXT);
        match u16::try_from(text.len()) {
            Ok(length @ 0..=125) => wire.extend(length.to_be_bytes().get(1)),
            Ok(length) => {
                wire.push(126);
                wire.extend(length.to_be_bytes());
            }
            Err(_) => {
                wire.push(127);
                wire.extend((text.len() as u64).to_be_bytes());
            }
        }
        let head = u8::try_from(wire.len()).unwrap_or_default();
        wire.extend_from_slice(text.as_bytes());
        Self {
            wire: wire.into(),
            head,
            subject: None,
            at: None,
        }
    }

    /// Asks the client for a sign of life (RFC 6455, 5.5.2).
    #[must_use]
    pub fn ping() -> Self {
        Self {
            wire: Bytes::from_static(&[PING, 0]),
            head: 2,
            subject: None,
            at: None,
        }
    }

    /// The same, where it is the frame that says from where on these streams come by themselves.
    #[must_use]
    pub fn with_start(mut self, streams: Vec<(StreamName, Position)>) -> Self {
        if !streams.is_empty() {
            self.at = Some(Arc::new(At::GoOn(streams)));
        }
        self
    }

    /// Where the stored event stands that it tells, if it tells one.
    #[must_use]
    pub fn event(&self) -> Option<(&StreamName, Position)> {
        match self.at.as_deref()? {
            At::Event(name, position) => Some((name, *position)),
            At::GoOn(_) => None,
        }
    }

    /// The bytes of the frame, head and text.
    #[must_use]
    pub fn wire(&self) -> &[u8] {
        &self.wire
    }

    /// The text alone.
    #[must_use]
    pub fn text(&self) -> &str {
        let text = self.wire.get(usize::from(self.head)..).unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    #[test]
    fn another_implementation_reads_every_length_the_same() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20] {
            let text = "é".repeat(length / 2) + &"x".repeat(length % 2);
            let frame = Frame::new(&text);
            let mut wire = std::io::Cursor::new(frame.wire());
            let (header, found) = FrameHeader::parse(&mut wire).unwrap().unwrap();
            assert!(header.is_final && header.mask.is_none());
            assert_eq!(found, length as u64);
            assert_eq!(frame.text(), text);
            assert_eq!(frame.wire().len() as u64, wire.position() + found);
        }
    }
}
