//! The end of what a program says on stderr. No I/O.

/// How much of stderr is kept for the error message.
const STDERR_KEPT: usize = 8 * 1024;

/// The end of what came on stderr.
#[derive(Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // Twice the size before anything moves, so that a drop at a time does not shift it all.
        if self.bytes.len() > 2 * STDERR_KEPT {
            self.trim();
        }
    }

    fn trim(&mut self) {
        let surplus = self.bytes.len().saturating_sub(STDERR_KEPT);
        self.cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    /// As text, with `…` where something was cut off.
    pub(super) fn text(&mut self) -> String {
        self.trim();
        if !self.cut {
            return String::from_utf8_lossy(&self.bytes).trim().to_owned();
        }
        // The cut may have gone through a character; its rest is at most three bytes.
        let rest = self
            .bytes
            .iter()
            .take(3)
            .take_while(|byte| **byte & 0xC0 == 0x80)
            .count();
        let whole = self.bytes.get(rest..).unwrap_or_default();
        format!("…{}", String::from_utf8_lossy(whole).trim_end())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_stderr_is_kept() {
        let mut tail = Tail::default();
        assert_eq!(tail.text(), "");
        tail.push(b"\n one\n");
        tail.push(b"two\xff\n\n");
        assert_eq!(tail.text(), "one\ntwo\u{fffd}");

        let mut tail = Tail::default();
        for n in 0..10_000 {
            tail.push(format!("line {n}\n").as_bytes());
            assert!(tail.bytes.len() <= 2 * STDERR_KEPT);
        }
        let text = tail.text();
        assert!(
            text.starts_with('…') && text.ends_with("line 9999"),
            "{text}"
        );
        assert_eq!(text.len(), STDERR_KEPT - 1 + '…'.len_utf8());
    }

    #[test]
    fn the_end_of_stderr_does_not_begin_within_a_character() {
        for shift in 0..4 {
            let mut tail = Tail::default();
            tail.push("x".repeat(shift).as_bytes());
            tail.push("🦀".repeat(STDERR_KEPT).as_bytes());
            let text = tail.text();
            assert!(text.chars().skip(1).all(|char| char == '🦀'), "{shift}");
        }
        // What is no text to begin with is not eaten up.
        let mut tail = Tail::default();
        tail.push(&vec![0x80; STDERR_KEPT + 1]);
        assert_eq!(tail.text().chars().count(), 1 + STDERR_KEPT - 3);
    }
}
