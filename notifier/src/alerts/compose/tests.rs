use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::alerts::double::reader;
use crate::alerts::engine::{Engine, Message, State, later};
use crate::config::NotifierConfig;

const FAILED: &str = "stored.user.ann.task.status_changed.failed";
const START: &str = "2026-01-15T10:30:00Z";

/// A plan with one receiver, `mattermost`.
pub(in crate::alerts) fn plan(more: &str) -> Plan {
    let text = format!(
        "[mattermost]\nwebhook_url = \"https://chat.example/hooks/abc\"\n\
         task_url = \"https://bellhop.example/tasks/{{task_id}}\"\n{more}"
    );
    let config: NotifierConfig = toml::from_str(&text).unwrap();
    Plan::new(&config.alerts, &config.mattermost)
        .unwrap()
        .unwrap()
}

/// What is told of alerts that come a second apart.
pub(in crate::alerts) fn notice(plan: &Plan, key: &str, alerts: &[Value]) -> Notice {
    let mut engine = Engine::new(plan.rules.clone(), State::default(), Vec::new());
    let mut now: Timestamp = START.parse().unwrap();
    for (n, data) in (1_u128..).zip(alerts) {
        let id = uuid::Uuid::from_u128(n);
        let body = json!({"type": "t", "id": id, "time": now, "data": data}).to_string();
        let message = Message::read(key, body.as_bytes()).unwrap();
        engine.take(message, now);
        now = later(now, Duration::from_secs(1));
    }
    engine
        .next_post(later(now, Duration::from_mins(10)))
        .unwrap()
}

/// A failed task all of whose texts are this one.
pub(in crate::alerts) fn failure(text: &str) -> Value {
    json!({"task_id": text, "kind": text, "title": text, "user_id": text, "status": "failed",
        "attempt": 3, "max_attempts": 3, "error": {"code": text, "message": text}})
}

fn ordinary() -> Value {
    json!({"task_id": "0198c0de", "kind": "files.checksum", "title": "Nightly report",
        "user_id": "ann", "attempt": 3, "max_attempts": 3, "status": "failed",
        "error": {"code": "timeout", "message": "took longer than 5 min\nat /srv/a"}})
}

fn posted(plan: &Plan, notice: &Notice) -> Value {
    serde_json::to_value(compose(notice, plan)).unwrap()
}

#[test]
fn a_single_failure_is_shown_whole() {
    let plan = plan("channel = \"ops\"");
    let notice = notice(&plan, FAILED, &[ordinary()]);
    let key = &notice.key;
    let expected = json!({
        "channel": "ops",
        "attachments": [{
            "fallback": "Failed: Nightly report (ann): took longer than 5 min at /srv/a",
            "color": "danger",
            "title": "Failed: Nightly report",
            "title_link": "https://bellhop.example/tasks/0198c0de",
            "text": "```\ntook longer than 5 min\nat /srv/a\n```",
            "fields": [
                {"title": "Task", "value": "`files.checksum`", "short": true},
                {"title": "Owner", "value": "`ann`", "short": true},
                {"title": "Error", "value": "`timeout`", "short": true},
                {"title": "Attempt", "value": "3 of 3", "short": true},
            ],
            "footer": format!("0198c0de · 2026-01-15 10:\u{200b}30:\u{200b}00 UTC · {key}-1"),
        }],
    });
    assert_eq!(posted(&plan, &notice), expected);
}

#[test]
fn many_are_a_digest_with_their_number_and_times() {
    let plan = plan("[alerts]\nmax_shown = 2\ntime_zone = \"Europe/Berlin\"");
    let notice = notice(&plan, FAILED, &vec![ordinary(); 37]);
    let post = posted(&plan, &notice);
    let attachment = &post["attachments"][0];
    assert_eq!(
        attachment["title"],
        "files.checksum ×37".replace("files", "Failed: files")
    );
    assert_eq!(attachment.get("title_link"), None);
    let row = "`Nightly report` `ann` `timeout` `took longer than 5 min at /srv/a`";
    let text = format!("• `11:30:00` {row}\n• `11:30:01` {row}\n+35 more");
    assert_eq!(attachment["text"], text);
    let fields = json!([
        {"title": "Task", "value": "`files.checksum`", "short": true},
        {"title": "Count", "value": "37", "short": true},
        {"title": "First", "value": "`2026-01-15 11:30:00 CET`", "short": true},
        {"title": "Last", "value": "`2026-01-15 11:30:36 CET`", "short": true},
    ]);
    assert_eq!(attachment["fields"], fields);
}

#[test]
fn what_is_over_says_how_long_it_was_and_how_much() {
    let plan = plan(
        "[[alerts.routes]]\nname = \"team\"\nmatch = [\"live.team.#\"]\n\
         group_by = [\"channel\", \"fingerprint\"]",
    );
    let firing = json!({"status": "firing", "title": "Disk full"});
    let mut alerts = vec![firing; 3];
    alerts.push(json!({"status": "resolved"}));
    let mut notice = notice(&plan, "live.team.ops.disk", &alerts);
    let group = &mut notice.group;
    group.resolved = Some(later(group.opened, Duration::from_secs(725)));
    let post = posted(&plan, &notice);
    let attachment = &post["attachments"][0];
    assert_eq!(attachment["title"], "Resolved: ops, t ×3");
    assert_eq!(attachment["color"], "good");
    let text = attachment["text"].as_str().unwrap();
    assert!(
        text.starts_with("Resolved after 12 min 5 s, 3 alerts.\n"),
        "{text}"
    );
}

#[test]
fn what_is_configured_is_shown_as_it_is_on_both_servers() {
    let more = "[alerts]\nconsole_url = \"https://c.example/?x=1\"\n[[alerts.routes]]\nname = \"a\"\n\
        match = [\"stored.#\"]\ngroup_by = [\"kind\"]\ntitle = \"{kind} fails {oops} {\"\n\
        severity = \"critical\"\nmention = \"channel\"\nrunbook = \"https://wiki.example/r\"";
    let plan = plan(more);
    let notice = notice(&plan, FAILED, &[ordinary()]);
    let post = posted(&plan, &notice);
    assert_eq!(post["text"], "@channel");
    assert_eq!(post["priority"], json!({"priority": "urgent"}));
    let attachment = &post["attachments"][0];
    assert_eq!(attachment["title"], "files.checksum fails {oops} {");
    let fields = attachment["fields"].as_array().unwrap();
    let links: Vec<_> = fields
        .iter()
        .rev()
        .take(2)
        .map(|field| field["value"].clone())
        .collect();
    let console = format!(
        "<https://c.example/?x=1&group={}|look at it, or silence it>",
        notice.key
    );
    assert_eq!(
        links,
        [console, "<https://wiki.example/r|what to do>".to_owned()]
    );

    let mut of_slack = plan;
    of_slack.receivers.get_mut("mattermost").unwrap().kind = ReceiverKind::Slack;
    let post = posted(&of_slack, &notice);
    assert_eq!(post["text"], "<!channel>");
    let own = post.as_object().unwrap().keys().map(String::as_str);
    assert_eq!(own.collect::<Vec<_>>(), ["attachments", "text"]);
}

#[test]
fn nobody_is_called_by_what_is_over_or_matters_less() {
    let plan = plan(
        "[[alerts.routes]]\nname = \"a\"\nmatch = [\"live.#\"]\ngroup_by = [\"channel\"]\n\
         mention = \"here\"",
    );
    for (data, wants) in [
        (json!({"severity": "error"}), Some("@here")),
        (json!({"severity": "warning"}), None),
        (json!({"severity": "info"}), None),
    ] {
        let mut notice = notice(&plan, "live.team.ops.x", std::slice::from_ref(&data));
        let post = compose(&notice, &plan);
        assert_eq!(post.text.as_deref(), wants);
        assert_eq!(post.silent, data["severity"] == "info");
        notice.posting.kind = Kind::Resolved;
        assert_eq!(compose(&notice, &plan).text, None);
    }
}

/// Every text of a post that somebody renders.
fn texts(post: &Post) -> Vec<&str> {
    let attachment = &post.attachments[0];
    let mut texts = vec![
        attachment.title.as_str(),
        attachment.text.as_str(),
        attachment.fallback.as_str(),
        attachment.footer.as_str(),
    ];
    for field in &attachment.fields {
        texts.extend([field.title.as_str(), field.value.as_str()]);
    }
    texts
}

#[test]
fn no_text_of_a_stranger_does_anything() {
    let group_by = "group_by = [\"kind\", \"user_id\", \"data.title\"]";
    let plan = plan(&format!(
        "[[alerts.routes]]\nname = \"a\"\nmatch = [\"stored.#\"]\n{group_by}\ntitle = \"{{kind}}\""
    ));
    for text in crate::alerts::markdown::tests::NASTY {
        for many in [1, 3] {
            let mut notice = notice(&plan, FAILED, &vec![failure(text); many]);
            for kind in [Kind::Firing, Kind::Resolved, Kind::Still] {
                notice.posting.kind = kind;
                notice.group.resolved = Some(notice.posting.at);
                let post = compose(&notice, &plan);
                for part in texts(&post) {
                    let reading = reader::read(part);
                    assert!(
                        reading.is_inert(),
                        "{text:?}: {part:?} is read as {reading:?}"
                    );
                }
                assert_eq!(post.text, None);
            }
        }
    }
}

#[test]
fn stays_within_the_limits_with_any_input() {
    let plan = plan("[alerts]\nmax_shown = 20");
    for filler in ["x", "\"", "\\", "_", "`", "\t", "🙂", "@", "\u{202e}a", "<"] {
        let long = filler.repeat(6_000);
        for many in [1, 25] {
            let mut notice = notice(&plan, FAILED, &vec![failure(&long); many]);
            // As much as could ever be kept.
            let labels = (0..20).map(|n| (format!("label{n}"), long.clone()));
            notice.group.labels = labels.collect();
            let shown = notice
                .posting
                .tally
                .iter_mut()
                .flat_map(|tally| &mut tally.shown);
            for shown in shown {
                shown.text = Some(long.clone());
                shown.title = Some(long.clone());
                shown.code = Some(long.clone());
                shown.user_id = Some(long.clone());
            }
            let post = compose(&notice, &plan);
            let text = post.attachments[0].text.chars().count();
            assert!(text <= 16_383, "{filler:?}: {text}");
            let body = serde_json::to_vec(&post).unwrap().len();
            assert!(body < 128 * 1024, "{filler:?} makes {body} bytes");
        }
    }
}
