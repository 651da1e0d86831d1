//! `[auth]`: who may connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use bellhop_common::config::{HumanDuration, Secret};
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

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
    /// The one algorithm that is accepted, whatever a token's header says.
    pub algorithm: Algorithm,
    /// For HS256, HS384 and HS512: the shared secret, at least as long as the hash.
    pub secret: Option<Secret>,
    /// The same from a file.
    pub secret_file: Option<PathBuf>,
    /// For the other algorithms: a PEM file with the public key.
    pub public_key_file: Option<PathBuf>,
    /// Required value of `iss`.
    pub issuer: Option<String>,
    /// Required value in `aud`.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: HumanDuration,
    /// Users who may look after the dead letters, and publish events, besides those whose token has
    /// the scope `admin`.
    pub administrators: Vec<String>,
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
            issuer: None,
            audience: None,
            leeway: HumanDuration::from_secs(30),
            administrators: Vec::new(),
            query_token: true,
        }
    }
}
impl AuthConfig {
    /// Whether the algorithm takes a shared secret.
    pub(crate) fn is_symmetric(&self) -> bool {
        use Algorithm::{HS256, HS384, HS512};
        matches!(self.algorithm, HS256 | HS384 | HS512)
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
        let secrets = [self.secret.is_some(), self.secret_file.is_some()];
        let secrets = secrets.iter().filter(|set| **set).count();
        let name = self.algorithm;
        match (self.is_symmetric(), secrets, self.public_key_file.is_some()) {
            (true, 1, false) | (false, 0, true) => Vec::new(),
            (true, ..) => vec![format!(
                "auth.algorithm {name:?} needs exactly one of auth.secret and auth.secret_file, and \
                 no public key"
            )],
            (false, ..) => vec![format!(
                "auth.algorithm {name:?} needs auth.public_key_file, and no secret"
            )],
        }
    }
}
