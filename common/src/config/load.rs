//! Reading the layers and laying them over each other.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

/// Environment variables that are ours begin so; `BELLHOP_AMQP__URL` is `amqp.url`.
pub const ENV_PREFIX: &str = "BELLHOP_";

/// The flags that every command with a configuration takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigFlags {
    /// TOML file to read [default: none; `BELLHOP_CONFIG` works too]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one value, e.g. `--set amqp.prefix=test.` or `--set 'queues.default.concurrency=8'`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// A service's whole configuration.
pub trait ServiceConfig: DeserializeOwned + Serialize {
    /// The other program, and its keys of the top level that this one does not have.
    const ELSEWHERE: (&'static str, &'static [&'static str]) = ("", &[]);

    /// What is wrong with the values together, one sentence each; empty when nothing is.
    fn problems(&self) -> Vec<String>;
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A value or key is wrong; `place` is a line of the file, a variable or a flag.
    #[error("{place}: {message}")]
    Invalid {
        /// Where it stands.
        place: String,
        /// What is wrong, and the nearest known key if a key is.
        message: String,
    },
    /// Values are wrong together.
    #[error("the configuration does not fit together:\n  - {}", .0.join("\n  - "))]
    Inconsistent(Vec<String>),
}

/// Where values come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A TOML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without [`ENV_PREFIX`] are passed over.
    pub environment: Vec<(String, String)>,
    /// `key=value` flags.
    pub flags: Vec<String>,
}

impl Sources {
    /// The process's environment and the given flags.
    #[must_use]
    pub fn of_process(flags: &ConfigFlags) -> Self {
        // Variables that are not Unicode cannot be ours.
        let environment: Vec<_> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let from_environment = || {
            let (_, path) = environment
                .iter()
                .find(|(name, _)| name == "BELLHOP_CONFIG")?;
            Some(PathBuf::from(path))
        };
        Self {
            file: flags.config.clone().or_else(from_environment),
            flags: flags.set.clone(),
            environment,
        }
    }

    /// Lays file, environment and flags over the defaults, in this order, and checks the result.
    ///
    /// # Errors
    /// [`ConfigError`] names the file's line, the variable or the flag that is wrong.
    pub fn load<C: ServiceConfig>(&self) -> Result<C, ConfigError> {
        let mut table = self.read_file::<C>()?;
        for (name, value) in &self.environment {
            let Some(path) = name
                .strip_prefix(ENV_PREFIX)
                .filter(|path| *path != "CONFIG")
            else {
                continue;
            };
            let place = format!("environment variable {name}");
            if !path.contains("__") && !is_ours::<C>(&table, path, value, &place)? {
                continue;
            }
            let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
            table = with_value::<C>(&table, &path, value, place)?;
        }
        for flag in &self.flags {
            let place = format!("--set {}", flag.split('=').next().unwrap_or_default());
            let (path, value) = parse_flag(flag).ok_or_else(|| ConfigError::Invalid {
                place: place.clone(),
                message: "write --set section.key=value".into(),
            })?;
            table = with_value::<C>(&table, &path, value, place)?;
        }
        let config: C = table.try_into().map_err(|error| ConfigError::Invalid {
            place: "configuration".into(),
            message: explain::<C>(&error),
        })?;
        let problems = config.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Inconsistent(problems))
        }
    }

    fn read_file<C: ServiceConfig>(&self) -> Result<Table, ConfigError> {
        let Some(path) = &self.file else {
            return Ok(Table::new());
        };
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.display().to_string(),
            source,
        })?;
        // Read as the real type too, because only then does an error know its line.
        let table = toml::from_str::<C>(&text).and_then(|_| toml::from_str::<Table>(&text));
        table.map_err(|error| {
            let line = error.span().map(|span| {
                let before = text.as_bytes().get(..span.start).unwrap_or_default();
                before.split(|byte| *byte == b'\n').count()
            });
            let path = path.display();
            ConfigError::Invalid {
                place: line.map_or_else(|| path.to_string(), |line| format!("{path} line {line}")),
                message: explain::<C>(&error),
            }
        })
    }
}

/// Whether a variable without `__` is a key of the top level. Others may not be meant for us: a
/// cluster announces a service named `bellhop` as `BELLHOP_PORT`. But `BELLHOP_AMQP_URL` is.
fn is_ours<C: ServiceConfig>(
    table: &Table,
    path: &str,
    value: &str,
    place: &str,
) -> Result<bool, ConfigError> {
    let fits = |path: &[String]| with_value::<C>(table, path, value, String::new());
    let whole = [path.to_lowercase()];
    match fits(&whole) {
        Err(ConfigError::Invalid { message, .. }) if message.starts_with("unknown field") => {}
        _ => return Ok(true),
    }
    let Some((section, key)) = path.split_once('_') else {
        return Ok(false);
    };
    if fits(&[section.to_lowercase(), key.to_lowercase()]).is_err() {
        return Ok(false);
    }
    Err(ConfigError::Invalid {
        place: place.to_owned(),
        message: format!("did you mean {ENV_PREFIX}{section}__{key}, with two underscores?"),
    })
}

/// The configuration as TOML, with `***` for secrets.
#[must_use]
pub fn to_redacted_toml(config: &impl Serialize) -> String {
    toml::to_string_pretty(config).unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

/// `--set` takes a dotted TOML key, so that `exec."my.kind".timeout=5m` can be written.
fn parse_flag(flag: &str) -> Option<(Vec<String>, &str)> {
    let (key, value) = flag.split_once('=')?;
    let mut table = toml::from_str::<Table>(&format!("{key} = 0")).ok()?;
    let mut path = Vec::new();
    loop {
        let (name, inner) = table.into_iter().next()?;
        path.push(name);
        match inner {
            Value::Table(inner) => table = inner,
            _ => return Some((path, value)),
        }
    }
}

/// Sets one value and reads the whole as the real type. What stands in a variable or a flag is a
/// text; where a text does not fit, it is read as a TOML value (`8`, `true`, `["a"]`).
fn with_value<C: ServiceConfig>(
    table: &Table,
    path: &[String],
    text: &str,
    place: String,
) -> Result<Table, ConfigError> {
    let attempt = |value: Value| {
        let mut changed = table.clone();
        set(&mut changed, path, value);
        changed.clone().try_into::<C>().map(|_| changed)
    };
    let as_text = match attempt(Value::String(text.to_owned())) {
        Ok(changed) => return Ok(changed),
        Err(error) => error,
    };
    let as_value = toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"));
    let error = match as_value.map(attempt) {
        Some(Ok(changed)) => return Ok(changed),
        // A text of the wrong form says more than a value of the wrong type.
        Some(Err(error)) if as_text.message().trim().starts_with("invalid type") => error,
        _ => as_text,
    };
    Err(ConfigError::Invalid {
        place,
        message: explain::<C>(&error),
    })
}

fn set(table: &mut Table, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        table.insert(first.clone(), value);
        return;
    }
    let inner = table
        .entry(first.clone())
        .or_insert_with(|| Value::Table(Table::new()));
    if !inner.is_table() {
        *inner = Value::Table(Table::new());
    }
    if let Value::Table(inner) = inner {
        set(inner, rest, value);
    }
}

/// The error's message, with the nearest known key when a key is unknown.
fn explain<C: ServiceConfig>(error: &toml::de::Error) -> String {
    let message = error.message().trim();
    if message == BAD_ADDRESS {
        return "the value does not fit: expected an IP address and a port, such as 127.0.0.1:8080"
            .into();
    }
    // serde quotes the value that does not fit, which may be a secret in the wrong place.
    if message.starts_with("invalid type") || message.starts_with("invalid value") {
        let expected = message.rsplit_once(", expected ");
        return expected.map_or("the value does not fit".into(), |(_, expected)| {
            format!("the value does not fit: expected {}", form(expected))
        });
    }
    // The form is serde's own (`serde::de::Error::unknown_field`): the unknown name and then the
    // known ones, each in backticks.
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = message
        .starts_with("unknown field")
        .then(|| names.next())
        .flatten();
    let (other, theirs) = C::ELSEWHERE;
    // Only the top level has `amqp`.
    if let Some(unknown) = unknown.filter(|unknown| theirs.contains(unknown))
        && names.clone().any(|known| known == "amqp")
    {
        return format!(
            "unknown field `{unknown}`: this is the {other}'s; give each program a file and an \
             environment of its own"
        );
    }
    let nearest = unknown.and_then(|unknown| {
        names
            .map(|known| (strsim::damerau_levenshtein(unknown, known), known))
            .min()
            .filter(|(distance, known)| *distance <= 1 + known.len() / 3)
    });
    match nearest {
        Some((_, known)) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// What the standard library says of text that is no socket address.
const BAD_ADDRESS: &str = "invalid socket address syntax";

/// What serde expects, in the words of a TOML file.
fn form(expected: &str) -> Cow<'_, str> {
    match expected {
        "a sequence" => "a list, such as [\"one\", \"two\"]".into(),
        "a map" => "a table, such as { key = \"value\" }".into(),
        _ if expected.starts_with("struct ") => "a table, such as { key = \"value\" }".into(),
        _ => expected.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AmqpConfig, ShutdownConfig};
    use std::collections::BTreeMap;

    #[derive(Debug, Default, serde::Deserialize, Serialize)]
    #[serde(deny_unknown_fields, default)]
    struct Queue {
        concurrency: u16,
    }

    #[derive(Debug, Default, serde::Deserialize, Serialize)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        amqp: AmqpConfig,
        shutdown: ShutdownConfig,
        queues: BTreeMap<String, Queue>,
    }

    impl ServiceConfig for Sample {
        fn problems(&self) -> Vec<String> {
            self.amqp.problems()
        }
    }

    struct File(PathBuf);

    impl File {
        fn with(text: &str) -> Self {
            let name = format!("bellhop-config-{}.toml", uuid::Uuid::now_v7());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    fn sources(file: Option<&File>, environment: &[(&str, &str)], flags: &[&str]) -> Sources {
        Sources {
            file: file.map(|file| file.0.clone()),
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        }
    }

    #[test]
    fn each_layer_lies_over_the_one_before() {
        let file = File::with(
            "[amqp]\nprefix = \"file.\"\nheartbeat = \"11s\"\nconnect_timeout = \"12s\"",
        );
        let environment = [
            ("BELLHOP_AMQP__PREFIX", "environment."),
            ("BELLHOP_AMQP__HEARTBEAT", "21s"),
            ("BELLHOP_QUEUES__DEFAULT__CONCURRENCY", "8"),
            ("HOME", "/not/ours"),
        ];
        let sources = sources(Some(&file), &environment, &["amqp.prefix=flag."]);
        let config: Sample = sources.load().unwrap();
        assert_eq!(config.amqp.prefix, "flag.");
        assert_eq!(config.amqp.heartbeat.0.as_secs(), 21);
        assert_eq!(config.amqp.connect_timeout.0.as_secs(), 12);
        assert_eq!(config.amqp.publish_timeout.0.as_secs(), 30, "the default");
        assert_eq!(config.queues["default"].concurrency, 8);
    }

    #[test]
    fn a_flag_may_quote_a_key_with_dots() {
        let sources = sources(None, &[], &["queues.\"a.b\".concurrency=3"]);
        assert_eq!(
            sources.load::<Sample>().unwrap().queues["a.b"].concurrency,
            3
        );
    }

    #[test]
    fn an_unknown_key_is_refused_by_place_and_name_with_the_nearest() {
        let file = File::with("[shutdown]\ndeadline = \"1s\"\n\n[amqp]\nprefx = \"x.\"");
        for (sources, place) in [
            (sources(Some(&file), &[], &[]), "line 5"),
            (
                sources(None, &[("BELLHOP_AMQP__PREFX", "x.")], &[]),
                "environment variable BELLHOP_AMQP__PREFX",
            ),
            (sources(None, &[], &["amqp.prefx=x."]), "--set amqp.prefx"),
        ] {
            let error = sources.load::<Sample>().unwrap_err().to_string();
            for wants in [place, "unknown field `prefx`", "did you mean `prefix`?"] {
                assert!(error.contains(wants), "{wants} in {error}");
            }
        }
    }

    #[test]
    fn variables_of_others_are_passed_over_and_near_misses_are_not() {
        let foreign = [
            ("BELLHOP_PORT", "tcp://10.0.0.1:80"),
            ("BELLHOP_SERVICE_HOST", "10.0.0.1"),
            ("BELLHOP_CONFIG", "/elsewhere.toml"),
        ];
        assert!(sources(None, &foreign, &[]).load::<Sample>().is_ok());
        let missed = [("BELLHOP_AMQP_PREFIX", "x.")];
        let error = sources(None, &missed, &[]).load::<Sample>().unwrap_err();
        assert!(
            error.to_string().contains("BELLHOP_AMQP__PREFIX"),
            "{error}"
        );
    }

    #[test]
    fn a_secret_is_in_no_error() {
        let file = File::with("[amqp]\nurl = \"amqp://u:hunter2@h/%2f\"\nprefix = 5");
        let wrong = "http://u:hunter2@h";
        for sources in [
            sources(Some(&file), &[], &[]),
            sources(None, &[("BELLHOP_AMQP__URL", wrong)], &[]),
            sources(None, &[], &["amqp.url.x=hunter2"]),
            sources(None, &[("BELLHOP_AMQP", "amqp://u:hunter2@h")], &[]),
            sources(None, &[], &["shutdown=hunter2"]),
        ] {
            let error = format!("{:?}", sources.load::<Sample>().unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_wrong_value_or_flag_is_told() {
        for (flag, wants) in [
            ("amqp.heartbeat=soon", "duration"),
            ("queues.default.concurrency=many", "u16"),
            ("nonsense", "section.key=value"),
            ("amqp.prefix=", "amqp.prefix"),
        ] {
            let error = sources(None, &[], &[flag]).load::<Sample>().unwrap_err();
            assert!(error.to_string().contains(wants), "{flag}: {error}");
        }
        let missing = Sources {
            file: Some("/does/not/exist.toml".into()),
            ..Sources::default()
        };
        let error = missing.load::<Sample>().unwrap_err().to_string();
        assert!(error.contains("/does/not/exist.toml"), "{error}");
    }
}
