//! The log lines of a task that wait to be told. Pure: the time is an argument.

use std::collections::VecDeque;

use bellhop_common::wire::{LogLine, cut};
use jiff::Timestamp;

/// What one event carries at most. A page shows far less, and a program that writes more than this
/// each [interval](crate::log_feed) is not read by anybody line by line.
const MAX_LINES: usize = 100;
const MAX_BYTES: usize = 16 * 1024;

/// A longer line is cut.
const MAX_LINE_BYTES: usize = 1024;

/// What a line costs besides its text: the time, and the JSON around both.
const LINE_OVERHEAD: usize = 64;

/// The newest lines that are not told yet, and how many older ones had to go.
#[derive(Debug, Default)]
pub(crate) struct LogBuffer {
    lines: VecDeque<LogLine>,
    bytes: usize,
    dropped: u64,
}

/// What one event tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) lines: Vec<LogLine>,
    pub(crate) dropped: u64,
}

impl LogBuffer {
    /// Adds what a handler says; each line of it is a line, and blank ones are left out. When
    /// there is no room the oldest goes.
    pub(crate) fn push(&mut self, text: &str, now: Timestamp) {
        for line in text.lines().map(str::trim_end) {
            if line.is_empty() {
                continue;
            }
            let text = shortened(line);
            self.bytes = self.bytes.saturating_add(cost(&text));
            self.lines.push_back(LogLine { at: now, text });
            while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
                let Some(oldest) = self.lines.pop_front() else {
                    break;
                };
                self.bytes = self.bytes.saturating_sub(cost(&oldest.text));
                self.dropped = self.dropped.saturating_add(1);
            }
        }
    }

    /// Takes all that waits; `None` when nothing does.
    pub(crate) fn take(&mut self) -> Option<Batch> {
        let Self { lines, dropped, .. } = std::mem::take(self);
        // Only a line drives others out, and the newest stays: without lines nothing was dropped.
        (!lines.is_empty()).then(|| Batch {
            lines: lines.into(),
            dropped,
        })
    }

    /// The lines that wait.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(|line| line.text.as_str())
    }
}

fn cost(text: &str) -> usize {
    text.len().saturating_add(LINE_OVERHEAD)
}

fn shortened(line: &str) -> String {
    if line.len() <= MAX_LINE_BYTES {
        return line.to_owned();
    }
    let kept = cut(line, MAX_LINE_BYTES.saturating_sub('…'.len_utf8()));
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-01-15T10:30:00Z".parse().unwrap()
    }

    fn texts(buffer: &mut LogBuffer) -> (Vec<String>, u64) {
        let batch = buffer.take().unwrap();
        let texts = batch.lines.into_iter().map(|line| line.text);
        (texts.collect(), batch.dropped)
    }

    #[test]
    fn lines_come_out_once_and_in_order() {
        let mut buffer = LogBuffer::default();
        assert_eq!(buffer.take(), None);
        buffer.push("one", now());
        buffer.push("two\r\n\n  three \n", now());
        buffer.push("", now());
        assert_eq!(
            texts(&mut buffer),
            (vec!["one".into(), "two".into(), "  three".into()], 0)
        );
        assert_eq!(buffer.take(), None);
    }

    #[test]
    fn the_oldest_lines_make_room_and_are_counted() {
        let mut buffer = LogBuffer::default();
        for n in 0..1000 {
            buffer.push(&n.to_string(), now());
        }
        let (lines, dropped) = texts(&mut buffer);
        assert_eq!((lines.len(), dropped), (MAX_LINES, 900));
        assert_eq!(lines.last().unwrap(), "999");
        buffer.push("next", now());
        assert_eq!(texts(&mut buffer), (vec!["next".into()], 0), "counted once");
    }

    #[test]
    fn long_lines_are_cut_and_bytes_are_bounded() {
        let mut buffer = LogBuffer::default();
        for _ in 0..100 {
            buffer.push(&"é".repeat(100_000), now());
            assert!(buffer.bytes <= MAX_BYTES);
        }
        let (lines, dropped) = texts(&mut buffer);
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= MAX_LINE_BYTES && line.ends_with("é…"))
        );
        assert_eq!(lines.len() as u64 + dropped, 100);
        buffer.push(&"x".repeat(MAX_LINE_BYTES), now());
        assert!(
            !texts(&mut buffer).0[0].ends_with('…'),
            "one that just fits is whole"
        );
    }
}
