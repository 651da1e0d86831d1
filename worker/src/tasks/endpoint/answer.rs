//! What an answer says, chunk by chunk. No I/O.

use std::fmt;
use std::time::Duration;

use bellhop_common::config::HumanSize;
use bellhop_common::http;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde_json::Value;

use super::config::EndpointConfig;
use crate::tasks::output::{Output, Said, TooLarge};

/// The longest wait that a server may ask for: quotas are often daily, and a mistaken answer must
/// not put a job off for a year.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// When a server wants to be asked again.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    http::retry_after(text, Timestamp::now(), RETRY_AFTER_MAX)
}

/// An answer, or a line of it, is longer than allowed.
#[derive(Debug)]
pub(super) enum Excess {
    Line(HumanSize),
    Total(HumanSize),
    Body(HumanSize),
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(limit) => write!(
                f,
                "answered with a line of more than {limit}: send shorter lines, or raise max_output"
            ),
            Self::Total(limit) => write!(
                f,
                "answered with more than {limit} in all: send less, or raise max_total_output"
            ),
            Self::Body(limit) => write!(
                f,
                "answered with more than {limit}: send less, or raise max_output"
            ),
        }
    }
}

/// Reads a body by its type.
pub(super) struct Reader {
    body: Body,
    line: HumanSize,
    total: HumanSize,
}

enum Body {
    Lines(Output),
    Whole { bytes: Vec<u8>, json: bool },
}

impl Reader {
    pub(super) fn new(headers: &HeaderMap, config: &EndpointConfig) -> Self {
        let (line, total) = (config.max_output, config.max_total_output);
        let media_type = media_type(headers);
        let body = if media_type == "application/x-ndjson" {
            Body::Lines(Output::new(line.bytes(), total.0))
        } else {
            Body::Whole {
                bytes: Vec::new(),
                json: media_type == "application/json" || media_type.ends_with("+json"),
            }
        };
        Self { body, line, total }
    }

    /// Takes the next bytes and tells `progress` what they say.
    pub(super) fn push(&mut self, chunk: &[u8], said: impl FnMut(Said)) -> Result<(), Excess> {
        match &mut self.body {
            Body::Lines(output) => output.push(chunk, said).map_err(|excess| match excess {
                TooLarge::Line => Excess::Line(self.line),
                TooLarge::Total => Excess::Total(self.total),
            }),
            Body::Whole { bytes, .. } => {
                if bytes.len().saturating_add(chunk.len()) > self.line.bytes() {
                    return Err(Excess::Body(self.line));
                }
                bytes.extend_from_slice(chunk);
                Ok(())
            }
        }
    }

    /// The result, when nothing more comes.
    pub(super) fn finish(self, said: impl FnMut(Said)) -> Result<Value, serde_json::Error> {
        match self.body {
            Body::Lines(mut output) => {
                let result = output.finish(said);
                if output.malformed > 0 {
                    let lines = output.malformed;
                    tracing::debug!(lines, "lines for the owner were not understood");
                }
                Ok(result)
            }
            Body::Whole { bytes, .. } if bytes.trim_ascii().is_empty() => Ok(Value::Null),
            Body::Whole { bytes, json } => match serde_json::from_slice(&bytes) {
                // Half of an answer must not pass for a text.
                Err(error) if json => Err(error),
                Ok(value) => Ok(value),
                Err(_) => Ok(Value::String(String::from_utf8_lossy(&bytes).into_owned())),
            },
        }
    }
}

/// What kind of body follows, in lower case and without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let name = value.unwrap_or_default().split(';').next();
    name.unwrap_or_default().trim().to_ascii_lowercase()
}
