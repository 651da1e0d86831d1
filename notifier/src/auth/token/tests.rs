//! Tokens, good and bad.

use super::*;
use crate::auth::{Draft, mint};
use crate::config::KeyConfig;
use bellhop_common::config::Secret;
use jsonwebtoken::EncodingKey;
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
    let draft = Draft::new("ann", now(), Duration::from_mins(1));
    let token = mint(&config(), &draft).unwrap();
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
        let claims = json!({"sub": "ann", "exp": 1_800_000_060, "scope": scope, "scopes": scopes});
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

fn named(id: &str, secret: &str) -> KeyConfig {
    KeyConfig {
        id: id.into(),
        algorithm: Algorithm::HS256,
        secret: Some(Secret::new(secret)),
        secret_file: None,
        public_key_file: None,
    }
}

fn signed(kid: Option<&str>, secret: &str) -> String {
    let header = Header {
        kid: kid.map(str::to_owned),
        ..Header::new(Algorithm::HS256)
    };
    let claims = json!({"sub": "ann", "exp": 1_800_000_060});
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&header, &claims, &key).unwrap()
}

#[test]
fn a_rotation_is_two_keys() {
    let (old, new) = (SECRET, SECRET.to_uppercase());
    let config = AuthConfig {
        keys: vec![named("new", &new), named("old", old)],
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(&config).unwrap();
    let verify = |kid, secret: &str| verifier.verify(&signed(kid, secret), now());
    assert!(verify(Some("new"), &new).is_ok());
    assert!(verify(Some("old"), old).is_ok());
    assert_eq!(verify(Some("new"), old), Err(TokenError::BadSignature));
    assert_eq!(verify(Some("odd"), old), Err(TokenError::UnknownKey));
    // Without a name both are tried.
    assert!(verify(None, old).is_ok() && verify(None, &new).is_ok());
    let stranger = "z".repeat(32);
    assert_eq!(verify(None, &stranger), Err(TokenError::BadSignature));
    // Minted with the first, and says so.
    let draft = Draft::new("ann", now(), Duration::from_mins(1));
    let minted = mint(&config, &draft).unwrap();
    let header = jsonwebtoken::decode_header(&minted).unwrap();
    assert_eq!(header.kid.as_deref(), Some("new"));
    assert!(verifier.verify(&minted, now()).is_ok());
}

#[test]
fn a_name_that_nobody_knows_does_not_lock_out_who_has_one_key() {
    let verifier = Verifier::new(&config()).unwrap();
    let token = signed(Some("whatever"), SECRET);
    assert!(verifier.verify(&token, now()).is_ok());
}

#[test]
fn a_key_set_from_afar_that_has_not_come_is_no_fault_of_the_token() {
    let config = AuthConfig {
        jwks_url: Some("https://issuer.example/keys".into()),
        ..AuthConfig::default()
    };
    let verifier = Verifier::new(&config).unwrap();
    let token = signed(Some("k"), SECRET);
    assert_eq!(verifier.verify(&token, now()), Err(TokenError::Starting));
}

#[test]
fn a_revoked_token_is_refused() {
    let verifier = Verifier::new(&config()).unwrap();
    let mut draft = Draft::new("ann", now(), Duration::from_mins(1));
    draft.token_id = Some("t1");
    let token = mint(&config(), &draft).unwrap();
    assert!(verifier.verify(&token, now()).is_ok());
    let (token_id, time) = ("t1".into(), now());
    verifier.revoke(&Revocation::Token { token_id, time }, now());
    assert_eq!(verifier.verify(&token, now()), Err(TokenError::Revoked));
}

#[test]
fn no_key_at_all_lets_nobody_in() {
    assert!(Verifier::new(&AuthConfig::default()).is_err());
    let config = AuthConfig {
        keys: vec![KeyConfig {
            secret: None,
            ..named("k", "")
        }],
        ..AuthConfig::default()
    };
    assert!(Verifier::new(&config).is_err());
}
