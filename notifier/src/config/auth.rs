//! `[auth]`: who may connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use std::collections::BTreeSet;

use bellhop_common::config::{HumanDuration, Secret};
use jsonwebtoken::Algorithm;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::auth::{MAX_KEYS, is_loopback_host};

/// The longest name of a key.
const MAX_KEY_ID_BYTES: usize = 256;

const DAY: HumanDuration = HumanDuration::from_secs(24 * 3600);

/// How users are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// By a signed token.
    Jwt,
    /// By `?user_id=`, whatever it says: for development, on loopback only.
    None,
}

/// `[auth]`: JSON Web Tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// How users are recognised.
    pub mode: AuthMode,
    /// The algorithm of the single key: the one it is used with, whatever a token's header says.
    pub algorithm: Algorithm,
    /// For HS256, HS384 and HS512: the shared secret, at least as long as the hash.
    pub secret: Option<Secret>,
    /// The same from a file.
    pub secret_file: Option<PathBuf>,
    /// For the other algorithms: a PEM file with the public key.
    pub public_key_file: Option<PathBuf>,
    /// Keys with names, for tokens whose header says which (`kid`). A rotation is two of them.
    pub keys: Vec<KeyConfig>,
    /// A key set (JWKS) of public keys in a file.
    pub jwks_file: Option<PathBuf>,
    /// The same at a URL: `https`, or `http` on loopback.
    pub jwks_url: Option<String>,
    /// How often the key set is read again.
    pub jwks_refresh: HumanDuration,
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// Required value in `aud`.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: HumanDuration,
    /// Users who may look after the dead letters, and publish events, besides those whose token has
    /// the scope `admin`.
    pub administrators: Vec<String>,
    /// For how long after the start nobody is let in while the revocations cannot be read from the
    /// broker.
    pub revocations_wait: HumanDuration,
    /// Whether `?token=` is taken. Turn it off where addresses are logged on the way.
    pub query_token: bool,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            mode: AuthMode::Jwt,
            algorithm: Algorithm::HS256,
            secret: None,
            secret_file: None,
            public_key_file: None,
            keys: Vec::new(),
            jwks_file: None,
            jwks_url: None,
            jwks_refresh: HumanDuration::from_secs(600),
            issuer: None,
            audience: None,
            leeway: HumanDuration::from_secs(30),
            administrators: Vec::new(),
            revocations_wait: HumanDuration::from_secs(30),
            query_token: true,
        }
    }
}

/// `[[auth.keys]]`: one key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Its name: the `kid` in the header of a token.
    pub id: String,
    /// The one algorithm it is used with.
    pub algorithm: Algorithm,
    /// For HS256, HS384 and HS512: the shared secret, at least as long as the hash.
    pub secret: Option<Secret>,
    /// The same from a file.
    pub secret_file: Option<PathBuf>,
    /// For the other algorithms: a PEM file with the public key.
    pub public_key_file: Option<PathBuf>,
}

impl AuthConfig {
    /// Whether there is a key besides `auth.keys` and the key set.
    pub(crate) fn has_single_key(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some() || self.public_key_file.is_some()
    }

    pub(super) fn problems(&self, listen: SocketAddr) -> Vec<String> {
        if self.mode == AuthMode::None {
            return if listen.ip().is_loopback() {
                Vec::new()
            } else {
                vec![format!(
                    "auth.mode = \"none\" lets anybody be anybody: it is only taken with http.listen \
                     on a loopback address, not {listen}"
                )]
            };
        }
        let mut problems = Vec::new();
        let others = !self.keys.is_empty() || self.jwks_file.is_some() || self.jwks_url.is_some();
        if !self.has_single_key() && !others {
            problems.push(
                "there is no key for tokens: set auth.secret_file, a file made with `openssl rand \
                 -hex 32`, or for tokens of an issuer auth.public_key_file, auth.keys or auth.jwks_url"
                    .into(),
            );
        }
        if self.has_single_key() {
            let secrets = [self.secret.is_some(), self.secret_file.is_some()];
            let public = self.public_key_file.is_some();
            problems.extend(key_problem("auth", self.algorithm, secrets, public));
        }
        self.key_problems(&mut problems);
        self.jwks_problems(&mut problems);
        if self.revocations_wait > DAY {
            problems.push("auth.revocations_wait may be 1d at most".into());
        }
        problems
    }

    fn key_problems(&self, problems: &mut Vec<String>) {
        if self.keys.len() > MAX_KEYS {
            let count = self.keys.len();
            problems.push(format!(
                "auth.keys has {count} keys, {MAX_KEYS} are allowed"
            ));
        }
        let mut ids = BTreeSet::new();
        for key in &self.keys {
            let place = format!("auth.keys {:?}", key.id);
            if !(1..=MAX_KEY_ID_BYTES).contains(&key.id.len()) {
                problems.push(format!(
                    "auth.keys: an id has 1 to {MAX_KEY_ID_BYTES} bytes"
                ));
            }
            if !ids.insert(&key.id) {
                problems.push(format!("{place} is there twice: a token names one key"));
            }
            let secrets = [key.secret.is_some(), key.secret_file.is_some()];
            let public = key.public_key_file.is_some();
            problems.extend(key_problem(&place, key.algorithm, secrets, public));
        }
    }

    fn jwks_problems(&self, problems: &mut Vec<String>) {
        if self.jwks_file.is_some() && self.jwks_url.is_some() {
            problems.push("auth.jwks_file and auth.jwks_url are both set: keep one".into());
        }
        if let Some(Err(problem)) = self.jwks_url.as_deref().map(jwks_url) {
            problems.push(format!("auth.jwks_url {problem}"));
        }
        if !(HumanDuration::from_secs(1)..=DAY).contains(&self.jwks_refresh) {
            problems.push("auth.jwks_refresh must be between 1s and 1d".into());
        }
    }
}

fn key_problem(
    place: &str,
    algorithm: Algorithm,
    secrets: [bool; 2],
    public_key: bool,
) -> Option<String> {
    use Algorithm::{HS256, HS384, HS512};
    let symmetric = matches!(algorithm, HS256 | HS384 | HS512);
    let secrets = secrets.iter().filter(|set| **set).count();
    match (symmetric, secrets, public_key) {
        (true, 1, false) | (false, 0, true) => None,
        (true, ..) => Some(format!(
            "{place}.algorithm {algorithm:?} needs exactly one of {place}.secret and \
             {place}.secret_file, and no public key"
        )),
        (false, ..) => Some(format!(
            "{place}.algorithm {algorithm:?} needs {place}.public_key_file, and no secret"
        )),
    }
}

/// Reads the address of a key set. Whoever can change what stands there can log in as anybody, so
/// nothing on the way may.
pub(crate) fn jwks_url(text: &str) -> Result<Url, &'static str> {
    let url: Url = text.parse().map_err(|_| "is no address")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("may have no user and password in it: a key set is public");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback_host(url.host_str()) => Ok(url),
        "http" => Err("must be https://, or http:// on a loopback address"),
        _ => Err("must be https://"),
    }
}
