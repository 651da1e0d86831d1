//! The keys that stand in the configuration: `auth.secret` and the like, and `auth.keys`.

use std::path::Path;

use bellhop_common::config::{Secret, SecretError};
use jsonwebtoken::{Algorithm, DecodingKey};
use thiserror::Error;

use super::jwks::JwksError;
use super::keys::Key;
use crate::config::{AuthConfig, KeyConfig};

/// Why the configured keys cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// A secret's file.
    #[error("{place}.secret_file")]
    SecretFile {
        /// Which setting.
        place: String,
        /// Why.
        #[source]
        source: SecretError,
    },
    /// A public key's file.
    #[error("cannot read {place}.public_key_file {path}")]
    PublicKeyFile {
        /// Which setting.
        place: String,
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold a public key for the algorithm.
    #[error("{place}.public_key_file holds no PEM public key for {algorithm:?}")]
    PublicKey {
        /// Which setting.
        place: String,
        /// Which algorithm.
        algorithm: Algorithm,
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The secret is shorter than the hash, which RFC 7518, 3.2 forbids: it can be guessed.
    #[error(
        "{place}.secret has {found} bytes, {algorithm:?} needs at least {wanted}: make one with \
         `openssl rand -hex {wanted}`"
    )]
    ShortSecret {
        /// Which setting.
        place: String,
        /// Which algorithm.
        algorithm: Algorithm,
        /// Its length.
        found: usize,
        /// The least length.
        wanted: usize,
    },
    /// There is nothing that tokens could be checked with.
    #[error("{place} has neither a secret nor a public key")]
    NoKey {
        /// Which setting.
        place: String,
    },
    /// The file with a key set.
    #[error("cannot read auth.jwks_file {path}")]
    JwksFile {
        /// Which file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in that file.
    #[error("auth.jwks_file {path}")]
    Jwks {
        /// Which file.
        path: String,
        /// What is wrong with it.
        #[source]
        source: JwksError,
    },
    /// Tokens can be minted only where a secret is known.
    #[error(
        "tokens can only be minted with a shared secret (HS256, HS384, HS512), and neither \
         auth.secret nor auth.keys has one"
    )]
    CannotMint,
    /// Signing failed.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
}

/// A shared secret that can sign, too.
pub(super) struct SigningSecret {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) secret: Secret,
}

/// Where a key stands in the configuration.
#[derive(Clone, Copy)]
struct Entry<'a> {
    id: Option<&'a str>,
    algorithm: Algorithm,
    secret: Option<&'a Secret>,
    secret_file: Option<&'a Path>,
    public_key_file: Option<&'a Path>,
}

impl<'a> Entry<'a> {
    /// The single key, if there is one, then those of `auth.keys`.
    fn all(config: &'a AuthConfig) -> impl Iterator<Item = Self> {
        let single = Self {
            id: None,
            algorithm: config.algorithm,
            secret: config.secret.as_ref(),
            secret_file: config.secret_file.as_deref(),
            public_key_file: config.public_key_file.as_deref(),
        };
        let single = config.has_single_key().then_some(single);
        single.into_iter().chain(config.keys.iter().map(Self::of))
    }

    fn of(key: &'a KeyConfig) -> Self {
        Self {
            id: Some(&key.id),
            algorithm: key.algorithm,
            secret: key.secret.as_ref(),
            secret_file: key.secret_file.as_deref(),
            public_key_file: key.public_key_file.as_deref(),
        }
    }

    fn place(self) -> String {
        self.id
            .map_or_else(|| "auth".into(), |id| format!("auth.keys {id:?}"))
    }

    fn read(self) -> Result<Key, KeyError> {
        let material = match (self.public_key_file, self.secret()?) {
            (_, Some(secret)) => DecodingKey::from_secret(secret.expose().as_bytes()),
            (Some(path), None) => self.public_key(path)?,
            (None, None) => {
                return Err(KeyError::NoKey {
                    place: self.place(),
                });
            }
        };
        Ok(Key {
            id: self.id.map(str::to_owned),
            algorithm: self.algorithm,
            material,
        })
    }

    fn secret(self) -> Result<Option<Secret>, KeyError> {
        let secret = match (self.secret, self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => {
                Secret::from_file(path).map_err(|source| KeyError::SecretFile {
                    place: self.place(),
                    source,
                })?
            }
            (None, None) => return Ok(None),
        };
        let wanted = match self.algorithm {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        };
        let found = secret.expose().len();
        if found < wanted {
            return Err(KeyError::ShortSecret {
                place: self.place(),
                algorithm: self.algorithm,
                found,
                wanted,
            });
        }
        Ok(Some(secret))
    }

    fn public_key(self, path: &Path) -> Result<DecodingKey, KeyError> {
        use Algorithm::{ES256, ES384, EdDSA};
        let pem = std::fs::read(path).map_err(|source| KeyError::PublicKeyFile {
            place: self.place(),
            path: path.display().to_string(),
            source,
        })?;
        let key = match self.algorithm {
            ES256 | ES384 => DecodingKey::from_ec_pem(&pem),
            EdDSA => DecodingKey::from_ed_pem(&pem),
            _ => DecodingKey::from_rsa_pem(&pem),
        };
        key.map_err(|source| KeyError::PublicKey {
            place: self.place(),
            algorithm: self.algorithm,
            source,
        })
    }
}

/// The keys that stand in the configuration.
pub(super) fn keys(config: &AuthConfig) -> Result<Vec<Key>, KeyError> {
    let keys: Vec<_> = Entry::all(config)
        .map(Entry::read)
        .collect::<Result<_, _>>()?;
    if keys.is_empty() && config.jwks_file.is_none() && config.jwks_url.is_none() {
        let place = "auth".into();
        return Err(KeyError::NoKey { place });
    }
    Ok(keys)
}

/// The first shared secret of the configuration.
pub(super) fn signing_secret(config: &AuthConfig) -> Result<SigningSecret, KeyError> {
    for entry in Entry::all(config) {
        if let Some(secret) = entry.secret()? {
            return Ok(SigningSecret {
                id: entry.id.map(str::to_owned),
                algorithm: entry.algorithm,
                secret,
            });
        }
    }
    Err(KeyError::CannotMint)
}
