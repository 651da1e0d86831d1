//! Pairs of keys, made by openssl as an operator would.

use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use uuid::Uuid;

pub const RSA: &[&str] = &["-algorithm", "RSA"];
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const P384: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"];
pub const ED25519: &[&str] = &["-algorithm", "ED25519"];

/// A pair of keys. Gone when dropped.
pub struct Keys(PathBuf);

impl Keys {
    pub fn make(options: &[&str]) -> Self {
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

    /// The public key's file.
    pub fn public(&self) -> PathBuf {
        self.0.join("public.pem")
    }

    fn signing(&self, algorithm: Algorithm) -> EncodingKey {
        let pem = std::fs::read(self.private()).unwrap();
        let key = match algorithm {
            Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(&pem),
            Algorithm::EdDSA => EncodingKey::from_ed_pem(&pem),
            _ => EncodingKey::from_rsa_pem(&pem),
        };
        key.unwrap()
    }

    /// A token of ann's for ten minutes, with or without the key's name.
    pub fn sign(&self, algorithm: Algorithm, kid: Option<&str>) -> String {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(algorithm)
        };
        let exp = Timestamp::now().as_second() + 600;
        let claims = json!({"sub": "ann", "exp": exp});
        jsonwebtoken::encode(&header, &claims, &self.signing(algorithm)).unwrap()
    }

    /// The public key as an entry of a key set.
    pub fn jwk(&self, algorithm: Algorithm, kid: &str) -> Value {
        let jwk = Jwk::from_encoding_key(&self.signing(algorithm), algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(kid);
        jwk["use"] = json!("sig");
        jwk
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
