//! `notifier vapid`, and what is said of a key that is none.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;

use bellhop_notifier::push::VapidKey;
use bellhop_tests::broker::free_port;
use bellhop_tests::push::{PushService, SECRET_WORD, config};
use bellhop_tests::stack::{Folder, Stack, http, token};
use serde_json::json;

use super::secrets::{Logged, has_no_secret, until_ready};
use super::{is_refused, run};

#[tokio::test]
async fn a_key_is_made_for_its_owner_alone_and_never_over_another() {
    let folder = Folder::new();
    let path = folder.0.join("key.pem");
    let make = ["vapid", "--out", path.to_str().unwrap()];
    let ran = run("notifier", &make, &[]).await;
    assert_eq!((ran.code, &*ran.err), (Some(0), ""));
    let key = VapidKey::read(&path).unwrap();
    assert_eq!(ran.out.trim(), key.public());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    is_refused(&run("notifier", &make, &[]).await, &["key.pem", "--out"]);
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let set = format!("push.key_file={}", path.display());
    let check = ["run", "--check-config", "--set", &set];
    is_refused(
        &run("notifier", &check, &[]).await,
        &["push.subject", "mailto:"],
    );
    let with = [
        &check[..],
        &["--set", "push.subject=mailto:ops@example.org"],
    ]
    .concat();
    let ran = run("notifier", &with, &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(
        ran.out.contains("[push]") && !ran.out.contains("PRIVATE"),
        "{}",
        ran.out
    );
    std::fs::write(&path, "hunter2").unwrap();
    is_refused(
        &run("notifier", &with, &[]).await,
        &["key.pem", "notifier vapid"],
    );
    std::fs::remove_file(&path).unwrap();
    is_refused(
        &run("notifier", &with, &[]).await,
        &["push.key_file", "key.pem"],
    );
}

#[tokio::test]
async fn no_secret_of_web_push_is_logged_or_told() {
    let (stack, service) = (Stack::shared(), PushService::start().await);
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let key_file = config(&stack.folder.0).key_file.unwrap();
    let settings = [
        format!("http.listen={address}"),
        format!("push.key_file={}", key_file.display()),
        "push.subject=mailto:ops@example.org".to_owned(),
        "push.allow_private=true".to_owned(),
    ];
    let mut notifier = Logged::start("notifier", &stack, "trace", &settings);
    notifier.until("notifier started").await;
    until_ready(address).await;
    let url = format!("http://{address}/api/push/subscriptions");
    let good = service.subscribe("key").to_json();
    let mut bad = good.clone();
    bad["keys"]["auth"] = json!("hunter2-auth");
    let mut malformed = good.clone();
    malformed["keys"]["auth"] = json!([SECRET_WORD]);
    for (body, wants) in [(&good, 201), (&good, 200), (&bad, 400), (&malformed, 400)] {
        let request = http().post(&url).bearer_auth(token("ann"));
        let answer = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(answer.status(), wants);
        has_no_secret(&answer.text().await.unwrap());
    }
    let listed = http().get(&url).bearer_auth(token("ann")).send().await;
    has_no_secret(&listed.unwrap().text().await.unwrap());
    let log = notifier.ended().await;
    assert!(log.contains("TRACE"));
    has_no_secret(&log);
    let auth = good["keys"]["auth"].as_str().unwrap();
    let private = std::fs::read_to_string(&key_file).unwrap();
    let private = private.lines().nth(1).unwrap();
    assert!(!log.contains(auth) && !log.contains(private));
}
