//! Values that must not appear in any output.

use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};
use thiserror::Error as ThisError;

/// What is printed in a secret's place.
const REDACTED: &str = "***";

/// A text that prints as `***`, however it is printed or serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Why a secret cannot be had.
#[derive(Debug, ThisError)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file {path}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, without the line break that editors put at its end.
    ///
    /// # Errors
    /// [`SecretError::File`] names the file.
    pub fn from_file(path: &Path) -> Result<Self, SecretError> {
        let text = std::fs::read_to_string(path).map_err(|source| SecretError::File {
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOnly;
        // serde's own messages quote the value they did not expect: a secret written without
        // quotes would then be printed.
        impl Visitor<'_> for TextOnly {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::new(text))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<Secret, E> {
                Err(E::custom("a secret is a text: put it in quotes"))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Secret, E> {
                Err(E::custom("a secret is a text: put it in quotes"))
            }
        }
        deserializer.deserialize_any(TextOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Holder {
        key: Secret,
    }

    #[test]
    fn a_secret_is_in_no_output() {
        let holder: Holder = toml::from_str("key = \"hunter2\"").unwrap();
        assert_eq!(holder.key.expose(), "hunter2");
        let outputs = [
            format!("{holder:?}"),
            holder.key.to_string(),
            toml::to_string(&holder).unwrap(),
            toml::from_str::<Holder>("key = 20042004")
                .unwrap_err()
                .message()
                .to_owned(),
        ];
        for output in outputs {
            assert!(
                !output.contains("hunter2") && !output.contains("20042004"),
                "{output}"
            );
        }
    }
}
