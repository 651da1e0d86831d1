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
        "notifier run --set http.listen=127.0.0.1:0",
        &[("BELLHOP_AMQP__URL", "http://bellhop:hunter2-amqp@h/")],
        &["amqp.url", "amqp://user:password@host"],
    ),
    (
        "notifier run --set auth.mode=none --set http.listen=0.0.0.0:0",
        &[],
        &["auth.mode", "loopback", "0.0.0.0:0"],
    ),
    (
        "notifier run --set http.listen=127.0.0.1:0",
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
        "notifier run --set http.listen=127.0.0.1:0",
        &[("BELLHOP_MATTERMOST__WEBHOOK_URL", "ftp://h/hunter2hook")],
        &["mattermost.webhook_url", "https://"],
    ),
    (
        "notifier run --set http.listen=127.0.0.1:0",
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
    (
        "worker enqueue count --user ann --run-at tomorrow",
        &[],
        &["--run-at", "\"tomorrow\"", "2026-12-24T18:00:00Z"],
    ),
    (
        "worker run --set queues.default=4",
        &[],
        &["--set queues.default", "expected a table"],
    ),
    (
        "worker run --set http.listen=localhost:8080",
        &[],
        &[
            "--set http.listen",
            "an IP address and a port, such as 127.0.0.1:8080",
        ],
    ),
    (
        "notifier run --set http.trusted_proxies=10.0.0.0/8",
        &[],
        &["--set http.trusted_proxies", "expected a list, such as ["],
    ),
    (
        "worker run --set auth.issuer=x",
        &[],
        &["--set auth.issuer", "`auth`: this is the notifier's"],
    ),
    (
        "notifier run --set jobs.timeout=5m",
        &[],
        &["--set jobs.timeout", "`jobs`: this is the worker's"],
    ),
    (
        "notifier store check --set store.path=/does/not/exist.db",
        &[],
        &["there is no file /does/not/exist.db", "store.path"],
    ),
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
async fn a_variable_that_may_be_of_somebody_else_is_passed_over() {
    let environment = [("BELLHOP_INSTANCE", "one"), ("BELLHOP_STORE", "x")];
    let ran = run("worker", &["run", "--check-config"], &environment).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[tokio::test]
async fn a_number_is_no_duration_in_a_file_either() {
    let file = File::with("[jobs]\ntimeout = 300\n");
    let ran = run("worker", &["run", "--config", file.path()], &[]).await;
    is_refused(&ran, &["line 2", "a duration with its unit, such as `30s`"]);
}

#[tokio::test]
async fn what_cannot_reach_the_broker_says_which_and_why() {
    let soon = ["--set", "amqp.publish_timeout=200ms"];
    for line in [
        "worker enqueue count --user ann",
        "worker cancel t",
        "worker dead list",
        "worker status",
        "notifier revoke --user ann",
    ] {
        let mut words = line.split(' ');
        let name = words.next().unwrap();
        let all: Vec<_> = words.chain(soon).collect();
        let ran = run(name, &all, &[]).await;
        is_refused(&ran, &[]);
        let last = ran.err.lines().last().unwrap();
        let wants = "cannot reach RabbitMQ at amqp://bellhop:***@127.0.0.1:";
        assert!(last.contains(wants), "{line}: {last}");
        for text in ran.err.lines() {
            assert!(text.matches("os error").count() <= 1, "{text}");
        }
    }
}

#[tokio::test]
async fn no_periodic_jobs_are_said_to_be_none() {
    let ran = run("worker", &["cron"], &[]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.out.contains("[cron."), "{}", ran.out);
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
