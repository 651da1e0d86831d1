//! Checks tokens: which keys, then the signature, then the claims, then whether it was revoked.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bellhop_common::wire::Revocation;
use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation};

use super::claims::{Claims, Identity, TokenError};
use super::configured::{self, KeyError};
use super::issuer::Issuer;
use super::keys::{self, Key};
use super::revocations::Revocations;
use crate::config::{AuthConfig, AuthMode};

/// Checks tokens. Never waits: what comes from elsewhere (the issuer's keys, revocations) is put in
/// by tasks of their own.
#[derive(Debug)]
pub struct Verifier {
    mode: AuthMode,
    configured: Vec<Key>,
    issuer: Option<Arc<Issuer>>,
    validation: Validation,
    leeway: Duration,
    revocations: RwLock<Revocations>,
}

impl Verifier {
    /// Reads the keys that the configuration names. A key set at a URL is fetched later.
    ///
    /// # Errors
    /// [`KeyError`] names the key and what is wrong with it.
    pub fn new(config: &AuthConfig) -> Result<Self, KeyError> {
        let (configured, issuer) = match config.mode {
            AuthMode::None => (Vec::new(), None),
            AuthMode::Jwt => (configured::keys(config)?, Issuer::new(config)?),
        };
        let mut validation = Validation::new(Algorithm::default());
        // Times are checked by `Claims::identity`, against a clock that a test can set.
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
            configured,
            issuer: issuer.map(Arc::new),
            validation,
            leeway: config.leeway.0,
            revocations: RwLock::default(),
        })
    }

    /// How users are recognised.
    #[must_use]
    pub fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Whose key set is to be kept fresh, if any.
    pub(crate) fn issuer(&self) -> Option<Arc<Issuer>> {
        self.issuer.clone()
    }

    /// Checks a token at a time.
    ///
    /// # Errors
    /// [`TokenError`]; its text never holds the token.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Identity, TokenError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
        let identity = self.claims(token, &header)?.identity(now, self.leeway)?;
        let (user, id) = (&identity.user_id, identity.token_id.as_deref());
        if self.is_revoked(user, id, identity.issued_at) {
            return Err(TokenError::Revoked);
        }
        Ok(identity)
    }

    /// Whether the token of a login has been revoked meanwhile.
    #[must_use]
    pub fn is_revoked(
        &self,
        user: &str,
        token_id: Option<&str>,
        issued_at: Option<Timestamp>,
    ) -> bool {
        let revocations = self.revocations.read();
        let revocations = revocations.unwrap_or_else(PoisonError::into_inner);
        revocations.covers(user, token_id, issued_at)
    }

    /// From now on refuses what the revocation covers.
    pub fn revoke(&self, revocation: &Revocation, now: Timestamp) {
        let revocations = self.revocations.write();
        let mut revocations = revocations.unwrap_or_else(PoisonError::into_inner);
        revocations.add(revocation, now);
    }

    fn claims(&self, token: &str, header: &Header) -> Result<Claims, TokenError> {
        let kid = header.kid.as_deref();
        let issuer = self.issuer.as_deref();
        let fetched = issuer.map(Issuer::keys).unwrap_or_default();
        let known = |kid| keys::knows(&self.configured, kid) || keys::knows(&fetched, kid);
        let named = kid.is_some_and(known);
        if let (Some(issuer), Some(_), false) = (issuer, kid, named) {
            // It may have a new key.
            issuer.ask();
        }
        let checked = keys::choose(&self.configured, &fetched, kid, header.alg)
            .and_then(|keys| self.check(token, &keys));
        match checked {
            Err(_) if !named && issuer.is_some_and(Issuer::is_unknown) => Err(TokenError::Starting),
            checked => checked,
        }
    }

    /// Checks signature, `iss` and `aud` with the first key that fits.
    fn check(&self, token: &str, keys: &[&Key]) -> Result<Claims, TokenError> {
        for key in keys {
            let mut validation = self.validation.clone();
            validation.algorithms = vec![key.algorithm];
            match jsonwebtoken::decode::<Claims>(token, &key.material, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => match explain(error.kind()) {
                    TokenError::BadSignature => {}
                    error => return Err(error),
                },
            }
        }
        Err(TokenError::BadSignature)
    }
}

fn explain(kind: &ErrorKind) -> TokenError {
    match kind {
        // A key of an issuer's that is none shows only now.
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_)
        | ErrorKind::InvalidKeyFormat => TokenError::BadSignature,
        ErrorKind::InvalidIssuer => TokenError::WrongClaim("iss"),
        ErrorKind::InvalidAudience => TokenError::WrongClaim("aud"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => TokenError::MissingClaim("iss"),
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => TokenError::MissingClaim("aud"),
        _ => TokenError::Malformed,
    }
}

#[cfg(test)]
mod tests;
