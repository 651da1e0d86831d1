//! Users of `RabbitMQ` who may do what docs/OPERATIONS.md says, and no more.

use std::path::Path;

use bellhop_common::config::HumanDuration;
use bellhop_notifier::{CategoryConfig, MailChoice, Until};
use bellhop_tests::broker::OwnBroker;
use bellhop_tests::program::command;
use bellhop_tests::push::{PushService, config};
use bellhop_tests::stack::{PATIENCE, Running, Stack, http, open_kind, token};
use bellhop_worker::{CeleryQueueConfig, Registry};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::tasks::{Break, Count, Flaky};

/// What the table says of somebody: configure, write, read.
fn documented(who: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/OPERATIONS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, text) = text.split_once("\n## Permissions\n").unwrap();
    let begin = format!("| {who} |");
    let row = text.lines().find(|line| line.starts_with(&begin));
    let row = row.unwrap_or_else(|| panic!("there is no row for {who}"));
    let codes = row.split('`').skip(1).step_by(2);
    let patterns = codes.filter(|code| code.starts_with('^'));
    patterns.map(|code| code.replace("\\|", "|")).collect()
}

/// What somebody has who may do that much: the table is about the default names.
async fn stack_of(broker: &OwnBroker, who: &str) -> Stack {
    let name = Uuid::now_v7().to_string();
    broker.ctl(&["add_user", &name, "secret"]).await;
    let patterns = documented(who);
    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    let [configure, write, read] = patterns[..] else {
        panic!("{who}: {patterns:?}")
    };
    let set = ["set_permissions", &name, configure, write, read];
    broker.ctl(&set).await;
    let url = broker
        .url()
        .replace("guest:guest", &format!("{name}:secret"));
    Stack {
        prefix: "bellhop.".into(),
        ..Stack::on(url)
    }
}

/// The services of a broker, as somebody who may do everything.
fn everything(broker: &OwnBroker) -> Stack {
    Stack {
        prefix: "bellhop.".into(),
        ..Stack::on(broker.url())
    }
}

/// A notifier that pushes, as the documented user.
async fn notifier_of(broker: &OwnBroker) -> Running {
    let stack = stack_of(broker, "notifier").await;
    let mut settings = stack.notifier_config();
    settings.amqp.publish_timeout = HumanDuration::from_secs(5);
    settings.push = config(&stack.folder.0);
    settings.escalation.categories = vec![CategoryConfig {
        name: "news".into(),
        events: vec!["notification.#".parse().unwrap()],
        push_after: Some(HumanDuration::from_secs(1)),
        mail_after: None,
        until: Until::Arrived,
        push: true,
        mail: MailChoice::Each,
    }];
    open_kind(&mut settings, "count");
    stack.notifier(settings).await
}

#[tokio::test]
async fn the_services_need_what_is_documented_and_no_more() {
    let broker = OwnBroker::started().await;
    let stack = stack_of(&broker, "worker").await;
    let registry = Registry::new().with(Count).with(Flaky::new(1));
    let mut settings = stack.worker_config();
    settings.jobs.retry_base = HumanDuration::from_secs(1);
    let worker = stack.worker(settings, registry).await;
    let notifier = notifier_of(&broker).await;
    let all = everything(&broker);
    let mut ann = stack.client(&notifier, "ann").await;

    // Progress, another attempt, a stored end.
    let id = all.enqueue("flaky", json!({}), "ann").await;
    let told = ann.task_to_end(&id).await;
    assert!(told.iter().any(|state| state["status"] == "retrying"));
    assert_eq!(told.last().unwrap()["status"], "succeeded");

    // A key of a notifier's, and one of a worker's.
    let task = json!({"kind": "count", "args": {"to": 3}, "unique_key": "k"}).to_string();
    let request = http().post(notifier.url("/api/tasks")).body(task);
    let answer = request.bearer_auth(token("ann")).send().await.unwrap();
    let (status, answer) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(status, 202, "{answer}");
    let keyed = json!({"kind": "count", "args": {"to": 3}, "user_id": "ann", "unique_key": "l"});
    let id = all.put_in(keyed).await;
    let end = ann.task_to_end(&id).await.pop().unwrap();
    assert_eq!(end["status"], "succeeded");

    is_pushed_to(&notifier, &all).await;
    worker.stop().await;
    notifier.stop().await;
}

async fn is_pushed_to(notifier: &Running, all: &Stack) {
    let service = PushService::start().await;
    let key = http().get(notifier.url("/api/push/key")).send().await;
    let key: Value = key.unwrap().json().await.unwrap();
    let browser = service.subscribe(key["key"].as_str().unwrap());
    let request = http().post(notifier.url("/api/push/subscriptions"));
    let request = request.bearer_auth(token("bob"));
    let request = request.body(browser.to_json().to_string());
    assert!(request.send().await.unwrap().status().is_success());
    let event = json!({"type": "notification.created", "id": Uuid::now_v7(),
        "time": Timestamp::now(), "data": {"title": "Paid"}});
    let to = "stored.user.bob.notification.created";
    let rabbit = all.rabbit().await;
    rabbit.publish("events", to, event.to_string()).await;
    let messages = service.wait_for_messages(1).await;
    assert_eq!(messages[0].body["title"], "Paid");
}

#[tokio::test]
async fn a_worker_for_celery_needs_what_is_documented_and_no_more() {
    let broker = OwnBroker::started().await;
    let stack = stack_of(&broker, "worker with `[celery]`, and `celery.events`").await;
    let mut settings = stack.worker_config();
    settings.celery.events = true;
    let queue = CeleryQueueConfig::default();
    settings.celery.queues.insert("celery".into(), queue);
    let worker = stack.worker(settings, Registry::new().with(Count)).await;
    // The mailbox is not among what makes a worker ready.
    let listening = async {
        let listing = ["list_bindings", "source_name"];
        while !broker.ctl(&listing).await.contains("\ncelery.pidbox\n") {}
    };
    timeout(PATIENCE, listening).await.expect("its mailbox");
    worker.stop().await;
}

#[tokio::test]
async fn the_commands_need_what_is_documented_and_no_more() {
    let broker = OwnBroker::started().await;
    let all = everything(&broker);
    let registry = Registry::new().with(Count).with(Break);
    let worker = all.worker(all.worker_config(), registry).await;
    let notifier = all.notifier(all.notifier_config()).await;
    let mut ann = all.client(&notifier, "ann").await;
    let dead = all.enqueue("break", json!({"how": "fail"}), "ann").await;
    ann.task_to_end(&dead).await;
    // Nobody would answer the pings of the connection meanwhile.
    ann.close().await;

    let puts_in = "`worker enqueue`, `worker enqueue-group`, `worker cancel`";
    let looks_after = "`worker dead`";
    let count = ["enqueue", "count", "--user", "ann", "--args", "{\"to\":1}"];
    let unique = [&count[..], &["--unique-key", "k"]].concat();
    let file = all.folder.0.join("jobs");
    std::fs::write(&file, "{\"kind\": \"count\", \"args\": {\"to\": 1}}\n").unwrap();
    let group = ["enqueue-group", file.to_str().unwrap(), "--user", "ann"];
    for (who, name, arguments) in [
        (puts_in, "worker", &count[..]),
        (puts_in, "worker", &group),
        (puts_in, "worker", &["cancel", "t"]),
        ("`worker enqueue --unique-key`", "worker", &unique),
        // The second reads who was the first.
        ("`worker enqueue --unique-key`", "worker", &unique),
        (looks_after, "worker", &["dead", "list"]),
        (looks_after, "worker", &["dead", "replay", &dead]),
        ("`worker status`", "worker", &["status"]),
        (
            "`notifier revoke`",
            "notifier",
            &["revoke", "--user", "bob"],
        ),
    ] {
        let stack = stack_of(&broker, who).await;
        let mut command = command(name, &stack);
        command.env("BELLHOP_AMQP__PUBLISH_TIMEOUT", "5s");
        let ending = timeout(PATIENCE, command.args(arguments).output());
        let output = ending.await.expect("it ends").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        assert!(!said.contains("ACCESS_REFUSED"), "{arguments:?}: {said}");
    }
    let mut ann = all.client(&notifier, "ann").await;
    let end = ann.task_to_end(&dead).await.pop().unwrap();
    assert_eq!(end["status"], "failed", "it was replayed");
    worker.stop().await;
    notifier.stop().await;
}
