//! Mistakes in the configuration and on the command line, and what each message must say.

use super::secrets::AMQP_PASSWORD;
use super::{File, is_refused, run};

#[tokio::test]
async fn an_unknown_key_is_named_with_its_place_and_the_nearest() {
    for name in ["worker", "notifier"] {
        let file = File::with("[log]\nlevel = \"info\"\n\n[amqp]\nprefx = \"x.\"\n");
        let section = File::with("[shutdwn]\ndeadline = \"1s\"\n");
        let line_5 = format!("{} line 5", file.path());
        let line_1 = format!("{} line 1", section.path());
        for (arguments, variable, wants) in [
            (
                ["--config", file.path()],
                None,
                [&*line_5, "prefx", "`prefix`"],
            ),
            (
                ["--config", section.path()],
                None,
                [&*line_1, "shutdwn", "`shutdown`"],
            ),
            (
                ["--set", "amqp.prefx=x."],
                None,
                ["--set amqp.prefx", "prefx", "`prefix`"],
            ),
            (
                ["--set", "amqp.prefix=x."],
                Some(("BELLHOP_AMPQ__URL", AMQP_PASSWORD)),
                ["BELLHOP_AMPQ__URL", "ampq", "`amqp`"],
            ),
        ] {
            let all = [&["run"][..], &arguments].concat();
            let ran = run(name, &all, variable.as_slice()).await;
            is_refused(&ran, &wants);
            assert!(ran.err.lines().count() <= 2, "{}", ran.err);
        }
    }
}

#[tokio::test]
async fn everything_that_does_not_fit_together_is_listed() {
    let arguments = ["run", "--set", "websocket.pong_wait=5s"];
    let more = ["--set", "amqp.prefix=x", "--set", "auth.secret_file=/x"];
    let ran = run("notifier", &[&arguments[..], &more].concat(), &[]).await;
    let wants = ["websocket.pong_wait", "amqp.prefix", "auth.secret_file"];
    is_refused(&ran, &wants);
    assert_eq!(ran.err.matches("\n  - ").count(), 3, "{}", ran.err);
}

/// Mistakes: the command, what is set besides, and what the message must say.
type Mistake = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static [&'static str],
);

const MISTAKES: &[Mistake] = &[
    (
        "worker run --config /does/not/exist.toml",
        &[],
        &["/does/not/exist.toml", "No such file"],
    ),
    (
        "worker run --set amqp.heartbeat=soon",
        &[],
        &["--set amqp.heartbeat", "30s"],
    ),
    (
        "worker run --set nonsense",
        &[],
        &["--set nonsense", "section.key=value"],
    ),
    (
        "worker run --set files.root=/does/not/exist",
        &[],
        &["files.root = /does/not/exist", "No such file"],
    ),
    (
        "worker run --check-config --set exec.k.command=[\"true\"] --set exec.k.limits.open_files=99999999999",
        &[],
        &["exec.\"k\".limits.open_files", "hard limit"],
    ),
    (
        "worker run --check-config --set endpoint.k.url=ftp://bellhop:hunter2-amqp@h/",
        &[],
        &["endpoint.\"k\".url", "http://"],
    ),
    (
        "worker run --check-config --set endpoint.k=https://bellhop:hunter2-amqp@h/",
        &[],
        &["--set endpoint.k"],
    ),
    (
        "worker run --check-config --set endpoint.k.url=https://h/ --set endpoint.k.ca_file=/does/not/exist.pem",
        &[],
        &["endpoint.\"k\".ca_file", "/does/not/exist.pem"],
    ),
    (
        "worker run --set log.level=bellhop=loud",
        &[],
        &["log.level", "loud"],
    ),
    (
        "notifier run",
        &[("BELLHOP_AMQP__URL", "http://bellhop:hunter2-amqp@h/")],
        &["amqp.url", "amqp://user:password@host"],
    ),
    (
        "notifier run --set auth.mode=none --set http.listen=0.0.0.0:0",
        &[],
        &["auth.mode", "loopback", "0.0.0.0:0"],
    ),
    (
        "notifier run",
        &[("BELLHOP_AUTH__SECRET", "hunter2-short")],
        &["auth.secret", "13 bytes", "openssl rand -hex 32"],
    ),
    (
        "notifier token --user ann",
        &[("BELLHOP_AUTH__SECRET", "hunter2-short")],
        &["auth.secret", "13 bytes"],
    ),
    (
        "notifier token --user ann --ttl soon",
        &[],
        &["--ttl", "soon", "30s"],
    ),
    (
        "notifier run",
        &[("BELLHOP_MATTERMOST__WEBHOOK_URL", "ftp://h/hunter2hook")],
        &["mattermost.webhook_url", "https://"],
    ),
    (
        "notifier run",
        &[(
            "BELLHOP_ALERTS__RECEIVERS__OPS__WEBHOOK_URL",
            "ftp://h/hunter2hook",
        )],
        &["alerts.receivers.ops.webhook_url", "https://"],
    ),
    (
        "notifier run --set alerts.receivers.ops.webhook_url=https://h/hooks/hunter2hook --set \
         alerts.routes=[{name=\"a\",match=[\"stored.#\"],receiver=\"opps\"}]",
        &[],
        &["alerts.routes \"a\"", "\"opps\"", "ops"],
    ),
    (
        "worker enqueue count --user ann --args {oops}",
        &[],
        &["--args", "{oops}", "line 1 column 2"],
    ),
    ("worker enqueue count", &[], &["--user"]),
];

#[tokio::test]
async fn a_mistake_is_told_with_the_thing_the_place_and_the_way_out() {
    for (line, environment, wants) in MISTAKES {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let ran = run(name, &words.collect::<Vec<_>>(), environment).await;
        is_refused(&ran, wants);
    }
}

#[tokio::test]
async fn a_duration_without_its_unit_is_told_what_to_write() {
    let environment = [("BELLHOP_AMQP__HEARTBEAT", "30")];
    let ran = run("worker", &["run"], &environment).await;
    is_refused(&ran, &["BELLHOP_AMQP__HEARTBEAT", "duration", "30s"]);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = listener.local_addr().unwrap();
    for name in ["worker", "notifier"] {
        let set = format!("http.listen={taken}");
        let ran = run(name, &["run", "--set", &set], &[]).await;
        let wants = format!("http.listen = {taken}");
        is_refused(&ran, &[&wants, "in use"]);
    }
}
