//! Tokens that are good no more: ordered at one instance, known to all, and to those to come.

use std::time::{Duration, Instant};

use bellhop_common::config::HumanDuration;
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::client::{Client, request};
use bellhop_tests::program::command;
use bellhop_tests::stack::{PATIENCE, Running, SECRET, Stack, admin_token, http, minted, token};
use jiff::Timestamp;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

/// Status and code of what an HTTP request with this token is told; 202 when it is let in.
async fn ask(notifier: &Running, token: &str) -> (u16, String) {
    let request = http().delete(notifier.url("/api/tasks/none"));
    let answer = request.bearer_auth(token).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    let code = body["error"]["code"].as_str().unwrap_or_default();
    (status, code.to_owned())
}

/// The same, as soon as the notifier knows what was revoked.
async fn ask_at_last(notifier: &Running, token: &str) -> (u16, String) {
    loop {
        let answer = ask(notifier, token).await;
        if answer.1 != "starting" {
            return answer;
        }
    }
}

fn revoked() -> (u16, String) {
    (401, "token_revoked".to_owned())
}

async fn until_revoked(notifier: &Running, token: &str) {
    let wait = async {
        while ask(notifier, token).await != revoked() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, wait).await.expect("revoked at last");
}

async fn revoke(notifier: &Running, token: &str, body: &Value) -> (u16, Value) {
    let request = http().post(notifier.url("/api/revocations"));
    let request = request.bearer_auth(token).body(body.to_string());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn answers(client: &mut Client) {
    client.send(r#"{"type":"ping"}"#).await;
    client.next_of("pong").await;
}

/// A token that does not say when it was issued.
fn ageless(user: &str) -> String {
    let claims = json!({"sub": user, "exp": Timestamp::now().as_second() + 600});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn a_revoked_user_is_refused_by_every_instance_and_after_a_restart() {
    let stack = Stack::shared();
    let one = stack.notifier(stack.shared_config()).await;
    let two = stack.notifier(stack.shared_config()).await;
    let (ann, bob, old) = (token("ann"), token("bob"), ageless("ann"));
    for notifier in [&one, &two] {
        assert_eq!(ask(notifier, &ann).await.0, 202);
        assert_eq!(ask(notifier, &old).await.0, 202);
    }
    let body = json!({"user_id": "ann"});
    let (status, told) = revoke(&one, &admin_token("root"), &body).await;
    assert_eq!((status, &told["user_id"]), (202, &json!("ann")));
    let time: Timestamp = told["issued_before"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(time).as_secs() < 60);
    for notifier in [&one, &two] {
        until_revoked(notifier, &ann).await;
        assert_eq!(ask(notifier, &old).await, revoked());
        // A new login is good.
        assert_eq!(ask(notifier, &token("ann")).await.0, 202);
        assert_eq!(ask(notifier, &bob).await.0, 202);
        let header = [("authorization", &*format!("Bearer {ann}"))];
        let request = request(notifier.address, "/ws", &header);
        let error = Client::open(request).await.err().unwrap().to_string();
        assert!(error.contains("401"), "{error}");
    }
    one.stop().await;
    two.stop().await;
    // Not ready yet, and still nobody slips in.
    let three = stack.start_notifier(stack.shared_config()).await;
    assert_eq!(ask_at_last(&three, &ann).await, revoked());
    assert_eq!(ask(&three, &bob).await.0, 202);
    three.wait_ready(true).await;
    three.stop().await;
}

#[tokio::test]
async fn one_token_or_all_before_a_time_can_be_revoked() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let admin = admin_token("root");
    let one = minted(|draft| draft.token_id = Some("one"), "ann");
    let two = minted(|draft| draft.token_id = Some("two"), "ann");
    let (status, told) = revoke(&notifier, &admin, &json!({"token_id": "one"})).await;
    assert_eq!((status, &told["token_id"]), (202, &json!("one")));
    until_revoked(&notifier, &one).await;
    assert_eq!(ask(&notifier, &two).await.0, 202);

    let hour_ago = Timestamp::now() - Duration::from_hours(1);
    let old = minted(
        |draft| {
            draft.now = hour_ago;
            draft.lifetime = Duration::from_hours(2);
        },
        "bob",
    );
    assert_eq!(ask(&notifier, &old).await.0, 202);
    let time = Timestamp::now() - Duration::from_mins(10);
    let body = json!({"everybody": true, "issued_before": time});
    assert_eq!(revoke(&notifier, &admin, &body).await.0, 202);
    until_revoked(&notifier, &old).await;
    assert_eq!(ask(&notifier, &two).await.0, 202);
    let metrics = http().get(notifier.url("/metrics")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    for kind in ["token", "everybody"] {
        let series = format!("bellhop_notifier_revocations_total{{kind=\"{kind}\"}} 1");
        assert!(metrics.contains(&series), "{metrics}");
    }
    notifier.stop().await;
}

#[tokio::test]
async fn only_administrators_revoke_and_only_what_makes_sense() {
    let stack = Stack::shared();
    let notifier = stack.notifier(stack.notifier_config()).await;
    let far = Timestamp::now() + Duration::from_hours(2);
    for (token, body, status, code) in [
        (token("ann"), json!({"everybody": true}), 403, "not_admin"),
        ("x".into(), json!({"everybody": true}), 401, "invalid_token"),
        (admin_token("root"), json!({}), 400, "bad_request"),
        (
            admin_token("root"),
            json!({"everybody": false}),
            400,
            "bad_request",
        ),
        (
            admin_token("root"),
            json!({"user_id": "a", "token_id": "t"}),
            400,
            "bad_request",
        ),
        (
            admin_token("root"),
            json!({"user_id": "a", "issued_before": far}),
            400,
            "bad_request",
        ),
        (
            admin_token("root"),
            json!({"users": ["a"]}),
            400,
            "bad_json",
        ),
    ] {
        let (told, answer) = revoke(&notifier, &token, &body).await;
        assert_eq!((told, &answer["error"]["code"]), (status, &json!(code)));
    }
    // What was refused was not done.
    assert_eq!(ask(&notifier, &ageless("a")).await.0, 202);
    notifier.stop().await;
}

#[tokio::test]
async fn a_revocation_from_the_command_line_holds_for_notifiers_to_come() {
    let stack = Stack::shared();
    for (arguments, code) in [
        (&["--user", "ann"][..], 0),
        (&["--token-id", "t"], 0),
        (&[], 2),
        (&["--user", "ann", "--everybody"], 2),
        (
            &["--token-id", "t", "--issued-before", "2026-01-01T00:00:00Z"],
            2,
        ),
        (
            &["--everybody", "--issued-before", "2999-01-01T00:00:00Z"],
            1,
        ),
    ] {
        let mut command = command("notifier", &stack);
        let running = command.arg("revoke").args(arguments).output();
        let ran = timeout(PATIENCE, running).await.unwrap().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {errors}");
    }
    let notifier = stack.start_notifier(stack.notifier_config()).await;
    let answer = ask_at_last(&notifier, &ageless("ann")).await;
    assert_eq!(answer, revoked());
    let named = minted(|draft| draft.token_id = Some("t"), "bob");
    assert_eq!(ask(&notifier, &named).await, revoked());
    assert_eq!(ask(&notifier, &token("bob")).await.0, 202);
    notifier.stop().await;
}

#[tokio::test]
async fn without_the_broker_nobody_is_let_in_until_the_wait_is_over() {
    // Nothing listens there.
    let stack = Stack::on(OwnBroker::prepare().url());
    let notifier = stack.start_notifier(stack.notifier_config()).await;
    let starting = (503, "starting".to_owned());
    let asking = async {
        assert_eq!(ask(&notifier, &token("ann")).await, starting);
        Instant::now()
    };
    let opening = async {
        let refused = Client::open(request(notifier.address, "/ws", &[])).await;
        let error = refused.err().unwrap().to_string();
        assert!(error.contains("503"), "{error}");
        Instant::now()
    };
    let begun = Instant::now();
    let (asked, opened) = tokio::join!(asking, opening);
    // Who opens a socket is held as long as anybody else, and not once more by the other routes.
    assert!(opened - begun < (asked - begun).mul_f64(1.5));
    let ready = http().get(notifier.url("/readyz")).send().await.unwrap();
    let report: Value = ready.json().await.unwrap();
    assert_eq!(report["components"]["auth.revocations"], "down");
    notifier.stop().await;

    let mut config = stack.notifier_config();
    config.auth.revocations_wait = HumanDuration(Duration::ZERO);
    let notifier = stack.start_notifier(config).await;
    stack.client(&notifier, "ann").await;
    notifier.stop().await;
}

#[tokio::test]
async fn open_connections_end_when_their_token_is_revoked_on_every_instance() {
    let stack = Stack::shared();
    let one = stack.notifier(stack.shared_config()).await;
    let two = stack.notifier(stack.shared_config()).await;
    let old = token("ann");
    let named = minted(|draft| draft.token_id = Some("n"), "bob");
    let mut clients = Vec::new();
    for notifier in [&one, &two] {
        for (user, token) in [("ann", &old), ("bob", &named), ("cid", &token("cid"))] {
            let mut client = Client::connect(notifier.address, token).await;
            assert_eq!(client.next_of("connected").await["user_id"], user);
            clients.push((user, client));
        }
    }
    let mut renewed = Client::connect(one.address, &old).await;
    renewed.next_of("connected").await;
    // Its login is that of a later token now.
    let later = Timestamp::now() + Duration::from_mins(1);
    let new = minted(|draft| draft.now = later, "ann");
    let auth = json!({"type": "auth", "token": new}).to_string();
    renewed.send(&auth).await;
    answers(&mut renewed).await;
    for body in [json!({"user_id": "ann"}), json!({"token_id": "n"})] {
        assert_eq!(revoke(&one, &admin_token("root"), &body).await.0, 202);
    }
    let told = Some((4504, "token_revoked".to_owned()));
    for (user, client) in &mut clients {
        if *user == "cid" {
            answers(client).await;
        } else {
            assert_eq!(client.closed().await, told, "{user}");
        }
    }
    answers(&mut renewed).await;
    // Who brings it as a browser does is told the same.
    let offer = format!("bellhop.v1, bearer.{old}");
    let (query, header) = (
        format!("/ws?token={old}"),
        [("sec-websocket-protocol", &*offer)],
    );
    for (path, headers) in [(&*query, &[][..]), ("/ws", &header[..])] {
        let opened = Client::open(request(one.address, path, headers)).await;
        assert_eq!(opened.unwrap().0.closed().await, told, "{path}");
    }
    one.stop().await;
    two.stop().await;
}
