//! What goes in and what comes out.

use std::collections::BTreeMap;
use std::path::Path;

use bellhop_common::config::Secret;
use bellhop_common::wire::Progress;
use bellhop_worker::tasks::{Exec, ExecConfig};
use bellhop_worker::{Handler, Outcome, Registry, TaskContext};
use serde_json::{Value, json};

use super::{python, result, sh, start};
use crate::scratch::Scratch;

#[tokio::test]
async fn the_arguments_are_one_line_on_stdin_and_nothing_else() {
    let args = json!({"text": "a\nb \"é\"", "list": [1, null]});
    let echo = python("import sys, json; print(json.dumps(sys.stdin.read()))");
    let input = result(echo, args.clone()).await;
    let line = input.as_str().unwrap().strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'));
    assert_eq!(serde_json::from_str::<Value>(line).unwrap(), args);
    // The end of a line is there for `read`.
    assert_eq!(
        result(sh(r#"read -r line && echo "$line""#), json!([1])).await,
        json!([1])
    );
}

#[tokio::test]
async fn the_program_runs_without_a_shell() {
    let config = ExecConfig::new(["printf", "%s|", "$HOME", "a b", "*", "; echo x"]);
    assert_eq!(
        result(config, json!({})).await,
        json!("$HOME|a b|*|; echo x|")
    );
}

#[tokio::test]
async fn the_environment_is_what_is_documented() {
    let config = ExecConfig {
        env: vec!["CARGO_PKG_NAME".into(), "NOT_SET_ANYWHERE".into()],
        set_env: [
            ("TOKEN".to_owned(), Secret::new("hunter2")),
            ("LANG".to_owned(), Secret::new("xx")),
        ]
        .into(),
        ..ExecConfig::new(["env", "-0"])
    };
    let (mut ctx, _seen) = TaskContext::detached();
    ctx.task_id = "t-1".into();
    ctx.user_id = "ann; rm".into();
    ctx.attempt = 3;
    ctx.traceparent = Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into());
    let exec = Exec::new("images.resize", config).unwrap();
    let Outcome::Done(Value::String(text)) = exec.run(ctx, json!({})).await else {
        panic!()
    };
    let mut seen: BTreeMap<_, _> = text
        .split_terminator('\0')
        .map(|entry| entry.split_once('=').unwrap())
        .collect();
    for (name, wants) in [
        ("BELLHOP_TASK_ID", "t-1"),
        ("BELLHOP_USER_ID", "ann; rm"),
        ("BELLHOP_ATTEMPT", "3"),
        ("BELLHOP_KIND", "images.resize"),
        (
            "TRACEPARENT",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
        ("CARGO_PKG_NAME", "bellhop-worker"),
        ("TOKEN", "hunter2"),
        ("LANG", "xx"),
        ("PATH", &std::env::var("PATH").unwrap()),
    ] {
        assert_eq!(seen.remove(name), Some(wants), "{name}");
    }
    for name in ["HOME", "TZ"] {
        assert_eq!(
            seen.remove(name).map(Into::into),
            std::env::var_os(name),
            "{name}"
        );
    }
    assert!(
        std::env::var_os("CARGO_MANIFEST_DIR").is_some(),
        "there is something to inherit"
    );
    assert!(seen.is_empty(), "{seen:?}");
}

#[tokio::test]
async fn the_program_runs_in_its_folder() {
    let dir = Scratch::new();
    let config = ExecConfig {
        cwd: Some(dir.path().to_path_buf()),
        ..sh("pwd -P")
    };
    assert_eq!(result(config, json!({})).await, json!(dir.path()));
    let here = std::env::current_dir().unwrap().canonicalize().unwrap();
    assert_eq!(result(sh("pwd -P"), json!({})).await, json!(here));
}

#[tokio::test]
async fn the_last_line_is_the_result() {
    for (script, wants) in [
        ("true", json!(null)),
        ("echo", json!(null)),
        (r#"echo one; echo '{"n": 2}'"#, json!({"n": 2})),
        (r#"printf '{"n": 2}'"#, json!({"n": 2})),
        (
            r#"echo '{"n":2}'; echo '{"progress":{"percent":99}}'"#,
            json!({"n": 2}),
        ),
        (r"echo not json", json!("not json")),
        (r"printf 'a\377b\376'", json!("a\u{fffd}b\u{fffd}")),
        (r"printf 'a\0b'", json!("a\0b")),
        ("echo 5; exec >&-; true", json!(5)),
    ] {
        assert_eq!(result(sh(script), json!({})).await, wants, "{script}");
    }
}

#[tokio::test]
async fn progress_is_seen_while_the_program_runs() {
    // It goes on only when the first progress was seen.
    let dir = Scratch::new();
    let gate = dir.path().join("gate");
    let config = ExecConfig {
        cwd: Some(dir.path().to_path_buf()),
        ..sh(r#"mkfifo gate
            echo '{"progress":{"done":1,"total":4,"unit":"pages","message":"one"}}'
            cat gate
            echo '{"progress":{"percent":250}}'"#)
    };
    let mut running = start(config, json!({}));
    let first = running
        .seen
        .wait_for(Option::is_some)
        .await
        .unwrap()
        .clone();
    assert_eq!(first, Some(Progress::of(1, 4, "pages").with_message("one")));
    tokio::task::spawn_blocking(move || std::fs::write(gate, "go\n"))
        .await
        .unwrap()
        .unwrap();
    let seen = running.seen.clone();
    assert_eq!(running.outcome().await, Outcome::Done(json!("go")));
    assert_eq!(seen.borrow().as_ref().unwrap().percent, Some(100.0));
}

#[tokio::test]
async fn ten_thousand_progress_lines_end_with_the_last() {
    let script = r#"
import json
for n in range(1, 10_001):
    print(json.dumps({"progress": {"done": n, "total": 10_000, "unit": "lines"}}))
print('{"progress": {"done": "many"}}')
print('"done"')
"#;
    let running = start(python(script), json!({}));
    let seen = running.seen.clone();
    assert_eq!(running.outcome().await, Outcome::Done(json!("done")));
    assert_eq!(*seen.borrow(), Some(Progress::of(10_000, 10_000, "lines")));
}

#[tokio::test]
async fn a_registry_runs_each_kind_with_its_program() {
    let exec = |kind: &str| Exec::new(kind, sh("echo \"$BELLHOP_KIND\"")).unwrap();
    let registry = Registry::new()
        .with_handler("a", exec("a"))
        .with_handler("b", exec("b"));
    for kind in ["a", "b"] {
        let handler = registry.get(kind).unwrap();
        let outcome = handler.run(TaskContext::detached().0, json!({})).await;
        assert_eq!(outcome, Outcome::Done(json!(kind)));
    }
}

/// The program in the documentation.
#[tokio::test]
async fn the_documented_program_works() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tasks/exec/mod.rs");
    let text = std::fs::read_to_string(source).unwrap();
    let lines = text
        .lines()
        .skip_while(|line| *line != "//! ```python")
        .skip(1);
    let script: Vec<_> = lines
        .take_while(|line| *line != "//! ```")
        .map(|line| {
            line.trim_start_matches("//!")
                .strip_prefix(' ')
                .unwrap_or_default()
        })
        .collect();
    assert!(script.len() > 3);
    let running = start(python(&script.join("\n")), json!({"pages": 3}));
    let seen = running.seen.clone();
    assert_eq!(running.outcome().await, Outcome::Done(json!({"pages": 3})));
    assert_eq!(*seen.borrow(), Some(Progress::of(2, 3, "pages")));
}

#[tokio::test]
async fn log_lines_reach_the_owner_and_progress_its_step() {
    let script = sh(r#"
        echo '{"log": "1 row skipped"}'
        echo '{"progress": {"step": {"name": "pack", "index": 2, "count": 4, "done": 1, "total": 2}}}'
        echo '{"rows": 9}'"#);
    let (ctx, seen) = TaskContext::detached();
    let exec = Exec::new("test.kind", script).unwrap();
    let outcome = exec.run(ctx.clone(), json!({})).await;
    assert_eq!(outcome, Outcome::Done(json!({"rows": 9})));
    assert_eq!(ctx.waiting_log_lines(), ["1 row skipped"]);
    let progress = seen.borrow().clone().unwrap();
    let step = progress.step.unwrap();
    assert_eq!((step.name.as_str(), step.progress.done), ("pack", Some(1)));
}
