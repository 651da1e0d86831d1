//! JSON Web Tokens: one pinned algorithm, and claims checked against a given time.

use std::path::Path;
use std::time::Duration;

use bellhop_common::config::{Secret, SecretError};
use bellhop_common::wire::MAX_ID_BYTES;
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::config::{AuthConfig, AuthMode};

/// Who a token says its bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user (`sub`).
    pub user_id: String,
    /// When the token ends, with the leeway; `None` in the mode without tokens.
    pub expires: Option<Timestamp>,
    /// What it may do besides (the words of `scope`, or the list `scopes`).
    pub scopes: Vec<String>,
    /// Patterns of the rooms and chats it may enter (`rooms`), e.g. `room:proj-*`.
    pub rooms: Vec<String>,
    /// The token's own id (`jti`).
    pub token_id: Option<String>,
    /// When the token was issued (`iat`).
    pub issued_at: Option<Timestamp>,
}

impl Identity {
    /// A user who is taken at his word, in the mode without tokens.
    #[must_use]
    pub fn unchecked(user_id: String) -> Self {
        Self {
            user_id,
            expires: None,
            scopes: Vec::new(),
            rooms: Vec::new(),
            token_id: None,
            issued_at: None,
        }
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Not three parts of base64 with JSON in them, or a claim of the wrong type.
    #[error("the token is malformed")]
    Malformed,
    /// Signed with another algorithm than the configured one.
    #[error("the token is signed with {found}, this notifier takes only {wanted}")]
    WrongAlgorithm {
        /// The configured one.
        wanted: String,
        /// The token's.
        found: String,
    },
    /// The signature is not by our key.
    #[error("the token's signature does not match")]
    BadSignature,
    /// A claim is missing.
    #[error("the token has no `{0}`")]
    MissingClaim(&'static str),
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` or `aud` is not the configured one.
    #[error("the token's `{0}` is not the one this notifier takes")]
    WrongClaim(&'static str),
    /// `sub` is empty or too long.
    #[error("the token's `sub` must have 1 to {MAX_ID_BYTES} bytes")]
    BadSubject,
}

/// Why the configured key cannot be used.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The secret's file.
    #[error("auth.secret_file")]
    SecretFile(#[from] SecretError),
    /// The public key's file.
    #[error("cannot read auth.public_key_file {path}")]
    PublicKeyFile {
        /// Which one.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold a public key for the algorithm.
    #[error("auth.public_key_file holds no PEM public key for {algorithm:?}")]
    PublicKey {
        /// Which algorithm.
        algorithm: Algorithm,
        /// Why.
        #[source]
        source: jsonwebtoken::errors::Error,
    },
    /// The secret is shorter than the hash, which RFC 7518, 3.2 forbids: it can be guessed.
    #[error(
        "auth.secret has {found} bytes, {algorithm:?} needs at least {wanted}: make one with \
         `openssl rand -hex 32`"
    )]
    ShortSecret {
        /// Which algorithm.
        algorithm: Algorithm,
        /// Its length.
        found: usize,
        /// The least length.
        wanted: usize,
    },
    /// Tokens can be minted only where the secret is known.
    #[error("tokens can only be minted with a shared secret (HS256, HS384, HS512), not {0:?}")]
    CannotMint(Algorithm),
    /// Signing failed.
    #[error("the token cannot be signed")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// There is no `auth.secret`.
    #[error("auth.secret is not set")]
    NoSecret,
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Option<String>,
    /// Seconds since 1970; RFC 7519 allows a fraction.
    exp: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<serde_json::Value>,
    /// One text with words (RFC 8693, 4.2); some issuers write a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rooms: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<f64>,
}

/// Checks tokens.
pub struct Verifier {
    mode: AuthMode,
    key: DecodingKey,
    validation: Validation,
    algorithm: Algorithm,
    leeway: Duration,
}

impl Verifier {
    /// Reads the key that the configuration names.
    ///
    /// # Errors
    /// [`KeyError`] names the key and what is wrong with it.
    pub fn new(config: &AuthConfig) -> Result<Self, KeyError> {
        let key = match (&config.public_key_file, config.mode) {
            (_, AuthMode::None) => DecodingKey::from_secret(&[]),
            (Some(path), _) => public_key(path, config.algorithm)?,
            (None, _) => DecodingKey::from_secret(read_secret(config)?.expose().as_bytes()),
        };
        let mut validation = Validation::new(config.algorithm);
        // Times are checked in `verify`, against a clock that a test can set.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        validation.validate_aud = config.audience.is_some();
        if let Some(audience) = &config.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".into());
        }
        if let Some(issuer) = &config.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".into());
        }
        Ok(Self {
            mode: config.mode,
            key,
            validation,
            algorithm: config.algorithm,
            leeway: config.leeway.0,
        })
    }

    /// How users are recognised.
    #[must_use]
    pub fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Checks a token at a time.
    ///
    /// # Errors
    /// [`TokenError`]; its text never holds the token.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        if header.alg != self.algorithm {
            return Err(TokenError::WrongAlgorithm {
                wanted: format!("{:?}", self.algorithm),
                found: format!("{:?}", header.alg),
            });
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| explain(error.kind()))?
            .claims;
        let exp = claims.exp.ok_or(TokenError::MissingClaim("exp"))?;
        let expires = instant(exp)?
            .saturating_add(self.leeway)
            .map_err(|_| TokenError::Malformed)?;
        if now >= expires {
            return Err(TokenError::Expired);
        }
        if let Some(nbf) = claims.nbf {
            let begins = instant(nbf)?
                .saturating_sub(self.leeway)
                .map_err(|_| TokenError::Malformed)?;
            if now < begins {
                return Err(TokenError::NotYetValid);
            }
        }
        let user_id = claims.sub.ok_or(TokenError::MissingClaim("sub"))?;
        if !(1..=MAX_ID_BYTES).contains(&user_id.len()) {
            return Err(TokenError::BadSubject);
        }
        Ok(Identity {
            user_id,
            expires: Some(expires),
            scopes: [claims.scope, claims.scopes]
                .into_iter()
                .flatten()
                .flat_map(words)
                .collect(),
            rooms: claims.rooms.map(patterns).unwrap_or_default(),
            token_id: claims.jti,
            issued_at: claims.iat.map(instant).transpose()?,
        })
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

fn explain(kind: &ErrorKind) -> TokenError {
    match kind {
        ErrorKind::InvalidSignature => TokenError::BadSignature,
        ErrorKind::InvalidIssuer => TokenError::WrongClaim("iss"),
        ErrorKind::InvalidAudience => TokenError::WrongClaim("aud"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => TokenError::MissingClaim("iss"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => TokenError::MissingClaim("aud"),
        _ => TokenError::Malformed,
    }
}

/// The words of a text or of a list of texts. What is neither allows nothing.
fn words(claim: serde_json::Value) -> Vec<String> {
    let split = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    match claim {
        serde_json::Value::String(text) => split(&text),
        serde_json::Value::Array(list) => list
            .iter()
            .filter_map(|word| word.as_str())
            .flat_map(split)
            .collect(),
        _ => Vec::new(),
    }
}

/// A list of texts, which may have spaces in them, or one text. What is neither allows nothing.
fn patterns(claim: serde_json::Value) -> Vec<String> {
    match claim {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(list) => list
            .into_iter()
            .filter_map(|pattern| match pattern {
                serde_json::Value::String(pattern) => Some(pattern),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A `NumericDate` of RFC 7519.
fn instant(seconds: f64) -> Result<Timestamp, TokenError> {
    let duration =
        jiff::SignedDuration::try_from_secs_f64(seconds).map_err(|_| TokenError::Malformed)?;
    Timestamp::from_duration(duration).map_err(|_| TokenError::Malformed)
}

fn public_key(path: &Path, algorithm: Algorithm) -> Result<DecodingKey, KeyError> {
    use Algorithm::{ES256, ES384, EdDSA};
    let pem = std::fs::read(path).map_err(|source| KeyError::PublicKeyFile {
        path: path.display().to_string(),
        source,
    })?;
    let key = match algorithm {
        ES256 | ES384 => DecodingKey::from_ec_pem(&pem),
        EdDSA => DecodingKey::from_ed_pem(&pem),
        _ => DecodingKey::from_rsa_pem(&pem),
    };
    key.map_err(|source| KeyError::PublicKey { algorithm, source })
}

fn read_secret(config: &AuthConfig) -> Result<Secret, KeyError> {
    let secret = match (&config.secret, &config.secret_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(path)) => Secret::from_file(path)?,
        (None, None) => return Err(KeyError::NoSecret),
    };
    let wanted = match config.algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    };
    let found = secret.expose().len();
    if found < wanted {
        let algorithm = config.algorithm;
        return Err(KeyError::ShortSecret {
            algorithm,
            found,
            wanted,
        });
    }
    Ok(secret)
}

/// A token for a user, for development and tests.
///
/// # Errors
/// [`KeyError`] if the configuration has no shared secret.
pub fn mint(
    config: &AuthConfig,
    user_id: &str,
    now: Timestamp,
    lifetime: Duration,
) -> Result<String, KeyError> {
    mint_with_scope(config, user_id, None, now, lifetime)
}

/// The same with a `scope`: words with spaces between.
///
/// # Errors
/// [`KeyError`] if the configuration has no shared secret.
pub fn mint_with_scope(
    config: &AuthConfig,
    user_id: &str,
    scope: Option<&str>,
    now: Timestamp,
    lifetime: Duration,
) -> Result<String, KeyError> {
    if !config.is_symmetric() {
        return Err(KeyError::CannotMint(config.algorithm));
    }
    let secret = read_secret(config)?;
    let expires = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
    let claims = Claims {
        sub: Some(user_id.to_owned()),
        exp: Some(expires.as_duration().as_secs_f64()),
        nbf: None,
        iss: config.issuer.clone(),
        aud: config.audience.clone().map(serde_json::Value::from),
        scope: scope.map(serde_json::Value::from),
        scopes: None,
        rooms: None,
        jti: None,
        iat: None,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(config.algorithm), &claims, &key).map_err(KeyError::Sign)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn config() -> AuthConfig {
        AuthConfig {
            secret: Some(Secret::new(SECRET)),
            ..AuthConfig::default()
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    fn token(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
        let key = EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn verify(config: &AuthConfig, claims: &Value) -> Result<Identity, TokenError> {
        let token = token(Algorithm::HS256, SECRET, claims);
        Verifier::new(config).unwrap().verify(&token, now())
    }

    #[test]
    fn a_minted_token_is_accepted_until_it_expires() {
        let token = mint(&config(), "ann", now(), Duration::from_mins(1)).unwrap();
        let verifier = Verifier::new(&config()).unwrap();
        let at = |seconds| verifier.verify(&token, now() + Duration::from_secs(seconds));
        assert_eq!(at(0).unwrap().user_id, "ann");
        assert!(at(89).is_ok(), "the leeway of 30 s");
        assert_eq!(at(90), Err(TokenError::Expired));
    }

    #[test]
    fn scopes_are_read_as_issuers_write_them_and_nothing_else_is_one() {
        for (scope, scopes, wants) in [
            (json!("read admin"), Value::Null, &["read", "admin"][..]),
            (Value::Null, json!(["admin"]), &["admin"]),
            (json!("a"), json!("b c"), &["a", "b", "c"]),
            (json!(["a b", 7]), Value::Null, &["a", "b"]),
            (json!(true), json!({"admin": true}), &[]),
            (Value::Null, Value::Null, &[]),
        ] {
            let claims =
                json!({"sub": "ann", "exp": 1_800_000_060, "scope": scope, "scopes": scopes});
            assert_eq!(
                verify(&config(), &claims).unwrap().scopes,
                wants,
                "{claims}"
            );
        }
    }

    #[test]
    fn every_wrong_token_is_told_why() {
        let (sub, exp) = ("ann", 1_800_000_060);
        for (claims, wants) in [
            (json!({"sub": sub}), TokenError::MissingClaim("exp")),
            (json!({"exp": exp}), TokenError::MissingClaim("sub")),
            (json!({"sub": "", "exp": exp}), TokenError::BadSubject),
            (
                json!({"sub": "u".repeat(129), "exp": exp}),
                TokenError::BadSubject,
            ),
            (
                json!({"sub": sub, "exp": 1_799_999_000}),
                TokenError::Expired,
            ),
            (
                json!({"sub": sub, "exp": exp, "nbf": 1_800_000_031}),
                TokenError::NotYetValid,
            ),
            (json!({"sub": sub, "exp": "soon"}), TokenError::Malformed),
            (json!({"sub": sub, "exp": 1e300}), TokenError::Malformed),
        ] {
            assert_eq!(verify(&config(), &claims), Err(wants), "{claims}");
        }
        assert!(
            verify(
                &config(),
                &json!({"sub": sub, "exp": exp, "nbf": 1_800_000_029})
            )
            .is_ok()
        );
    }

    #[test]
    fn the_algorithm_is_pinned_and_the_signature_checked() {
        let verifier = Verifier::new(&config()).unwrap();
        let claims = json!({"sub": "ann", "exp": 1_800_000_060});
        let other_key = token(Algorithm::HS256, "another secret", &claims);
        assert_eq!(
            verifier.verify(&other_key, now()),
            Err(TokenError::BadSignature)
        );
        let other_algorithm = token(Algorithm::HS512, SECRET, &claims);
        assert!(matches!(
            verifier.verify(&other_algorithm, now()),
            Err(TokenError::WrongAlgorithm { .. })
        ));
        // {"alg":"none"} . {"sub":"ann","exp":1800000060} . nothing
        let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjE4MDAwMDAwNjB9.";
        assert!(verifier.verify(none, now()).is_err());
        for garbage in ["", "a", "a.b.c", "..", "é.é.é"] {
            assert_eq!(verifier.verify(garbage, now()), Err(TokenError::Malformed));
        }
    }

    #[test]
    fn issuer_and_audience_are_checked_when_configured() {
        let strict = AuthConfig {
            issuer: Some("us".into()),
            audience: Some("bellhop".into()),
            ..config()
        };
        let claims =
            |iss: Value, aud: Value| json!({"sub":"a","exp":1_800_000_060,"iss":iss,"aud":aud});
        assert!(verify(&strict, &claims("us".into(), json!(["x", "bellhop"]))).is_ok());
        let wrong = claims("them".into(), "bellhop".into());
        assert_eq!(verify(&strict, &wrong), Err(TokenError::WrongClaim("iss")));
        let wrong = claims("us".into(), "x".into());
        assert_eq!(verify(&strict, &wrong), Err(TokenError::WrongClaim("aud")));
        let missing = json!({"sub": "a", "exp": 1_800_000_060});
        assert!(matches!(
            verify(&strict, &missing),
            Err(TokenError::MissingClaim(_))
        ));
        assert!(
            verify(&config(), &wrong).is_ok(),
            "unchecked where not configured"
        );
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        let weak = AuthConfig {
            secret: Some(Secret::new("short")),
            ..AuthConfig::default()
        };
        let error = Verifier::new(&weak).unwrap_err().to_string();
        assert!(error.contains("5 bytes") && error.contains("32"), "{error}");
    }
}
