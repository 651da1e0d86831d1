//! A token in an address is a secret that stands where secrets are logged: not here.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bellhop_common::config::Secret;
use bellhop_notifier::AuthConfig;
use bellhop_notifier::auth::{Draft, mint};
use bellhop_tests::broker::free_port;
use bellhop_tests::client::{Client, request};
use bellhop_tests::program::command;
use bellhop_tests::stack::{PATIENCE, SECRET, Stack, http, minted};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use super::secrets::until_ready;

/// Each letter and digit as `%xx`, which says the same.
fn encoded(token: &str) -> String {
    let letters = token.bytes().map(|byte| format!("%{byte:02x}"));
    letters.collect::<Vec<_>>().concat()
}

/// Only the first letter, so that the rest stands there as it is.
fn half_encoded(token: &str) -> String {
    let (first, rest) = token.split_at(1);
    encoded(first) + rest
}

/// Good ones, and every kind of bad one.
fn tokens() -> Vec<String> {
    let auth = AuthConfig {
        secret: Some(Secret::new(SECRET)),
        ..AuthConfig::default()
    };
    let stranger = AuthConfig {
        secret: Some(Secret::new("z".repeat(32))),
        ..auth.clone()
    };
    let (now, hour) = (Timestamp::now(), Duration::from_hours(1));
    let draft = |now| Draft::new("query-user", now, Duration::from_mins(10));
    let good = minted(|draft| draft.token_id = Some("query-id"), "query-user");
    let (head, tail) = good.rsplit_once('.').unwrap();
    vec![
        good.clone(),
        mint(&auth, &draft(now - hour)).unwrap(),
        mint(&stranger, &draft(now)).unwrap(),
        format!("{head}.{}", tail.to_uppercase()),
        format!("{head}."),
        head.to_owned(),
        tail.to_owned(),
        format!("{good}.{tail}"),
        format!("hunter2-{tail}"),
    ]
}

/// What must be nowhere: each part of a token that is long enough to be found by.
fn parts(tokens: &[String]) -> Vec<String> {
    let parts = tokens.iter().flat_map(|token| token.split('.'));
    let parts = parts.filter(|part| part.len() >= 20);
    let mut all: Vec<_> = parts
        // The middle: every `HS256` token begins alike, and the ends may be encoded.
        .map(|part| part.get(4..).unwrap().to_owned())
        .collect();
    let beginnings = tokens.iter().map(|token| encoded(token));
    all.extend(beginnings.map(|text| text.get(..30).unwrap().to_owned()));
    all.push("hunter2".into());
    all
}

#[tokio::test]
async fn a_token_in_an_address_is_in_no_log_metric_or_error() {
    let stack = Stack::shared();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let tokens = tokens();
    let secrets = parts(&tokens);
    let mut told = String::new();
    let setting = format!("http.listen={address}");
    for more in ["auth.query_token=true", "auth.query_token=false"] {
        let file = std::env::temp_dir().join(format!("bellhop-log-{}", Uuid::now_v7()));
        // A file, because so much is logged that a pipe would be full.
        let log = std::fs::File::create(&file).unwrap();
        let mut notifier = command("notifier", &stack)
            .args(["run", "--set", &setting, "--set", more])
            .env("BELLHOP_LOG__LEVEL", "trace")
            .stderr(log)
            .spawn()
            .unwrap();
        listening(address).await;
        until_ready(address).await;
        for token in &tokens {
            told += &bring(address, token).await;
        }
        for page in ["metrics", "readyz"] {
            let url = format!("http://{address}/{page}");
            let answer = http().get(url).send().await.unwrap();
            told += &answer.text().await.unwrap();
        }
        let pid = i32::try_from(notifier.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let ended = timeout(PATIENCE, notifier.wait()).await.unwrap().unwrap();
        assert!(ended.success());
        let log = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(log.contains("TRACE") && log.contains("notifier stopped"));
        told += &log;
    }
    for line in told.lines() {
        for secret in &secrets {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
}

/// Brings a token in every place of an address; answers with all that was said to it.
async fn bring(address: SocketAddr, token: &str) -> String {
    let mut told = String::new();
    for form in [token.to_owned(), encoded(token), half_encoded(token)] {
        for path in [
            format!("/ws?token={form}"),
            format!("/ws?token={form}&token={form}"),
            format!("/ws?token={form}%"),
            format!("/ws?token={form}%ff"),
            format!("/ws?Token={form}"),
            format!("/ws?{form}"),
        ] {
            told += &by_socket(address, &path).await;
        }
        for path in [
            format!("/ws?token={form}"),
            format!("/nowhere?token={form}"),
            format!("/api/dead?token={form}"),
            format!("/api/tasks?token={form}"),
        ] {
            let url = format!("http://{address}{path}");
            let answer = http().get(url).send().await.unwrap();
            writeln!(told, "{:?}", answer.headers()).unwrap();
            told += &answer.text().await.unwrap();
        }
    }
    told
}

async fn listening(address: SocketAddr) {
    let trying = async {
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, trying).await.expect("it listens");
}

/// What a client sees that connects so.
async fn by_socket(address: SocketAddr, path: &str) -> String {
    match Client::open(request(address, path, &[])).await {
        Ok((mut client, answer)) => {
            // A good one is in; what is no token at all may still log in, and does not.
            drop(client.socket().close(None).await);
            format!("{answer:?}\n{:?}\n", client.closed().await)
        }
        Err(error) => {
            let Error::Http(answer) = &error else {
                panic!("{error}");
            };
            let body = answer.body().as_deref().unwrap_or_default();
            let body = String::from_utf8_lossy(body);
            format!("{:?}\n{body}\n", answer.headers())
        }
    }
}
