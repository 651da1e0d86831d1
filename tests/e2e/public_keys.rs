//! Tokens signed with a private key and checked with the public one, for each family of keys.

use bellhop_common::config::Secret;
use bellhop_notifier::auth::{TokenError, Verifier};
use bellhop_notifier::{AuthConfig, KeyConfig, NotifierConfig};
use bellhop_tests::client::Client;
use bellhop_tests::keys::{ED25519, Keys, P256, P384, RSA};
use bellhop_tests::stack::{SECRET, Stack};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

fn config(keys: &Keys, algorithm: Algorithm) -> AuthConfig {
    AuthConfig {
        algorithm,
        public_key_file: Some(keys.public()),
        ..AuthConfig::default()
    }
}

#[test]
fn each_algorithm_takes_tokens_of_its_own_key_only() {
    for (algorithm, options) in [
        (Algorithm::RS256, RSA),
        (Algorithm::PS256, RSA),
        (Algorithm::ES256, P256),
        (Algorithm::ES384, P384),
        (Algorithm::EdDSA, ED25519),
    ] {
        let (keys, others) = (Keys::make(options), Keys::make(options));
        let verifier = Verifier::new(&config(&keys, algorithm)).unwrap();
        let now = Timestamp::now();
        let good = verifier.verify(&keys.sign(algorithm, None), now);
        assert_eq!(good.unwrap().user_id, "ann", "{algorithm:?}");
        let bad = verifier.verify(&others.sign(algorithm, None), now);
        assert_eq!(bad, Err(TokenError::BadSignature), "{algorithm:?}");
        // The old trick: the public key, which anybody may have, as the secret of an HS256 token.
        let public = std::fs::read(keys.public()).unwrap();
        let claims = json!({"sub": "root", "exp": now.as_second() + 600});
        let key = EncodingKey::from_secret(&public);
        let forged = jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap();
        let refused = verifier.verify(&forged, now);
        assert!(matches!(refused, Err(TokenError::WrongAlgorithm { .. })));
    }
}

#[test]
fn a_file_without_a_fitting_key_is_refused_by_name() {
    let keys = Keys::make(ED25519);
    let error = Verifier::new(&config(&keys, Algorithm::RS256)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("auth.public_key_file") && error.contains("RS256"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_gets_in_with_a_token_of_a_private_key() {
    let keys = Keys::make(ED25519);
    let stack = Stack::shared();
    let config = NotifierConfig {
        auth: config(&keys, Algorithm::EdDSA),
        ..stack.notifier_config()
    };
    let notifier = stack.notifier(config).await;
    let mut ann = Client::connect(notifier.address, &keys.sign(Algorithm::EdDSA, None)).await;
    assert_eq!(ann.next_of("connected").await["user_id"], "ann");
    notifier.stop().await;
}

/// `HS256` with whatever the attacker has.
fn forged(secret: &[u8], kid: Option<&str>) -> String {
    let claims = json!({"sub": "root", "exp": Timestamp::now().as_second() + 600});
    let header = Header {
        kid: kid.map(str::to_owned),
        ..Header::default()
    };
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[test]
fn a_token_is_checked_with_the_key_it_names_and_in_that_keys_algorithm() {
    let (rsa, other, ed) = (Keys::make(RSA), Keys::make(RSA), Keys::make(ED25519));
    let key = |id: &str, algorithm, keys: &Keys| KeyConfig {
        id: id.into(),
        algorithm,
        secret: None,
        secret_file: None,
        public_key_file: Some(keys.public()),
    };
    let shared = KeyConfig {
        algorithm: Algorithm::HS256,
        secret: Some(Secret::new(SECRET)),
        public_key_file: None,
        ..key("shared", Algorithm::HS256, &rsa)
    };
    let config = AuthConfig {
        keys: vec![
            key("rsa", Algorithm::RS256, &rsa),
            key("other", Algorithm::PS256, &other),
            key("ed", Algorithm::EdDSA, &ed),
            shared,
        ],
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(&config).unwrap();
    let verify = |token: &str| verifier.verify(token, Timestamp::now()).map(drop);
    for kid in [Some("rsa"), None] {
        assert_eq!(verify(&rsa.sign(Algorithm::RS256, kid)), Ok(()));
    }
    assert_eq!(verify(&ed.sign(Algorithm::EdDSA, Some("ed"))), Ok(()));
    assert_eq!(verify(&other.sign(Algorithm::PS256, None)), Ok(()));
    assert_eq!(verify(&forged(SECRET.as_bytes(), Some("shared"))), Ok(()));

    let bad = Err(TokenError::BadSignature);
    assert_eq!(verify(&other.sign(Algorithm::RS256, Some("rsa"))), bad);
    assert_eq!(verify(&other.sign(Algorithm::RS256, None)), bad);
    let wrong = |token: &str| matches!(verify(token), Err(TokenError::WrongAlgorithm { .. }));
    // The right key, in an algorithm it is not for.
    assert!(wrong(&rsa.sign(Algorithm::PS256, Some("rsa"))));
    // The old trick: the public key, which anybody may have, as the secret.
    let public = std::fs::read(rsa.public()).unwrap();
    assert!(wrong(&forged(&public, Some("rsa"))));
    assert!(wrong(&forged(SECRET.as_bytes(), Some("rsa"))));
    for kid in [Some("shared"), None] {
        assert_eq!(verify(&forged(&public, kid)), bad);
    }
    let unknown = verify(&forged(&public, Some("nobody's")));
    assert_eq!(unknown, Err(TokenError::UnknownKey));
}
