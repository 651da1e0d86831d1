//! `notifier silence` and `notifier alerts`: an administrator at a shell.

use bellhop_notifier::StoreKind;
use bellhop_tests::alerts::fail;
use bellhop_tests::broker::free_port;
use bellhop_tests::stack::{PATIENCE, Running, SECRET, Stack, admin_token, minted, token};
use serde_json::Value;
use uuid::Uuid;

use super::{File, Ran, is_refused, run_at};

use crate::alerts::{alerting, wait_until_told};

/// Asks a notifier with a token in the environment.
async fn ask(stack: &Stack, notifier: &Running, token: &str, arguments: &[&str]) -> Ran {
    let base = notifier.url("/");
    let environment = [("BELLHOP_URL", &*base), ("BELLHOP_TOKEN", token)];
    let ran = run_at(stack, "notifier", arguments, &environment).await;
    assert!(!ran.out.contains(token) && !ran.err.contains(token));
    ran
}

#[tokio::test]
async fn a_silence_from_a_shell_holds_until_it_is_ended() {
    let (stack, double, notifier) = alerting().await;
    let root = admin_token("root");
    let add = [
        "silence",
        "add",
        "kind=rep*",
        "--for",
        "2h",
        "--reason",
        "upgrade",
    ];
    let added = ask(&stack, &notifier, &root, &add).await;
    assert_eq!((added.code, &*added.err), (Some(0), ""), "{}", added.err);
    let id: Uuid = added.out.trim().parse().unwrap();

    let rabbit = stack.rabbit().await;
    for kind in ["report", "import"] {
        fail(&rabbit, kind, "no disk").await;
    }
    let posts = double.wait_for_posts(1, PATIENCE).await.unwrap();
    assert!(
        posts[0].attachments[0].title.contains("import"),
        "{posts:?}"
    );
    // Both were in the queue one after the other, so the state has both.
    let shown = ask(&stack, &notifier, &root, &["alerts"]).await;
    let line = shown.out.lines().find(|line| line.contains("kind=report"));
    assert!(
        line.is_some_and(|line| line.contains("silenced until")),
        "{}",
        shown.out
    );

    // With the secret at hand there is no need for a token.
    let listen = format!("http.listen={}", notifier.address);
    let text = id.to_string();
    let end = ["silence", "end", &text, "--set", &listen];
    let ended = run_at(
        &stack,
        "notifier",
        &end,
        &[("BELLHOP_AUTH__SECRET", SECRET)],
    )
    .await;
    assert_eq!(
        (ended.code, &*ended.out),
        (Some(0), &*format!("ended {id}\n")),
        "{}",
        ended.err
    );
    wait_until_told(&double, 2).await;
    let shown = ask(&stack, &notifier, &root, &["silence", "list"]).await;
    assert_eq!((shown.code, &*shown.out), (Some(0), ""));
    let again = ask(&stack, &notifier, &root, &["silence", "end", &text]).await;
    is_refused(&again, &[&text]);
    notifier.stop().await;
}

#[tokio::test]
async fn silences_are_listed_as_a_table_or_as_json() {
    let (stack, _double, notifier) = alerting().await;
    let root = admin_token("root");
    let add = [
        "silence",
        "add",
        "kind=rep*",
        "severity=error",
        "--for",
        "2h",
        "--reason",
        "the\nupgrade",
        "--json",
    ];
    let added = ask(&stack, &notifier, &root, &add).await;
    let made: Value = serde_json::from_str(&added.out).unwrap();
    assert_eq!(made["author"], "root");

    // The token from a file, the address from the configuration.
    let file = File::with(&format!("{root}\n"));
    let listen = format!("http.listen={}", notifier.address);
    let list = [
        "silence",
        "list",
        "--token-file",
        file.path(),
        "--set",
        &listen,
    ];
    let shown = run_at(&stack, "notifier", &list, &[]).await;
    let lines: Vec<_> = shown.out.lines().collect();
    assert_eq!(lines.len(), 2, "{} {}", shown.out, shown.err);
    let id = made["id"].as_str().unwrap();
    for wants in [id, "root", "kind=rep* severity=error", "the\u{fffd}upgrade"] {
        assert!(lines[1].contains(wants), "{wants} in {}", lines[1]);
    }
    let json = [&list[..], &["--json"]].concat();
    let shown = run_at(&stack, "notifier", &json, &[]).await;
    assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap(), made);
    notifier.stop().await;
}

#[tokio::test]
async fn who_may_not_is_told_what_to_bring() {
    let (stack, _double, notifier) = alerting().await;
    let list = ["silence", "list"];
    let old = minted(
        |draft| draft.now -= jiff::SignedDuration::from_hours(1),
        "root",
    );
    for (token, wants) in [
        (token("ann"), &["BELLHOP_TOKEN", "`admin`", "not_admin"][..]),
        (old, &["BELLHOP_TOKEN", "token_expired", "--scope admin"]),
        ("x y".into(), &["BELLHOP_TOKEN", "nothing else"]),
    ] {
        is_refused(&ask(&stack, &notifier, &token, &list).await, wants);
    }
    // The secret of this configuration is not the notifier's.
    let listen = format!("http.listen={}", notifier.address);
    let set = [&list[..], &["--set", &listen]].concat();
    let ran = run_at(&stack, "notifier", &set, &[]).await;
    is_refused(
        &ran,
        &["the configuration", "invalid_token", "--token-file"],
    );
    // Nothing to sign with.
    let ran = run_at(
        &stack,
        "notifier",
        &set,
        &[("BELLHOP_AUTH__SECRET", "hunter2-short")],
    )
    .await;
    is_refused(&ran, &["BELLHOP_TOKEN", "--token-file", "auth.secret"]);
    notifier.stop().await;

    let mut bare = stack.notifier_config();
    bare.store.kind = StoreKind::None;
    let notifier = stack.notifier(bare).await;
    let root = admin_token("root");
    is_refused(&ask(&stack, &notifier, &root, &list).await, &["no_store"]);
    is_refused(&ask(&stack, &notifier, &root, &["alerts"]).await, &["no_"]);
    notifier.stop().await;
}

#[tokio::test]
async fn a_mistake_about_a_silence_is_told_with_the_way_out() {
    let (stack, double, notifier) = alerting().await;
    let root = admin_token("root");
    for (line, wants) in [
        ("silence add --for 2h --reason x", &["LABEL=PATTERN"][..]),
        (
            "silence add report --for 2h --reason x",
            &["report", "kind=report.*"],
        ),
        ("silence add kind=a --reason x", &["--for"]),
        ("silence add kind=a --for soon --reason x", &["soon", "30s"]),
        ("silence add kind=a --for 91d --reason x", &["90 days"]),
        ("silence add kind=a --for 2h", &["--reason"]),
        (
            "silence add kind=a kind=b --for 2h --reason x",
            &["\"kind\"", "twice", "two silences"],
        ),
        ("silence end first", &["first", "`notifier silence list`"]),
        (
            "silence list --url ftp://h",
            &["--url", "https://live.example.org"],
        ),
        (
            "silence list --url http://hunter2:x@h",
            &["--url", "without a user"],
        ),
        (
            "silence list --token-file /does/not/exist",
            &["/does/not/exist"],
        ),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        is_refused(&ask(&stack, &notifier, &root, &words).await, wants);
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let ran = ask(&stack, &notifier, &root, &["alerts", "--url", &nobody]).await;
    is_refused(&ran, &[&nobody, "BELLHOP_URL"]);
    let other = double.hook_url();
    let ran = ask(&stack, &notifier, &root, &["alerts", "--url", &other]).await;
    is_refused(&ran, &["not as a notifier does", "--url"]);
    notifier.stop().await;
}
