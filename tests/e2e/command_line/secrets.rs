//! What must not stand in any output, whatever is logged.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bellhop_tests::backend::{Answer, Backend, NO, YES};
use bellhop_tests::broker::{free_port, shared_url};
use bellhop_tests::client::{Client, request};
use bellhop_tests::mattermost::{HOOK_ID, Mattermost};
use bellhop_tests::program::command;
use bellhop_tests::stack::{PATIENCE, SECRET, Stack, admin_token, http, token};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr};
use tokio::time::{sleep, timeout};

pub(super) const AMQP_PASSWORD: &str = "hunter2-amqp";
pub(super) const HOOK: &str = "hunter2hook";
pub(super) const SIGNING_KEY: &str = "hunter2-signing-key-0123456789abcdef";

/// All of the test's own secrets have this in them.
pub(super) fn has_no_secret(text: &str) {
    for line in text.lines() {
        assert!(!line.contains("hunter2"), "{line}");
    }
}

/// A program that runs with everything logged, and its log.
pub(super) struct Logged {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    log: String,
}

impl Logged {
    pub(super) fn start(name: &str, stack: &Stack, level: &str, settings: &[String]) -> Self {
        let mut command = command(name, stack);
        command
            .args(["run", "--set", "http.listen=127.0.0.1:0"])
            .env("BELLHOP_LOG__LEVEL", level)
            .stderr(Stdio::piped());
        for setting in settings {
            command.args(["--set", setting]);
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = String::new();
        Self { child, lines, log }
    }

    /// Reads the log up to a line with a text.
    pub(super) async fn until(&mut self, wants: &str) {
        let reading = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                self.log.push_str(&line);
                self.log.push('\n');
                if line.contains(wants) {
                    return;
                }
            }
            panic!("it ended: {}", self.log);
        };
        let read = timeout(PATIENCE, reading).await;
        assert!(read.is_ok(), "{wants} in {}", self.log);
    }

    /// Asks it to end; answers with the whole log.
    pub(super) async fn ended(mut self) -> String {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let mut rest = String::new();
        let mut reader = self.lines.into_inner();
        let reading = reader.read_to_string(&mut rest);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        let status = timeout(PATIENCE, self.child.wait()).await.unwrap();
        assert!(status.unwrap().success());
        self.log + &rest
    }
}

#[tokio::test]
async fn a_password_that_the_broker_refuses_is_not_logged() {
    let wrong = format!("bellhop:{AMQP_PASSWORD}@");
    let stack = Stack::on(shared_url().replace("guest:guest@", &wrong));
    for name in ["worker", "notifier"] {
        for level in ["debug", "trace"] {
            let mut program = Logged::start(name, &stack, level, &[]);
            program.until("ACCESS_REFUSED").await;
            has_no_secret(&program.ended().await);
        }
    }
}

pub(super) async fn until_ready(address: SocketAddr) {
    let ready = format!("http://{address}/readyz");
    while http().get(&ready).send().await.unwrap().status() != 200 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Answers one request with all that stood in it.
async fn refuse_one(listener: TcpListener) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = vec![0; 16 * 1024];
    let count = stream.read(&mut request).await.unwrap();
    let said = String::from_utf8_lossy(&request[..count]);
    let said = said.split("authorization").next().unwrap();
    let answer = format!("HTTP/1.1 403 X\r\nconnection: close\r\n\r\n{said}");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // What of the request was still under way would otherwise reset the connection.
    stream.read_to_end(&mut request).await.unwrap();
}

#[tokio::test]
async fn no_secret_of_an_endpoint_is_logged_or_told() {
    let stack = Stack::shared();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let settings = [
        format!("http.listen={address}"),
        format!("endpoint.k.url=http://ann:hunter2-login@{host}/hunter2-path?key=hunter2-query"),
        "endpoint.k.headers.x-key=hunter2-header".to_owned(),
    ];
    let mut worker = Logged::start("worker", &stack, "trace", &settings);
    worker.until("worker started").await;
    until_ready(address).await;
    let refusing = tokio::spawn(refuse_one(listener));
    stack.enqueue("k", json!({}), "ann").await;
    let dead = stack.rabbit().await.take("dead").await;
    refusing.await.unwrap();
    let log = worker.ended().await;
    assert!(log.contains("TRACE"));
    has_no_secret(&log);
    let told = format!(
        "{:?}\n{}",
        dead.headers,
        String::from_utf8_lossy(&dead.body)
    );
    assert!(told.contains("http_403"), "{told}");
    has_no_secret(&told);
}

#[tokio::test]
async fn no_secret_of_the_backend_that_knows_the_members_is_logged_or_told() {
    let stack = Stack::shared();
    let backend = Backend::start(YES).await;
    let (host, address) = (
        backend.address(),
        SocketAddr::from(([127, 0, 0, 1], free_port())),
    );
    let settings = [
        format!("http.listen={address}"),
        "rooms.access=callback".to_owned(),
        format!("rooms.callback_url=http://{host}/hunter2-path?key=hunter2-query"),
        "rooms.callback_secret=hunter2-secret".to_owned(),
        "rooms.callback_timeout=1s".to_owned(),
    ];
    let mut notifier = Logged::start("notifier", &stack, "trace", &settings);
    notifier.until("notifier started").await;
    let mut ann = Client::connect(address, &token("ann")).await;
    ann.next_of("connected").await;
    let mut enter = async |room: &str, wants: &str| {
        let join = json!({"type": "join_room", "room_id": room});
        ann.send(&join.to_string()).await;
        let told = ann.next_text().await;
        assert!(told.contains(wants), "{told}");
        has_no_secret(&told);
    };
    for (room, answer, wants) in [
        ("1", YES, "subscribed"),
        ("2", NO, "forbidden"),
        ("3", Answer::Says(500, "hunter2-body"), "unavailable"),
        ("4", Answer::Says(200, "hunter2-body"), "unavailable"),
        ("5", Answer::Hangs, "unavailable"),
    ] {
        backend.answers(answer);
        enter(room, wants).await;
    }
    let asked = backend.questions();
    let secret = Some("Bearer hunter2-secret".to_owned());
    assert!(
        asked
            .iter()
            .all(|question| question.authorization == secret)
    );
    // Nobody listens there any more.
    drop(backend);
    enter("6", "unavailable").await;
    let log = notifier.ended().await;
    assert!(log.contains("TRACE") && log.contains("callback_url gave no answer"));
    has_no_secret(&log);
}

/// Connects in every way and sends the token to places where it does not belong.
async fn drive_sockets(address: SocketAddr, ann: &str) {
    let mut by_header = Client::connect(address, ann).await;
    by_header.next_of("connected").await;
    let offer = format!("bellhop.v1, bearer.{ann}");
    let offer = [("sec-websocket-protocol", &*offer)];
    let query = format!("/ws?token={ann}");
    let twice = format!("/ws?token={ann}&token={ann}");
    let bad = format!("/ws?token={ann}x");
    for (path, headers) in [
        ("/ws", &offer[..]),
        (&query, &[]),
        (&bad, &[]),
        (&twice, &[]),
    ] {
        let opened = Client::open(request(address, path, headers)).await;
        assert_eq!(opened.is_ok(), path != twice);
    }
    let mut by_frame = Client::open(request(address, "/ws", &[])).await.unwrap().0;
    let auth = json!({"type": "auth", "token": ann}).to_string();
    by_frame.send(&auth).await;
    by_frame.next_of("connected").await;
    for wrong in [
        json!({"type": "auth", "token": [ann]}),
        json!({"type": "auth", "token": format!("{ann}x")}),
        json!({"type": ann}),
        json!([ann]),
    ] {
        by_frame.send(&wrong.to_string()).await;
        by_frame.next_of("error").await;
    }
}

async fn drive_jobs(stack: &Stack, address: SocketAddr, ann: &str) {
    for body in ["{\"kind\":\"count\"}", "{oops"] {
        let order = http().post(format!("http://{address}/api/tasks"));
        order.bearer_auth(ann).body(body).send().await.unwrap();
    }
    let failed = json!({"task_id": "t", "kind": "count", "user_id": "ann", "status": "failed",
        "attempt": 1, "max_attempts": 1, "rev": 1, "timestamp": "2026-01-15T10:30:00Z",
        "error": {"code": "broken", "message": "no disk"}});
    let body = json!({"type": "task.status_changed", "data": failed,
        "id": "0197f0a0-0000-7000-8000-000000000001", "time": "2026-01-15T10:30:00Z"});
    let rabbit = stack.rabbit().await;
    let key = "stored.user.ann.task.status_changed.failed";
    rabbit.publish("events", key, body.to_string()).await;
}

async fn told_by(address: SocketAddr, path: &str) -> String {
    let request = http().get(format!("http://{address}{path}"));
    let answer = request.bearer_auth(admin_token("root")).send().await;
    answer.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn no_secret_is_logged_whatever_happens() {
    let stack = Stack::shared();
    let double = Mattermost::start().await.unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let routes = ["mattermost", "slack", "refused", "gone"].map(|name| {
        format!(r#"{{name="{name}",receiver="{name}",match=["stored.user.#"],continue=true}}"#)
    });
    let settings = [
        format!("http.listen={address}"),
        format!("mattermost.webhook_url={}", double.hook_url()),
        // One that is posted to by two receivers, and refused by a third and a fourth.
        "alerts.receivers.slack.kind=slack".to_owned(),
        format!("alerts.receivers.slack.webhook_url={}", double.hook_url()),
        "alerts.receivers.refused.channel=no-such-channel".to_owned(),
        format!("alerts.receivers.refused.webhook_url={}", double.hook_url()),
        "alerts.receivers.gone.kind=slack".to_owned(),
        format!("alerts.receivers.gone.webhook_url=http://127.0.0.1:1/services/T/{HOOK_ID}"),
        format!("alerts.routes=[{}]", routes.join(",")),
        "alerts.group_wait=10ms".to_owned(),
        "tasks.open.count.queue=default".to_owned(),
    ];
    let mut notifier = Logged::start("notifier", &stack, "trace", &settings);
    notifier.until("notifier started").await;
    until_ready(address).await;
    let ann = token("ann");
    drive_sockets(address, &ann).await;
    drive_jobs(&stack, address, &ann).await;
    double.wait_for_posts(2, PATIENCE).await.unwrap();
    let dead = stack.rabbit().await.take("dead").await;
    let told = [
        format!("{:?}{}", dead.headers, String::from_utf8_lossy(&dead.body)),
        told_by(address, "/metrics").await,
        told_by(address, "/readyz").await,
        told_by(address, "/api/alerts").await,
    ];
    assert!(told[3].contains("\"gone\""), "{}", told[3]);
    let log = notifier.ended().await + &told.join("\n");
    assert!(log.contains("notifier stopped") && log.contains("TRACE"));
    for secret in [&*ann, SECRET, HOOK_ID, "guest:guest"] {
        for line in log.lines() {
            assert!(!line.contains(secret), "{secret} in {line}");
        }
    }
}
