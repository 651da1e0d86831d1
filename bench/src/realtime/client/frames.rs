//! Frames that a server sends, taken apart as they come: the heads are read, contents passed on in
//! the pieces in which they arrive. Pure.

/// Of a frame's head that has only begun to arrive.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; 10],
    have: usize,
}

/// Where a connection stands in what it reads.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    head: Head,
    kind: Kind,
    is_last: bool,
    /// Of the frame's content, still to come.
    left: u64,
    control: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    None,
    Data,
    Ping,
    Close,
    Pong,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A part of a message's content.
    Content(&'a [u8]),
    /// A message has ended.
    End,
    /// A ping, to be answered with this content.
    Ping(&'a [u8]),
    /// The server says goodbye, with a code.
    Close(u16),
}

/// The bytes are not frames of a server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Head {
    /// Takes bytes up to the head's end; `None` until then. Answers kind, FIN and length.
    fn take(&mut self, input: &mut &[u8]) -> Result<Option<(Kind, bool, u64)>, Malformed> {
        while let Some((&first, rest)) = input.split_first() {
            if let Some(slot) = self.bytes.get_mut(self.have) {
                *slot = first;
            }
            self.have += 1;
            *input = rest;
            if self.have >= 2 && self.have == self.size() {
                self.have = 0;
                return self.read().map(Some);
            }
        }
        Ok(None)
    }

    fn size(&self) -> usize {
        match self.bytes[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn read(&self) -> Result<(Kind, bool, u64), Malformed> {
        let [first, second, ..] = self.bytes;
        let kind = match first & 0x0f {
            0..=2 => Kind::Data,
            8 => Kind::Close,
            9 => Kind::Ping,
            10 => Kind::Pong,
            _ => return Err(Malformed),
        };
        let length = match second {
            126 | 127 => {
                let extended = self.bytes.get(2..self.size()).unwrap_or_default();
                extended
                    .iter()
                    .fold(0, |length, &byte| length << 8 | u64::from(byte))
            }
            short @ 0..=125 => u64::from(short),
            // A server never masks.
            _ => return Err(Malformed),
        };
        if first & 0x70 != 0 || (kind != Kind::Data && length > 125) {
            return Err(Malformed);
        }
        Ok((kind, first & 0x80 != 0, length))
    }
}

impl Frames {
    /// Takes what was read from the socket.
    pub(crate) fn take(
        &mut self,
        mut input: &[u8],
        mut each: impl FnMut(Piece<'_>),
    ) -> Result<(), Malformed> {
        loop {
            if self.kind == Kind::None {
                let Some((kind, is_last, left)) = self.head.take(&mut input)? else {
                    return Ok(());
                };
                (self.kind, self.is_last, self.left) = (kind, is_last, left);
            }
            let here = usize::try_from(self.left).map_or(input.len(), |left| left.min(input.len()));
            let (content, rest) = input.split_at(here);
            input = rest;
            self.left -= here as u64;
            match self.kind {
                Kind::Data if here > 0 => each(Piece::Content(content)),
                Kind::Ping | Kind::Close => self.control.extend_from_slice(content),
                _ => {}
            }
            if self.left > 0 {
                return Ok(());
            }
            self.end(&mut each);
        }
    }

    fn end(&mut self, each: &mut impl FnMut(Piece<'_>)) {
        match self.kind {
            Kind::Data if self.is_last => each(Piece::End),
            Kind::Ping => each(Piece::Ping(&self.control)),
            Kind::Close => {
                let code = self.control.first_chunk().copied();
                each(Piece::Close(code.map_or(1005, u16::from_be_bytes)));
            }
            _ => {}
        }
        // Not only emptied: a beat every half minute is no reason to keep memory.
        self.control = Vec::new();
        self.kind = Kind::None;
    }
}

/// A client's frame; `first` is the byte of FIN and opcode. The mask is zero, which leaves the
/// content as it is.
pub(crate) fn masked(first: u8, content: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(content.len() + 8);
    frame.push(first);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn server(first: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = masked(first, content);
        let at = frame.len() - content.len() - 4;
        frame.drain(at..at + 4);
        frame[1] &= 0x7f;
        frame
    }

    fn read(bytes: &[u8], step: usize) -> Vec<String> {
        let (mut frames, mut found, mut text) = (Frames::default(), Vec::new(), Vec::new());
        for part in bytes.chunks(step) {
            let each = |piece: Piece<'_>| match piece {
                Piece::Content(part) => text.extend_from_slice(part),
                Piece::End => found.push(format!("{}", std::mem::take(&mut text).len())),
                Piece::Ping(content) => found.push(format!("ping {content:?}")),
                Piece::Close(code) => found.push(format!("close {code}")),
            };
            frames.take(part, each).unwrap();
        }
        found
    }

    #[test]
    fn frames_of_every_length_are_found_however_they_are_cut() {
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            bytes.extend(server(0x81, &vec![b'x'; length]));
        }
        bytes.extend(server(0x89, b"hi"));
        bytes.extend(server(0x8a, b"unasked"));
        bytes.extend(server(0x01, b"in "));
        bytes.extend(server(0x80, b"two"));
        bytes.extend(server(0x88, &1012_u16.to_be_bytes()));
        bytes.extend(server(0x88, b""));
        let wants = [
            "0",
            "1",
            "125",
            "126",
            "65535",
            "65536",
            "ping [104, 105]",
            "6",
            "close 1012",
            "close 1005",
        ];
        for step in [1, 2, 3, 7, 1000, bytes.len()] {
            assert_eq!(read(&bytes, step), wants, "in steps of {step}");
        }
    }

    #[test]
    fn what_no_server_may_send_is_refused() {
        for bytes in [
            &[0x81, 0x80][..],
            &[0xc1, 0],
            &[0x83, 0],
            &[0x89, 126, 0, 200],
        ] {
            let taken = Frames::default().take(bytes, |_| {});
            assert_eq!(taken, Err(Malformed), "{bytes:?}");
        }
    }
}
