//! Who sends: the key that pushes are signed with (VAPID, RFC 8292), and a token for each push
//! service.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bellhop_common::config::{Secret, SecretError};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use p256::SecretKey;
use p256::elliptic_curve::rand_core::CryptoRngCore;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use reqwest::header::HeaderValue;
use serde::Serialize;
use thiserror::Error;

/// How long a token is good. RFC 8292 allows 24 hours; clocks differ.
const LIFETIME: SignedDuration = SignedDuration::from_hours(12);

/// How much of that must be left for a token to be used again.
const LEAST_LEFT: SignedDuration = SignedDuration::from_hours(1);

/// For how many push services tokens are held. There are a handful, but anybody may name more.
const MAX_ORIGINS: usize = 1000;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum VapidError {
    /// The file cannot be read.
    #[error("push.key_file")]
    File(#[from] SecretError),
    /// The file holds something else.
    #[error(
        "push.key_file {path} holds no key for Web Push: a private key on the curve P-256, as PEM (`notifier \
         vapid` makes one) or as the 43 characters that other tools print"
    )]
    NoKey {
        /// Which file.
        path: String,
    },
    /// A token cannot be signed.
    #[error("a token for a push service cannot be signed")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// A key to sign with.
#[derive(Clone)]
pub struct VapidKey {
    signing: EncodingKey,
    public: String,
}

impl VapidKey {
    /// A new private key as PEM (PKCS#8), which OpenSSL and py-vapid read, too. `None` only if it could
    /// not be written as such.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRngCore) -> Option<Secret> {
        let pem = SecretKey::random(rng).to_pkcs8_pem(LineEnding::LF).ok()?;
        Some(Secret::new(pem.as_str()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// [`VapidError`] names the file.
    pub fn read(path: &Path) -> Result<Self, VapidError> {
        let text = Secret::from_file(path)?;
        Self::parse(text.expose()).ok_or_else(|| VapidError::NoKey {
            path: path.display().to_string(),
        })
    }

    /// A private key as PEM (PKCS#8 or SEC 1), or its 32 bytes in base64url.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let secret = SecretKey::from_pkcs8_pem(text)
            .ok()
            .or_else(|| SecretKey::from_sec1_pem(text).ok())
            .or_else(|| {
                let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()?;
                SecretKey::from_slice(&bytes).ok()
            })?;
        let point = secret.public_key().to_encoded_point(false);
        Some(Self {
            signing: EncodingKey::from_ec_der(secret.to_pkcs8_der().ok()?.as_bytes()),
            public: URL_SAFE_NO_PAD.encode(point.as_bytes()),
        })
    }

    /// What browsers are told as `applicationServerKey`: the public key, 65 bytes in base64url.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }

    fn sign(&self, claims: &Claims<'_>) -> Result<String, VapidError> {
        let header = Header::new(Algorithm::ES256);
        Ok(jsonwebtoken::encode(&header, claims, &self.signing)?)
    }
}

impl fmt::Debug for VapidKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VapidKey").field(&self.public).finish()
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    sub: &'a str,
}

/// Signs for push services.
#[derive(Debug)]
pub(super) struct Vapid {
    key: VapidKey,
    subject: Arc<str>,
    tokens: Mutex<Tokens>,
}

impl Vapid {
    pub(super) fn new(key: VapidKey, subject: &str) -> Self {
        Self {
            key,
            subject: subject.into(),
            tokens: Mutex::default(),
        }
    }

    pub(super) fn key(&self) -> &VapidKey {
        &self.key
    }

    /// The header `Authorization` for a push service.
    pub(super) fn authorization(
        &self,
        origin: &str,
        now: Timestamp,
    ) -> Result<HeaderValue, VapidError> {
        if let Some(header) = self.tokens().get(origin, now) {
            return Ok(header);
        }
        let expires = now.saturating_add(LIFETIME).unwrap_or(Timestamp::MAX);
        let token = self.key.sign(&Claims {
            aud: origin,
            exp: expires.as_second(),
            sub: &self.subject,
        })?;
        let header = format!("vapid t={token}, k={}", self.key.public);
        // Base64 and these few characters are always a header.
        let mut header = HeaderValue::try_from(header).unwrap_or(HeaderValue::from_static(""));
        header.set_sensitive(true);
        self.tokens().put(origin, header.clone(), expires, now);
        Ok(header)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Headers that are still good, by the origin of the push service.
#[derive(Debug, Default)]
struct Tokens(HashMap<String, (HeaderValue, Timestamp)>);

impl Tokens {
    fn get(&self, origin: &str, now: Timestamp) -> Option<HeaderValue> {
        let (header, expires) = self.0.get(origin)?;
        // A clock that was set back would make the token one from the future.
        let left = expires.duration_since(now);
        (LEAST_LEFT < left && left <= LIFETIME).then(|| header.clone())
    }

    fn put(&mut self, origin: &str, header: HeaderValue, expires: Timestamp, now: Timestamp) {
        if self.0.len() >= MAX_ORIGINS {
            self.0
                .retain(|_, (_, expires)| expires.duration_since(now) > LEAST_LEFT);
        }
        if self.0.len() >= MAX_ORIGINS {
            self.0.clear();
        }
        self.0.insert(origin.to_owned(), (header, expires));
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use p256::elliptic_curve::rand_core::OsRng;
    use serde_json::Value;

    use super::*;

    const ORIGIN: &str = "https://push.example";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn vapid() -> Vapid {
        let key = VapidKey::parse(VapidKey::generate(&mut OsRng).unwrap().expose()).unwrap();
        Vapid::new(key, "mailto:ops@example.org")
    }

    fn claims(vapid: &Vapid, header: &HeaderValue) -> Value {
        let text = header.to_str().unwrap();
        let (token, key) = text
            .strip_prefix("vapid t=")
            .and_then(|rest| rest.split_once(", k="))
            .unwrap();
        assert_eq!(key, vapid.key().public());
        let point = URL_SAFE_NO_PAD.decode(key).unwrap();
        assert_eq!((point.len(), point[0]), (65, 4));
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.set_audience(&[ORIGIN, "https://other.example"]);
        let key = DecodingKey::from_ec_der(&point);
        jsonwebtoken::decode::<Value>(token, &key, &validation)
            .unwrap()
            .claims
    }

    #[test]
    fn a_token_names_the_push_service_the_contact_and_an_end() {
        let (vapid, now) = (vapid(), at("2026-01-15T10:30:00Z"));
        let header = vapid.authorization(ORIGIN, now).unwrap();
        assert!(header.is_sensitive());
        let claims = claims(&vapid, &header);
        assert_eq!(claims["aud"], ORIGIN);
        assert_eq!(claims["sub"], "mailto:ops@example.org");
        assert_eq!(claims["exp"], now.as_second() + 12 * 3600);
        assert_eq!(claims.as_object().unwrap().len(), 3);
    }

    #[test]
    fn a_token_is_used_again_until_shortly_before_its_end() {
        let vapid = vapid();
        let token = |origin, now| vapid.authorization(origin, at(now)).unwrap();
        let first = token(ORIGIN, "2026-01-15T10:00:00Z");
        assert_eq!(token(ORIGIN, "2026-01-15T20:59:59Z"), first);
        assert_ne!(
            token("https://other.example", "2026-01-15T10:00:00Z"),
            first
        );
        let second = token(ORIGIN, "2026-01-15T21:00:00Z");
        assert_ne!(second, first);
        assert_ne!(
            token(ORIGIN, "2026-01-15T20:59:59Z"),
            second,
            "the clock was set back"
        );
    }

    #[test]
    fn tokens_are_held_for_so_many_push_services_only() {
        let (mut tokens, now) = (Tokens::default(), at("2026-01-15T10:00:00Z"));
        let header = HeaderValue::from_static("x");
        for n in 0..3 * MAX_ORIGINS {
            let expires = now + LIFETIME;
            tokens.put(&n.to_string(), header.clone(), expires, now);
            assert!(tokens.0.len() <= MAX_ORIGINS);
            assert!(tokens.get(&n.to_string(), now).is_some());
        }
    }

    #[test]
    fn keys_of_other_tools_are_read_and_what_is_none_is_named() {
        let secret = SecretKey::random(&mut OsRng);
        let wants = VapidKey::parse(&secret.to_pkcs8_pem(LineEnding::LF).unwrap()).unwrap();
        let raw = URL_SAFE_NO_PAD.encode(secret.to_bytes());
        for text in [
            secret.to_pkcs8_pem(LineEnding::CRLF).unwrap().to_string(),
            secret.to_sec1_pem(LineEnding::LF).unwrap().to_string(),
            format!("{raw}=\n"),
            raw.clone(),
        ] {
            let key = VapidKey::parse(&text).unwrap();
            assert_eq!(key.public(), wants.public(), "{text}");
        }
        let zero = URL_SAFE_NO_PAD.encode([0; 32]);
        let public = secret.public_key().to_string();
        for text in ["", "x", &*zero, wants.public(), &*public] {
            assert!(VapidKey::parse(text).is_none(), "{text}");
        }
        let shown = format!("{wants:?}");
        assert!(shown.contains(wants.public()) && !shown.contains(&raw));
        let error = VapidKey::read(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("push.key_file"));
    }
}
