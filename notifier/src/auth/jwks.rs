//! Key sets (JWKS, RFC 7517): which of their keys can check tokens. Pure.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::keys::Key;

/// How many keys a set may have.
pub(crate) const MAX_KEYS: usize = 100;

/// The base64 of 2,048 bits, the least that RFC 7518, 3.3 allows.
const MIN_MODULUS: usize = 342;

/// Why a key set is of no use.
#[derive(Debug, Error)]
pub enum JwksError {
    /// Not the JSON of a key set.
    #[error("it is no key set")]
    Malformed(#[source] serde_json::Error),
    /// More keys than anybody needs.
    #[error("it has {0} keys, {MAX_KEYS} are allowed")]
    TooMany(usize),
    /// Nothing in it can check tokens.
    #[error(
        "none of its {0} keys can check tokens: they must be RSA (2,048 bits or more), EC (P-256, \
         P-384) or OKP (Ed25519) keys for signatures"
    )]
    NoneFits(usize),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys of a set that can check tokens; others are passed over, because an issuer may add kinds
/// that we do not know.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Key>, JwksError> {
    let set: Set = serde_json::from_slice(text).map_err(JwksError::Malformed)?;
    let count = set.keys.len();
    if count > MAX_KEYS {
        return Err(JwksError::TooMany(count));
    }
    let keys: Vec<_> = set.keys.into_iter().filter_map(key).collect();
    if keys.is_empty() {
        return Err(JwksError::NoneFits(count));
    }
    Ok(keys)
}

fn key(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let purpose = jwk.common.public_key_use.as_ref();
    if purpose.is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let operations = jwk.common.key_operations.as_ref();
    if operations.is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return None;
    }
    let algorithm = algorithm(&jwk.algorithm, jwk.common.key_algorithm)?;
    Some(Key {
        algorithm,
        material: DecodingKey::from_jwk(&jwk).ok()?,
        id: jwk.common.key_id,
    })
}

/// The one algorithm of a key: what it says, if that fits what it is, or the usual one. Shared
/// secrets (`oct`) have none: whoever can read them could sign.
fn algorithm(parameters: &AlgorithmParameters, said: Option<KeyAlgorithm>) -> Option<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let possible: &[Algorithm] = match parameters {
        AlgorithmParameters::RSA(key) if key.n.len() >= MIN_MODULUS => {
            &[RS256, RS384, RS512, PS256, PS384, PS512]
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => &[ES256],
            EllipticCurve::P384 => &[ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[EdDSA],
        _ => return None,
    };
    match said {
        None => possible.first().copied(),
        Some(said) => {
            let said = Algorithm::try_from(said).ok()?;
            possible.contains(&said).then_some(said)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rsa(more: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": "w".repeat(342), "e": "AQAB"});
        let fields = more.as_object().unwrap().clone();
        key.as_object_mut().unwrap().extend(fields);
        key
    }

    fn algorithms(keys: &Value) -> Vec<Algorithm> {
        let text = json!({ "keys": keys }).to_string();
        let keys = parse(text.as_bytes()).unwrap_or_default();
        keys.iter().map(|key| key.algorithm).collect()
    }

    #[test]
    fn each_key_has_the_one_algorithm_that_it_says_or_is() {
        use Algorithm::{ES256, ES384, EdDSA, PS512, RS256};
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ", "unknown": [1]});
        let p384 = json!({"kty": "EC", "crv": "P-384", "x": "eA", "y": "eQ", "use": "sig"});
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "eA", "key_ops": ["verify"]});
        let keys = json!([
            rsa(&json!({})),
            rsa(&json!({"alg": "PS512"})),
            p256,
            p384,
            ed
        ]);
        assert_eq!(algorithms(&keys), [RS256, PS512, ES256, ES384, EdDSA]);
    }

    #[test]
    fn a_key_that_cannot_check_tokens_is_passed_over() {
        for key in [
            json!({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"}),
            json!({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0", "alg": "HS256"}),
            rsa(&json!({"use": "enc"})),
            rsa(&json!({"key_ops": ["encrypt"]})),
            rsa(&json!({"alg": "RSA-OAEP"})),
            rsa(&json!({"alg": "HS256"})),
            rsa(&json!({"alg": "ES256"})),
            rsa(&json!({"alg": "none"})),
            rsa(&json!({"n": "wwww"})),
            rsa(&json!({"n": "%".repeat(342)})),
            json!({"kty": "EC", "crv": "P-521", "x": "eA", "y": "eQ"}),
            json!({"kty": "EC", "crv": "secp256k1", "x": "eA", "y": "eQ"}),
            json!({"kty": "OKP", "crv": "Ed448", "x": "eA"}),
            json!({"kty": "OKP", "crv": "P-256", "x": "eA"}),
            json!({"kty": "EC", "crv": "P-256", "x": "eA"}),
            json!("a text"),
            Value::Null,
        ] {
            assert_eq!(algorithms(&json!([key])), [], "{key}");
            let beside = json!([key, rsa(&json!({}))]);
            assert_eq!(algorithms(&beside), [Algorithm::RS256], "{key}");
        }
    }

    #[test]
    fn what_is_no_set_says_why() {
        for (text, says) in [
            ("", "no key set"),
            ("[]", "no key set"),
            (r#"{"keys": {}}"#, "no key set"),
            (r#"{"keys": []}"#, "none of its 0"),
            (r#"{"keys": [{}]}"#, "none of its 1"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let many = json!({"keys": vec![rsa(&json!({})); 101]}).to_string();
        let error = parse(many.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("101"), "{error}");
    }
}
