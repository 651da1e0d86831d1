//! `[endpoint."kind"]`: a URL that runs a kind of job.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use bellhop_common::config::{HumanDuration, HumanSize, Secret};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize, Serializer};
use thiserror::Error;

/// What the worker itself says in a request, in lower case.
const OURS: [&str; 7] = [
    "connection",
    "content-length",
    "content-type",
    "idempotency-key",
    "te",
    "traceparent",
    "transfer-encoding",
];

/// What the names of all headers that describe the job begin with.
const OUR_PREFIX: &str = "x-bellhop-";

/// `[endpoint."kind"]`: a URL that runs a kind of job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EndpointConfig {
    /// Where to post the job. A name and a password in it are sent as basic authentication.
    pub url: EndpointUrl,
    /// How long an attempt may take; unset leaves it to the worker.
    pub timeout: Option<HumanDuration>,
    /// How long it may take to get a connection.
    pub connect_timeout: HumanDuration,
    /// Headers to send besides. Their values are never printed.
    pub headers: BTreeMap<String, Secret>,
    /// The longest line of a streamed answer, or the longest answer that is not one; and so the
    /// largest result.
    pub max_output: HumanSize,
    /// How much a streamed answer may have in all.
    pub max_total_output: HumanSize,
    /// PEM file with the CA that signed the server's certificate. The system's are trusted too.
    pub ca_file: Option<PathBuf>,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: EndpointUrl(Secret::new("")),
            timeout: None,
            connect_timeout: HumanDuration::from_secs(10),
            headers: BTreeMap::new(),
            max_output: HumanSize::kib(1024),
            max_total_output: HumanSize::kib(64 * 1024),
            ca_file: None,
        }
    }
}

/// An endpoint's address. Only its scheme, host and port are ever printed: whatever else is in it
/// may be a credential.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct EndpointUrl(Secret);

impl EndpointUrl {
    /// Wraps an address.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(Secret::new(url))
    }

    /// The address with all that is in it, for the one place that calls it.
    pub(super) fn parse(&self) -> Result<Url, &'static str> {
        if self.0.expose().is_empty() {
            return Err("is missing: write it like \"https://api.example.com/jobs/resize\"");
        }
        // The parser's own error may quote what it did not like.
        let url = Url::parse(self.0.expose())
            .map_err(|_| "is no address: write it like \"https://api.example.com/jobs/resize\"")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("must begin with http:// or https://");
        }
        Ok(url)
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parse() {
            Ok(url) => f.write_str(&url.origin().ascii_serialization()),
            // Not an address; whatever it is, it may be the secret itself.
            Err(_) => f.write_str("***"),
        }
    }
}

impl fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for EndpointUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why an endpoint cannot run a kind of job: one sentence for each thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.join("\n"))]
pub struct InvalidEndpoint(pub Vec<String>);

impl EndpointConfig {
    /// An address, and the defaults for everything else.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: EndpointUrl::new(url),
            ..Self::default()
        }
    }

    /// What is wrong, one sentence each, for the section of that kind; empty when nothing is.
    #[must_use]
    pub fn problems(&self, kind: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let mut problem =
            |key: &str, text: String| problems.push(format!("endpoint.{kind:?}.{key} {text}"));
        let url = self.url.parse();
        if let Err(text) = url {
            problem("url", text.into());
        }
        for (name, value) in &self.headers {
            // The value is a secret; only its header is named.
            if let Err(text) = header(name, value) {
                problem("headers", format!("has {name:?}, {text}"));
            }
        }
        let logs_in = |url: &Url| !url.username().is_empty() || url.password().is_some();
        let authorized = |name: &String| name.eq_ignore_ascii_case("authorization");
        if url.is_ok_and(|url| logs_in(&url)) && self.headers.keys().any(authorized) {
            problem(
                "headers",
                "has \"authorization\", and url a name or a password: leave one of them out".into(),
            );
        }
        for (key, time) in [
            ("timeout", self.timeout),
            ("connect_timeout", Some(self.connect_timeout)),
        ] {
            if time.is_some_and(|time| time.0.is_zero()) {
                problem(key, "must be more than zero".into());
            }
        }
        if self.max_output.0 == 0 {
            problem("max_output", "must be more than zero".into());
        }
        if self.max_total_output < self.max_output {
            problem(
                "max_total_output",
                format!(
                    "({}) is less than max_output ({}), which one line may have",
                    self.max_total_output, self.max_output
                ),
            );
        }
        problems
    }

    /// The headers to send besides. Those that are wrong are [problems](Self::problems).
    pub(super) fn headers(&self) -> HeaderMap {
        self.headers
            .iter()
            .filter_map(|(name, value)| header(name, value).ok())
            .collect()
    }
}

fn header(name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue), &'static str> {
    let name = HeaderName::try_from(name).map_err(|_| "which is no name of a header")?;
    if OURS.contains(&name.as_str()) || name.as_str().starts_with(OUR_PREFIX) {
        return Err("which the worker sets itself");
    }
    let mut value = HeaderValue::try_from(value.expose()).map_err(
        |_| "whose value no header can have: a line break, or another control character",
    )?;
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let config: EndpointConfig = serde_json::from_str(r#"{"url": "http://h/jobs"}"#).unwrap();
        assert_eq!(config.max_output.0, 1 << 20);
        assert_eq!(config.connect_timeout, HumanDuration::from_secs(10));
        assert!(config.timeout.is_none() && config.ca_file.is_none());
        assert_eq!(config.problems("a.b"), Vec::<String>::new());
        assert!(serde_json::from_str::<EndpointConfig>(r#"{"uri": "http://h/"}"#).is_err());
    }

    #[test]
    fn credentials_are_never_printed() {
        for url in [
            "https://ann:hunter2@h.example:8443/jobs",
            "https://h.example:8443/hooks/hunter2?token=hunter2#hunter2",
            "hunter2",
            "https://hunter2 /",
        ] {
            let text = format!(
                r#"{{"url": "{url}", "headers": {{"authorization": "hunter2", "x": "hunter2\n"}}}}"#
            );
            let config: EndpointConfig = serde_json::from_str(&text.replace('\n', "\\n")).unwrap();
            for output in [
                format!("{config:?}"),
                serde_json::to_string(&config).unwrap(),
                config.problems("a.b").join("\n"),
            ] {
                assert!(!output.contains("hunter2"), "{output}");
            }
        }
        let url = EndpointUrl::new("https://ann:x@h.example:8443/jobs");
        assert_eq!(url.to_string(), "https://h.example:8443");
    }

    #[test]
    fn each_wrong_value_is_named_with_its_kind() {
        for (config, wants) in [
            (r#"{"url": ""}"#, "url is missing"),
            (r#"{"url": "jobs"}"#, "url is no address"),
            (r#"{"url": "ftp://h/"}"#, "url must begin with http"),
            (
                r#"{"headers": {"a b": "x"}}"#,
                "headers has \"a b\", which is no name",
            ),
            (
                r#"{"headers": {"a": "x\n"}}"#,
                "headers has \"a\", whose value",
            ),
            (
                r#"{"headers": {"Content-Type": "x"}}"#,
                "headers has \"Content-Type\", which the worker sets",
            ),
            (
                r#"{"headers": {"X-Bellhop-Attempt": "1"}}"#,
                "headers has \"X-Bellhop-Attempt\", which the worker sets",
            ),
            (
                r#"{"url": "http://ann:x@h/", "headers": {"Authorization": "x"}}"#,
                "headers has \"authorization\", and url",
            ),
            (r#"{"timeout": "0s"}"#, "timeout must"),
            (r#"{"connect_timeout": "0s"}"#, "connect_timeout must"),
            (r#"{"max_output": 0}"#, "max_output must"),
            (
                r#"{"max_total_output": "1023KiB"}"#,
                "max_total_output (1023KiB) is less than max_output (1MiB)",
            ),
        ] {
            let mut fields: serde_json::Value =
                serde_json::from_str(&config.replace("\\n", "\\u000a")).unwrap();
            if fields.get("url").is_none() {
                fields["url"] = "http://h/".into();
            }
            let config: EndpointConfig = serde_json::from_value(fields).unwrap();
            let problems = config.problems("a.b");
            assert_eq!(problems.len(), 1, "{problems:?}");
            let wants = format!("endpoint.\"a.b\".{wants}");
            assert!(problems[0].starts_with(&wants), "{problems:?}");
        }
    }
}
