//! Keys of an issuer, from a URL or a file: how they come in, are rotated, and what happens when
//! the issuer is away or answers badly.

use std::time::Duration;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::auth::Verifier;
use bellhop_notifier::{AuthConfig, NotifierConfig};
use bellhop_tests::client::{Client, metric, request};
use bellhop_tests::issuer::{Answer, Issuer};
use bellhop_tests::keys::{ED25519, Keys, P256, P384, RSA};
use bellhop_tests::stack::{PATIENCE, Running, Stack, http};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Status and code of what an HTTP request with this token is told; 202 when it is let in.
async fn ask(notifier: &Running, token: &str) -> (u16, String) {
    let request = http().delete(notifier.url("/api/tasks/none"));
    let answer = request.bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status, code.to_owned())
}

async fn is_let_in(notifier: &Running, token: &str) -> bool {
    ask(notifier, token).await.0 == 202
}

async fn until_let_in(notifier: &Running, token: &str) {
    let wait = async {
        while !is_let_in(notifier, token).await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("let in at last");
}

fn config(stack: &Stack, issuer: &Issuer, refresh: Duration) -> NotifierConfig {
    let mut config = stack.notifier_config();
    config.auth.secret = None;
    config.auth.jwks_url = Some(issuer.url());
    config.auth.jwks_refresh = HumanDuration(refresh);
    config
}

const DAY: Duration = Duration::from_hours(24);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn keys_of_every_family_come_from_a_url_and_are_rotated() {
    let stack = Stack::shared();
    let families = [
        ("rs", Algorithm::RS256, Keys::make(RSA)),
        ("ps", Algorithm::PS384, Keys::make(RSA)),
        ("p256", Algorithm::ES256, Keys::make(P256)),
        ("p384", Algorithm::ES384, Keys::make(P384)),
        ("ed", Algorithm::EdDSA, Keys::make(ED25519)),
    ];
    let jwk = |(kid, algorithm, keys): &(&str, Algorithm, Keys)| keys.jwk(*algorithm, kid);
    let set: Vec<_> = families.iter().map(jwk).collect();
    let issuer = Issuer::start(Answer::Keys(set.clone())).await;
    let notifier = stack.notifier(config(&stack, &issuer, DAY)).await;
    for (kid, algorithm, keys) in &families {
        let named = keys.sign(*algorithm, Some(kid));
        assert_eq!(ask(&notifier, &named).await.0, 202, "{kid}");
        let nameless = keys.sign(*algorithm, None);
        assert_eq!(ask(&notifier, &nameless).await.0, 202, "{kid}");
        let other = Keys::make(ED25519).sign(Algorithm::EdDSA, Some(kid));
        let refused = (401, "invalid_token".to_owned());
        assert_eq!(ask(&notifier, &other).await, refused, "{kid}");
    }
    let token = families[4].2.sign(Algorithm::EdDSA, Some("ed"));
    let mut ann = Client::connect(notifier.address, &token).await;
    assert_eq!(ann.next_of("connected").await["user_id"], "ann");
    assert_eq!(issuer.asked(), 1);

    // A name that is new lets the notifier look, long before its time, and the old key is gone.
    let new = Keys::make(P256);
    issuer.answers(Answer::Keys(vec![new.jwk(Algorithm::ES256, "new")]));
    until_let_in(&notifier, &new.sign(Algorithm::ES256, Some("new"))).await;
    assert_eq!(issuer.asked(), 2);
    assert!(!is_let_in(&notifier, &token).await);

    // Strangers' names do not make it look again, so soon and so often.
    for n in 0..50 {
        let kid = format!("stranger-{n}");
        let token = new.sign(Algorithm::ES256, Some(&kid));
        assert_eq!(ask(&notifier, &token).await.1, "invalid_token");
    }
    sleep(Duration::from_millis(300)).await;
    assert_eq!(issuer.asked(), 2);
    notifier.stop().await;
}

#[tokio::test]
async fn before_the_first_keys_nobody_is_blamed_and_the_component_is_named() {
    let stack = Stack::shared();
    let keys = Keys::make(P256);
    let token = keys.sign(Algorithm::ES256, Some("k"));
    let issuer = Issuer::start(Answer::Status(503)).await;
    let notifier = stack.start_notifier(config(&stack, &issuer, DAY)).await;
    let starting = (503, "starting".to_owned());
    assert_eq!(ask(&notifier, &token).await, starting);
    let up = async {
        loop {
            let ready = http().get(notifier.url("/readyz")).send().await.unwrap();
            let report: Value = ready.json().await.unwrap();
            if report["components"]["amqp.consumer"] == "up" {
                return report;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let report = timeout(PATIENCE, up).await.unwrap();
    assert_eq!(report["components"]["auth.jwks"], "down");
    assert_eq!(report["ready"], false);
    issuer.answers(Answer::Keys(vec![keys.jwk(Algorithm::ES256, "k")]));
    notifier.wait_ready(true).await;
    assert!(is_let_in(&notifier, &token).await);
    notifier.stop().await;
}

#[tokio::test]
async fn whatever_the_issuer_answers_the_keys_it_gave_go_on() {
    let stack = Stack::shared();
    let (keys, evil) = (Keys::make(P256), Keys::make(P256));
    let good = Answer::Keys(vec![keys.jwk(Algorithm::ES256, "k")]);
    let issuer = Issuer::start(good.clone()).await;
    let notifier = stack.notifier(config(&stack, &issuer, SECOND)).await;
    let token = keys.sign(Algorithm::ES256, Some("k"));
    let evil_key = evil.jwk(Algorithm::ES256, "k");
    let large = json!({"keys": [evil_key], "padding": "x".repeat(256 * 1024)}).to_string();
    let secret = json!({"kty": "oct", "kid": "k", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"});
    for (answer, outcome) in [
        (Answer::Status(500), "status"),
        (Answer::Status(204), "status"),
        (Answer::Redirect, "redirect"),
        (Answer::Text(large), "too_large"),
        (Answer::Text("<html>".into()), "invalid"),
        (Answer::Keys(vec![]), "invalid"),
        (Answer::Keys(vec![secret]), "invalid"),
        (Answer::Keys(vec![evil_key.clone(); 101]), "invalid"),
        (Answer::Never, "timeout"),
    ] {
        let name = format!("{answer:?}");
        let series = format!("bellhop_notifier_jwks_refreshes_total{{outcome=\"{outcome}\"}}");
        let before = metric(&notifier, &series).await;
        issuer.answers(answer);
        let counted = async {
            while metric(&notifier, &series).await == before {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let name = name.get(..60).unwrap_or(&name);
        timeout(PATIENCE, counted).await.expect(name);
        assert!(is_let_in(&notifier, &token).await, "{name}");
        assert!(notifier.is_ready().await, "{name}");
        let forged = evil.sign(Algorithm::ES256, Some("k"));
        assert!(!is_let_in(&notifier, &forged).await, "{name}");
    }
    drop(issuer);
    let gone = "bellhop_notifier_jwks_refreshes_total{outcome=\"unreachable\"}";
    let counted = async {
        while metric(&notifier, gone).await == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, counted).await.unwrap();
    assert!(is_let_in(&notifier, &token).await);
    notifier.stop().await;
}

#[tokio::test]
async fn a_notifier_stops_in_time_although_the_issuer_does_not_answer() {
    let stack = Stack::shared();
    let issuer = Issuer::start(Answer::Never).await;
    let notifier = stack.start_notifier(config(&stack, &issuer, DAY)).await;
    let asked = async {
        while issuer.asked() == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asked).await.unwrap();
    let stopping = notifier.stop();
    let limit = Duration::from_secs(4);
    timeout(limit, stopping)
        .await
        .expect("less than the deadline");
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_for_a_new_name() {
    let stack = Stack::shared();
    let path = std::env::temp_dir().join(format!("bellhop-jwks-{}", Uuid::now_v7()));
    let write = |keys: &[Value]| {
        let text = json!({ "keys": keys }).to_string();
        std::fs::write(&path, text).unwrap();
    };
    let (old, new) = (Keys::make(P256), Keys::make(ED25519));
    write(&[old.jwk(Algorithm::ES256, "old")]);
    let mut config = stack.notifier_config();
    config.auth.secret = None;
    config.auth.jwks_file = Some(path.clone());
    let notifier = stack.notifier(config).await;
    let first = old.sign(Algorithm::ES256, Some("old"));
    assert!(is_let_in(&notifier, &first).await);
    write(&[
        old.jwk(Algorithm::ES256, "old"),
        new.jwk(Algorithm::EdDSA, "new"),
    ]);
    until_let_in(&notifier, &new.sign(Algorithm::EdDSA, Some("new"))).await;
    assert!(is_let_in(&notifier, &first).await);
    notifier.stop().await;
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_without_a_good_key_is_refused_at_the_start() {
    let path = std::env::temp_dir().join(format!("bellhop-jwks-{}", Uuid::now_v7()));
    let config = AuthConfig {
        jwks_file: Some(path.clone()),
        ..AuthConfig::default()
    };
    let refused = || {
        let error = Verifier::new(&config).unwrap_err();
        let error = bellhop_common::telemetry::with_causes(&error);
        assert!(error.contains("auth.jwks_file"), "{error}");
        error
    };
    refused();
    let secret = json!({"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"});
    std::fs::write(&path, json!({"keys": [secret]}).to_string()).unwrap();
    let error = refused();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("none of its 1 keys"), "{error}");
}

#[tokio::test]
async fn a_program_is_told_to_come_back_when_the_keys_are_not_there() {
    let stack = Stack::shared();
    let issuer = Issuer::start(Answer::Status(503)).await;
    let notifier = stack.start_notifier(config(&stack, &issuer, DAY)).await;
    let token = Keys::make(P256).sign(Algorithm::ES256, Some("k"));
    let header = [("authorization", &*format!("Bearer {token}"))];
    let request = request(notifier.address, "/ws", &header);
    let error = Client::open(request).await.err().unwrap().to_string();
    assert!(error.contains("503"), "{error}");
    notifier.stop().await;
}
