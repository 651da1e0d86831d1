use super::*;
use crate::config::NotifierConfig;

const HOOK: &str = "[mattermost]\nwebhook_url = \"https://chat.example/hooks/hunter2hook\"\n";

fn plan(text: &str) -> Result<Option<Plan>, String> {
    let config: NotifierConfig = toml::from_str(text).unwrap();
    Plan::new(&config.alerts, &config.mattermost).map_err(|problems| problems.join("\n"))
}

#[test]
fn without_a_receiver_there_is_nothing_and_with_one_there_are_defaults() {
    assert!(plan("").unwrap().is_none());
    let plan = plan(HOOK).unwrap().unwrap();
    let names: Vec<_> = plan.rules.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["failures", "team"]);
    assert_eq!(
        plan.patterns(),
        [
            "live.team.#",
            "stored.team.#",
            "stored.user.*.task.status_changed.failed"
        ]
    );
    assert_eq!(plan.rules.broker.receiver, "mattermost");
}

#[test]
fn a_whole_configuration_is_read() {
    let text = r#"
        [alerts]
        group_wait = "30s"
        rate = "20/m"
        burst = 5
        time_zone = "Europe/Berlin"
        receiver = "ops"
        [alerts.receivers.ops]
        webhook_url = "https://chat.example/hooks/abc"
        [alerts.receivers.dev]
        kind = "slack"
        webhook_url = "https://hooks.slack.com/services/T0/B0/abc"
        [[alerts.routes]]
        name = "reports"
        match = ["stored.user.*.task.status_changed.failed"]
        resolve = ["stored.user.*.task.status_changed.succeeded"]
        where = { kind = ["report.*"] }
        group_by = ["kind", "data.host"]
        group_wait = "1m"
        severity = "critical"
        receiver = "dev"
        mention = "@ann"
        title = "{kind} fails"
        runbook = "https://wiki.example/reports"
        flap = { changes = 4 }
        quiet = [{ days = ["sat", "sun"], from = "22:00:30", to = "07:00" }]
        inhibited_by = ["broker"]
        [[alerts.routes]]
        name = "all"
        match = ["stored.#"]
    "#;
    let plan = plan(text).unwrap().unwrap();
    let [reports, all] = &plan.rules.routes[..] else {
        panic!("{plan:?}");
    };
    assert_eq!(reports.timing.wait.as_secs(), 60);
    assert_eq!(all.timing.wait.as_secs(), 30);
    assert_eq!((&*reports.receiver, &*all.receiver), ("dev", "ops"));
    assert_eq!(reports.flap.changes, 4);
    assert_eq!(reports.flap.within.as_secs(), 1800);
    assert_eq!(reports.quiet.len(), 1);
    let mention = Some((Mention::User("ann".into()), Severity::Error));
    assert_eq!(plan.looks["reports"].mention, mention);
    assert_eq!(plan.rules.receivers["ops"].period.as_secs(), 3);
    assert_eq!(plan.patterns().len(), 3);
}

#[test]
fn routes_may_inhibit_each_other_in_one_direction() {
    let route = |name: &str, by: &str| {
        format!(
            "[[alerts.routes]]\nname = \"{name}\"\nmatch = [\"live.#\"]\ninhibited_by = [{by}]\n"
        )
    };
    let diamond = [
        route("top", "\"broker\""),
        route("left", "\"top\""),
        route("right", "\"top\", \"broker\""),
        route("bottom", "\"left\", \"right\", \"top\""),
    ];
    plan(&format!("{HOOK}{}", diamond.concat())).unwrap();
    let ring = [
        route("a", "\"b\""),
        route("b", "\"c\""),
        route("c", "\"b\""),
    ];
    let problems = plan(&format!("{HOOK}{}", ring.concat())).unwrap_err();
    assert_eq!(problems.lines().count(), 1, "each once: {problems}");
}

#[test]
fn what_is_wrong_is_named_and_no_address_is_shown() {
    let route = |more: &str| {
        format!("{HOOK}[[alerts.routes]]\nname = \"a\"\nmatch = [\"stored.#\"]\n{more}")
    };
    for (text, wants) in [
        ("[[alerts.routes]]\nname=\"a\"\nmatch=[\"stored.#\"]".to_owned(), "nobody to tell"),
        (format!("{HOOK}[alerts]\ntime_zone=\"Mars\""), "time_zone"),
        (format!("{HOOK}[alerts]\nburst=0"), "alerts.burst"),
        (format!("{HOOK}[alerts]\nmax_shown=0"), "max_shown"),
        (format!("{HOOK}[alerts]\nreceiver=\"x\""), "there are: mattermost"),
        (format!("{HOOK}webhook_url_file=\"f\""), "mattermost.webhook_url_file are both set"),
        (format!("{HOOK}[alerts.receivers.mattermost]\nwebhook_url_file=\"f\""), "same receiver"),
        ("[alerts.receivers.x]\nwebhook_url=\"ftp://h/hunter2\"".into(), "alerts.receivers.x.webhook_url"),
        ("[alerts.receivers.x]\nkind=\"slack\"\nwebhook_url=\"hunter2\"".into(), "slack"),
        ("[alerts.receivers.x]".into(), "needs webhook_url"),
        ("[alerts.receivers.x]\nwebhook_url_file=\"f\"\n[alerts.receivers.y]\nwebhook_url_file=\"f\"".into(), "one of x, y"),
        (route("receiver = \"x\""), "no receiver \"x\""),
        (route("mention = \"all\""), "mention"),
        (route("mention = \"@a b\""), "mention"),
        (route("runbook = \"javascript:1\""), "runbook"),
        (route("inhibited_by = [\"b\"]"), "\"b\""),
        (route("inhibited_by = [\"a\"]"), "\"a\" is inhibited by \"a\""),
        (
            route("inhibited_by = [\"c\"]\n[[alerts.routes]]\nname = \"b\"\nmatch = [\"live.#\"]\ninhibited_by = [\"broker\", \"a\"]\n[[alerts.routes]]\nname = \"c\"\nmatch = [\"live.#\"]\ninhibited_by = [\"b\"]"),
            "\"a\" is inhibited by \"c\", \"c\" by \"b\", \"b\" by \"a\"",
        ),
        (route("resolve = [\"#\"]"), "must begin with"),
        (route("quiet = [{ from = \"22\", to = \"07:00\" }]"), "22:00"),
        (route("quiet = [{ days = [\"so\"], from = \"22:00\", to = \"07:00\" }]"), "mon to sun"),
        (route("flap = { changes = 1 }"), "flap.changes"),
        (route("[[alerts.routes]]\nname = \"a\"\nmatch = [\"live.#\"]"), "two named"),
        (route("[[alerts.routes]]\nname = \"broker\"\nmatch = [\"live.#\"]"), "taken"),
        (route("[[alerts.routes]]\nname = \"b\""), "match needs"),
        (route("[[alerts.routes]]\nmatch = [\"live.#\"]"), "1 to 64"),
    ] {
        let problems = plan(&text).unwrap_err();
        assert!(problems.contains(wants), "{text}: {problems}");
        assert!(!problems.contains("hunter2"), "{problems}");
    }
}
