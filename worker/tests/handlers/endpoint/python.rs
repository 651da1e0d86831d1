//! A server that is not ours: Python's, without and with TLS.

use std::path::Path;
use std::process::Stdio;

use bellhop_common::wire::Progress;
use bellhop_worker::tasks::EndpointConfig;
use bellhop_worker::{Outcome, TaskContext};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{LONG, retried, start_with};
use crate::scratch::Scratch;

const PROGRAM: &str = include_str!("server.py");

/// The server, which ends with this, and its port.
async fn serve(arguments: &[&Path]) -> (Child, u16) {
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let port = timeout(LONG, lines.next_line()).await.unwrap().unwrap();
    (child, port.unwrap().parse().unwrap())
}

async fn outcome(config: EndpointConfig) -> (Outcome, Option<Progress>) {
    let context = TaskContext::detached();
    let seen = context.1.clone();
    let outcome = start_with(config, context, json!({"pages": 3}))
        .outcome()
        .await;
    let last = seen.borrow().clone();
    (outcome, last)
}

#[tokio::test]
async fn the_example_of_the_documentation_works() {
    let (_server, port) = serve(&[]).await;
    let url = format!("http://127.0.0.1:{port}/");
    let (outcome, last) = outcome(EndpointConfig::new(url)).await;
    assert_eq!(outcome, Outcome::Done(json!({"pages": 3})));
    assert_eq!(last, Some(Progress::of(3, 3, "pages")));
}

#[tokio::test]
async fn a_server_whose_ca_is_configured_is_trusted_and_no_other() {
    let dir = Scratch::new();
    let (certificate, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
        .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=bellhop",
            "-addext",
            "basicConstraints=CA:FALSE",
        ])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .await
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let (_server, port) = serve(&[&certificate, &key]).await;
    let config = || EndpointConfig::new(format!("https://127.0.0.1:{port}/"));

    let (error, _) = retried(outcome(config()).await.0);
    assert_eq!(error.code, "unreachable");
    assert!(error.message.contains("certificate"), "{error:?}");

    let trusting = EndpointConfig {
        ca_file: Some(certificate),
        ..config()
    };
    let (outcome, _) = outcome(trusting).await;
    assert_eq!(outcome, Outcome::Done(json!({"pages": 3})));
}
