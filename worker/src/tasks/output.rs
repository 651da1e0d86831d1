//! What a program says on stdout, or an endpoint in its answer, line by line. No I/O.

use bellhop_common::wire::Progress;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::task::TaskContext;

/// More came than is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TooLarge {
    /// In one line.
    Line,
    /// In all.
    Total,
}

/// What a line says to the job's owner.
#[derive(Debug, PartialEq)]
pub(super) enum Said {
    Progress(Progress),
    Log(String),
}

impl Said {
    pub(super) fn tell(self, ctx: &TaskContext) {
        match self {
            Self::Progress(progress) => ctx.progress(progress),
            Self::Log(line) => ctx.log(line),
        }
    }
}

/// Takes lines apart. Holds at most two of them.
pub(super) struct Output {
    /// What has come of the line that is being read.
    line: Vec<u8>,
    /// The last line that was neither blank nor said to the owner; empty when there was none.
    last: Vec<u8>,
    longest: usize,
    /// How many more bytes may come.
    left: u64,
    /// How many lines for the owner could not be understood.
    pub(super) malformed: u64,
}

impl Output {
    /// A line may have `longest` bytes without its end, and all of them `total` with theirs.
    pub(super) fn new(longest: usize, total: u64) -> Self {
        Self {
            line: Vec::new(),
            last: Vec::new(),
            longest,
            left: total,
            malformed: 0,
        }
    }

    /// Takes the next bytes and tells `said` what they say.
    pub(super) fn push(
        &mut self,
        bytes: &[u8],
        mut said: impl FnMut(Said),
    ) -> Result<(), TooLarge> {
        let count = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.left = self.left.checked_sub(count).ok_or(TooLarge::Total)?;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            if self.line.len().saturating_add(text.len()) > self.longest {
                return Err(TooLarge::Line);
            }
            self.line.extend_from_slice(text);
            if ended {
                self.end_line(&mut said);
            }
        }
        Ok(())
    }

    /// The result, when nothing more comes. The last line need not have an end.
    pub(super) fn finish(&mut self, mut said: impl FnMut(Said)) -> Value {
        self.end_line(&mut said);
        if self.last.is_empty() {
            return Value::Null;
        }
        let text = String::from_utf8_lossy(&self.last);
        serde_json::from_str(&text)
            .unwrap_or_else(|_| Value::String(text.strip_suffix('\r').unwrap_or(&text).to_owned()))
    }

    fn end_line(&mut self, said: &mut impl FnMut(Said)) {
        match classify(&self.line) {
            Line::Blank => {}
            Line::Said(what) => said(what),
            Line::Malformed => self.malformed = self.malformed.saturating_add(1),
            Line::Other => std::mem::swap(&mut self.last, &mut self.line),
        }
        self.line.clear();
    }
}

#[derive(Debug, PartialEq)]
enum Line {
    Blank,
    Said(Said),
    /// Meant for the owner, but not understood.
    Malformed,
    Other,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressLine {
    progress: Progress,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LogLine {
    log: String,
}

fn classify(line: &[u8]) -> Line {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Line::Blank;
    }
    // Most lines of a chatty program end here, unparsed.
    let key = line.strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let starts = |name: &[u8]| key.is_some_and(|key| key.starts_with(name));
    if !starts(b"\"progress\"") && !starts(b"\"log\"") {
        return Line::Other;
    }
    let text = String::from_utf8_lossy(line);
    if let Ok(ProgressLine { progress }) = serde_json::from_str(&text) {
        return Line::Said(Said::Progress(tidy(progress)));
    }
    if let Ok(LogLine { log }) = serde_json::from_str(&text) {
        return Line::Said(Said::Log(log));
    }
    // A result may have a field of that name among others.
    match serde_json::from_str::<Map<String, Value>>(&text) {
        Ok(fields) if fields.len() > 1 => Line::Other,
        _ => Line::Malformed,
    }
}

/// Fills in the percentage and keeps it within bounds.
fn tidy(mut progress: Progress) -> Progress {
    progress.percent = match (progress.percent, progress.done, progress.total) {
        (Some(percent), _, _) if percent.is_finite() => Some(percent.clamp(0.0, 100.0)),
        (_, Some(done), Some(total)) => Progress::of(done, total, "").percent,
        _ => None,
    };
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Everything that `chunks` say: to the owner, as the result, and how many were malformed.
    fn hear(chunks: &[&[u8]]) -> (Vec<Said>, Value, u64) {
        let mut output = Output::new(200, 10_000);
        let mut seen = Vec::new();
        for chunk in chunks {
            output.push(chunk, |said| seen.push(said)).unwrap();
        }
        let result = output.finish(|said| seen.push(said));
        (seen, result, output.malformed)
    }

    /// The same when all that is said is progress.
    fn read(chunks: &[&[u8]]) -> (Vec<Progress>, Value, u64) {
        let (said, result, malformed) = hear(chunks);
        let progress = said.into_iter().map(|said| match said {
            Said::Progress(progress) => progress,
            Said::Log(line) => panic!("a log line: {line}"),
        });
        (progress.collect(), result, malformed)
    }

    fn result(text: &str) -> Value {
        read(&[text.as_bytes()]).1
    }

    #[test]
    fn the_last_line_that_is_not_progress_is_the_result() {
        for (text, wants) in [
            ("", json!(null)),
            ("\n \n\r\n", json!(null)),
            ("{\"progress\":{\"percent\":1}}\n", json!(null)),
            ("{\"a\":1}\n", json!({"a": 1})),
            ("{\"a\":1}", json!({"a": 1})),
            ("1\n2\n\n", json!(2)),
            ("2\n{\"progress\":{\"percent\":1}}\n", json!(2)),
            ("hello there\r\n", json!("hello there")),
            (" {\"a\":1} \r\n", json!({"a": 1})),
            ("{\"a\":\n", json!("{\"a\":")),
            ("null\n", json!(null)),
            ("\"a\"\n", json!("a")),
        ] {
            assert_eq!(result(text), wants, "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_are_replaced() {
        assert_eq!(read(&[b"a\xff\xfeb\n"]).1, json!("a\u{fffd}\u{fffd}b"));
        assert_eq!(read(&[b"\"\xff\"\n"]).1, json!("\u{fffd}"));
        let (seen, _, _) = read(&[b"{\"progress\":{\"message\":\"\xff\"}}\n"]);
        assert_eq!(seen[0].message.as_deref(), Some("\u{fffd}"));
    }

    #[test]
    fn chunks_may_end_anywhere() {
        let text =
            "{\"progress\":{\"done\":1,\"total\":4,\"message\":\"é\"}}\n{\"ok\":\"é\"}".as_bytes();
        let whole = read(&[text]);
        assert_eq!(whole.0.len(), 1);
        assert_eq!(whole.1, json!({"ok": "é"}));
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), whole, "{cut}");
        }
        let bytes: Vec<_> = text.chunks(1).collect();
        assert_eq!(read(&bytes), whole);
    }

    #[test]
    fn progress_is_filled_in_and_kept_within_bounds() {
        let percent = |fields: &str| {
            let (seen, _, _) = read(&[format!("{{ \"progress\" :{fields}}}\n").as_bytes()]);
            assert_eq!(seen.len(), 1, "{fields}");
            seen[0].percent
        };
        assert_eq!(percent(r#"{"percent":12.5}"#), Some(12.5));
        assert_eq!(percent(r#"{"percent":120}"#), Some(100.0));
        assert_eq!(percent(r#"{"percent":-3}"#), Some(0.0));
        assert_eq!(percent(r#"{"percent":7,"done":1,"total":2}"#), Some(7.0));
        assert_eq!(percent(r#"{"done":1,"total":2}"#), Some(50.0));
        assert_eq!(percent(r#"{"done":3,"total":2}"#), Some(100.0));
        assert_eq!(percent(r#"{"done":3}"#), None);
        assert_eq!(percent(r#"{"message":"x","later":true}"#), None);
        assert_eq!(percent("{}"), None);
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let progress = Progress {
                percent: Some(odd),
                ..Progress::default()
            };
            assert_eq!(tidy(progress.clone()).percent, None);
            let counted = Progress {
                done: Some(1),
                total: Some(4),
                ..progress
            };
            assert_eq!(tidy(counted).percent, Some(25.0));
        }
    }

    #[test]
    fn malformed_progress_is_counted_and_is_no_result() {
        let lines = [
            r#"{"progress":5}"#,
            r#"{"progress":null}"#,
            r#"{"progress":{"done":-1}}"#,
            r#"{"progress":{"percent":NaN}}"#,
            r#"{"progress":{"percent":1e999}}"#,
            r#"{"progress":{"per"#,
            r#"  {"progress":{}} x"#,
        ];
        let text = format!("\"kept\"\n{}\n", lines.join("\n"));
        assert_eq!(
            read(&[text.as_bytes()]),
            (vec![], json!("kept"), lines.len() as u64)
        );
    }

    #[test]
    fn a_result_may_have_such_a_field_among_others() {
        for text in [
            r#"{"progress":"good","files":3}"#,
            r#"{"log":"a","files":3}"#,
        ] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(result(text), value);
        }
    }

    #[test]
    fn log_lines_are_told_and_are_no_result() {
        let text = b"2\n{\"log\": \"1 row skipped\"}\n{\"log\":\"\xff\"}\n{\"log\":5}\n{\"log\":";
        let (said, result, malformed) = hear(&[text]);
        let lines = ["1 row skipped", "\u{fffd}"].map(|line| Said::Log(line.into()));
        assert_eq!((said, result, malformed), (lines.into(), json!(2), 2));
    }

    #[test]
    fn progress_may_stand_in_a_step() {
        let text =
            br#"{"progress":{"step":{"name":"pack","index":2,"count":4,"done":1,"total":2}}}"#;
        let (seen, _, _) = read(&[text]);
        assert_eq!(seen[0].step.as_ref().unwrap().name, "pack");
        assert_eq!(seen[0].clone().tidied().percent, Some(37.5));
    }

    #[test]
    fn a_line_may_be_as_long_as_allowed_and_no_longer() {
        let mut output = Output::new(100, 10_000);
        for _ in 0..3 {
            output.push(&[b'x'; 100], drop).unwrap();
            output.push(b"\n", drop).unwrap();
        }
        output.push(&[b'x'; 60], drop).unwrap();
        assert_eq!(output.push(&[b'x'; 41], drop), Err(TooLarge::Line));
        let mut output = Output::new(100, 10_000);
        let progress = format!("{{\"progress\":{{\"message\":\"{}\"}}}}\n", "x".repeat(100));
        assert_eq!(output.push(progress.as_bytes(), drop), Err(TooLarge::Line));
    }

    #[test]
    fn all_lines_may_be_as_long_as_allowed_and_no_longer() {
        let mut output = Output::new(100, 10);
        output.push(b"1234\n5678\n", drop).unwrap();
        assert_eq!(output.push(b"\n", drop), Err(TooLarge::Total));
    }
}
