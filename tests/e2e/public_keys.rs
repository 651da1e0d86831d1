//! Tokens signed with a private key and checked with the public one, for each family of keys.

use std::path::{Path, PathBuf};
use std::process::Command;

use bellhop_notifier::auth::{TokenError, Verifier};
use bellhop_notifier::{AuthConfig, NotifierConfig};
use bellhop_tests::client::Client;
use bellhop_tests::stack::Stack;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use uuid::Uuid;

/// A pair of keys, made by openssl as an operator would. Gone when dropped.
struct Keys(PathBuf);

impl Keys {
    fn make(options: &[&str]) -> Self {
        let name = format!("bellhop-keys-{}", Uuid::now_v7().simple());
        let keys = Self(std::env::temp_dir().join(name));
        std::fs::create_dir(&keys.0).unwrap();
        let private = keys.private();
        openssl(&[&["genpkey", "-out", text(&private)], options].concat());
        let public = keys.public();
        openssl(&[
            "pkey",
            "-in",
            text(&private),
            "-pubout",
            "-out",
            text(&public),
        ]);
        keys
    }

    fn private(&self) -> PathBuf {
        self.0.join("private.pem")
    }

    fn public(&self) -> PathBuf {
        self.0.join("public.pem")
    }

    fn sign(&self, algorithm: Algorithm) -> String {
        let pem = std::fs::read(self.private()).unwrap();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        };
        let exp = Timestamp::now().as_second() + 600;
        let claims = json!({"sub": "ann", "exp": exp});
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &key.unwrap()).unwrap()
    }

    fn config(&self, algorithm: Algorithm) -> AuthConfig {
        AuthConfig {
            algorithm,
            public_key_file: Some(self.public()),
            ..AuthConfig::default()
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn openssl(arguments: &[&str]) {
    let ran = Command::new("openssl").args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "openssl {arguments:?}: {errors}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn each_algorithm_takes_tokens_of_its_own_key_only() {
    const RSA: &[&str] = &["-algorithm", "RSA"];
    const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
    const ED25519: &[&str] = &["-algorithm", "ED25519"];
    for (algorithm, options) in [
        (Algorithm::RS256, RSA),
        (Algorithm::PS256, RSA),
        (Algorithm::ES256, P256),
        (Algorithm::ES384, P384),
        (Algorithm::EdDSA, ED25519),
    ] {
        let (keys, others) = (Keys::make(options), Keys::make(options));
        let verifier = Verifier::new(&keys.config(algorithm)).unwrap();
        let now = Timestamp::now();
        let good = verifier.verify(&keys.sign(algorithm), now);
        assert_eq!(good.unwrap().user_id, "ann", "{algorithm:?}");
        let bad = verifier.verify(&others.sign(algorithm), now);
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
    let keys = Keys::make(&["-algorithm", "ED25519"]);
    let error = Verifier::new(&keys.config(Algorithm::RS256)).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("auth.public_key_file") && error.contains("RS256"),
        "{error}"
    );
}

#[tokio::test]
async fn a_client_gets_in_with_a_token_of_a_private_key() {
    let keys = Keys::make(&["-algorithm", "ED25519"]);
    let stack = Stack::shared();
    let config = NotifierConfig {
        auth: keys.config(Algorithm::EdDSA),
        ..stack.notifier_config()
    };
    let notifier = stack.notifier(config).await;
    let mut ann = Client::connect(notifier.address, &keys.sign(Algorithm::EdDSA)).await;
    assert_eq!(ann.next_of("connected").await["user_id"], "ann");
    notifier.stop().await;
}
