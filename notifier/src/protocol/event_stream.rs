//! Frames as Server-Sent Events (HTML, 9.2): the same texts for clients that only read.

use std::io::Write as _;
use std::time::Duration;

use super::frame::Frame;

/// A comment, which clients pass over.
pub const HEARTBEAT: &[u8] = b":\n\n";

/// Writes a frame. Without an event name, so that `onmessage` sees every type; with an id only
/// where it says something new, so that the client's last one stays otherwise.
pub fn write(frame: &Frame, id: Option<&str>, stream: &mut Vec<u8>) {
    if let Some(id) = id {
        // Into memory, which takes everything.
        drop(writeln!(stream, "id: {id}"));
    }
    for line in lines(frame.text()) {
        stream.extend_from_slice(b"data: ");
        stream.extend_from_slice(line.as_bytes());
        stream.push(b'\n');
    }
    stream.push(b'\n');
}

/// Tells the client how long to wait before it comes back.
pub fn write_retry(after: Duration, stream: &mut Vec<u8>) {
    drop(write!(stream, "retry: {}\n\n", after.as_millis()));
}

/// What backends publish goes through untouched, with line breaks of any kind between its tokens.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.split('\n');
    let lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
    lines.flat_map(|line| line.split('\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frame: &Frame, id: Option<&str>) -> String {
        let mut stream = Vec::new();
        write(frame, id, &mut stream);
        String::from_utf8(stream).unwrap()
    }

    #[test]
    fn an_event_is_its_id_its_lines_and_an_end() {
        let frame = Frame::new(r#"{"type":"x"}"#);
        assert_eq!(written(&frame, None), "data: {\"type\":\"x\"}\n\n");
        let wants = "id: all.1.2\ndata: {\"type\":\"x\"}\n\n";
        assert_eq!(written(&frame, Some("all.1.2")), wants);
    }

    #[test]
    fn no_line_break_ends_an_event_early() {
        for (text, wants) in [
            ("a\nb", "data: a\ndata: b\n\n"),
            ("a\r\nb", "data: a\ndata: b\n\n"),
            ("a\rb", "data: a\ndata: b\n\n"),
            ("a\n\nb", "data: a\ndata: \ndata: b\n\n"),
            ("a\r\rb", "data: a\ndata: \ndata: b\n\n"),
            ("a\n\rb", "data: a\ndata: \ndata: b\n\n"),
            ("é\u{2028}\u{85}", "data: é\u{2028}\u{85}\n\n"),
        ] {
            assert_eq!(written(&Frame::new(text), None), wants, "{text:?}");
        }
    }

    #[test]
    fn the_wait_is_in_milliseconds() {
        let mut stream = Vec::new();
        write_retry(Duration::from_secs(3), &mut stream);
        assert_eq!(stream, b"retry: 3000\n\n");
    }
}
