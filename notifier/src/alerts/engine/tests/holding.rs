//! What keeps a group from being told.

use jiff::civil::{Weekday, time};

use super::*;
use crate::quiet_hours::QuietHours;

fn silence(rig: &Rig, labels: &[(&str, &str)], time: Duration) -> Silence {
    Silence {
        id: Uuid::new_v4(),
        labels: (labels.iter())
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        created_at: rig.now,
        until: later(rig.now, time),
        author: "ann".into(),
        reason: "upgrade".into(),
    }
}

#[test]
fn what_is_still_open_after_a_silence_is_told() {
    let mut rig = Rig::new(vec![failures()]);
    let silence = silence(&rig, &[("kind", "rep*")], 20 * MINUTE);
    rig.engine.silence(vec![silence]);
    rig.fails("report");
    rig.fails("import");
    rig.wait(19 * MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)], "only the other");
    let group = &rig.seen[0].notice.group;
    assert_eq!(group.labels[0].1, "import");
    rig.wait(2 * MINUTE);
    assert_eq!(rig.told().len(), 2);
}

#[test]
fn what_ends_during_a_silence_is_counted_as_silenced() {
    let mut rig = Rig::new(vec![resolving()]);
    let silence = silence(&rig, &[("route", "failures")], 3 * HOUR);
    rig.engine.silence(vec![silence]);
    for kind in ["a", "b", "b"] {
        rig.fails(kind);
    }
    rig.succeeds("a");
    rig.succeeds("b");
    rig.wait(4 * HOUR);
    assert_eq!(rig.told(), []);
    assert_eq!(rig.suppressed.silenced, 3);
    assert_eq!(rig.engine.state().suppressed.silenced, 3);
}

#[test]
fn a_silence_of_some_alerts_leaves_the_others_of_the_group() {
    let mut rig = Rig::new(vec![failures()]);
    let silence = silence(&rig, &[("error_code", "timeout")], HOUR);
    rig.engine.silence(vec![silence]);
    let timeout = json!({"kind": "report", "error": {"code": "timeout"}});
    assert_eq!(rig.take(FAILED, &timeout), Fate::Silenced);
    rig.fails("report");
    assert_eq!(rig.take(FAILED, &timeout), Fate::Silenced);
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
    assert_eq!(rig.engine.state().suppressed.silenced, 2);
}

#[test]
fn a_silence_of_a_long_label_holds_what_has_it() {
    let long = "k".repeat(100);
    // By the whole of it: the group shows less.
    let mut rig = Rig::new(vec![failures()]);
    let whole = silence(&rig, &[("kind", &long)], 20 * MINUTE);
    rig.engine.silence(vec![whole]);
    assert_eq!(rig.take(FAILED, &json!({"kind": long})), Fate::Silenced);
    rig.fails("k");
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
    assert_eq!(rig.engine.state().suppressed.silenced, 1);
    // By what both have, it is the group that is held.
    let mut rig = Rig::new(vec![failures()]);
    let both = silence(&rig, &[("kind", "kkk*")], 20 * MINUTE);
    rig.engine.silence(vec![both]);
    rig.fails(&long);
    rig.wait(19 * MINUTE);
    assert_eq!(rig.told(), []);
    rig.wait(2 * MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
}

#[test]
fn a_silence_holds_what_has_no_group_of_its_own() {
    let mut rig = Rig::new(vec![failures()]);
    for n in 0..GROUPS_MAX {
        rig.fails(&format!("kind-{n}"));
    }
    let silence = silence(&rig, &[("kind", "report")], HOUR);
    rig.engine.silence(vec![silence]);
    let data = json!({"kind": "report", "user_id": "ann"});
    assert_eq!(rig.take(FAILED, &data), Fate::Silenced);
    rig.fails("import");
    let mut groups = rig.engine.state().groups.values();
    let overflow = groups.find(|group| group.labels[0].0 != "kind").unwrap();
    assert_eq!(overflow.total, 1, "the other one");
}

#[test]
fn a_silence_of_a_severity_holds_single_alerts_of_a_worse_group() {
    let mut rig = Rig::new(vec![team()]);
    let silence = silence(&rig, &[("severity", "warning")], HOUR);
    rig.engine.silence(vec![silence]);
    let warns = json!({"severity": "warning"});
    assert_eq!(rig.says("ops", &json!({"severity": "error"})), Fate::Taken);
    assert_eq!(rig.says("ops", &warns), Fate::Silenced);
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
}

#[test]
fn a_silence_that_is_lifted_holds_nothing_any_more() {
    let mut rig = Rig::new(vec![failures()]);
    let silence = silence(&rig, &[("severity", "error")], HOUR);
    rig.engine.silence(vec![silence]);
    rig.fails("report");
    rig.wait(MINUTE);
    let group = rig.engine.state().groups.values().next().unwrap();
    let hold = rig.engine.holds(rig.now).of(group, &failures()).unwrap();
    assert_eq!(hold.reason, Reason::Silenced);
    rig.engine.silence(Vec::new());
    rig.wait(SECOND);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
}

#[test]
fn what_follows_from_an_open_group_only_counts() {
    let inhibited = Route {
        inhibited_by: vec!["team".into()],
        ..failures()
    };
    let mut rig = Rig::new(vec![inhibited, team()]);
    rig.says("ops", &json!({"status": "firing"}));
    rig.fails("report");
    rig.wait(10 * MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)], "the cause alone");
    rig.says("ops", &json!({"status": "resolved"}));
    rig.wait(3 * HOUR);
    let kinds: Vec<_> = rig.told().iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [Kind::Firing, Kind::Resolved]);
    assert_eq!(rig.suppressed.inhibited, 1, "it was of that time");
    rig.fails("report");
    rig.wait(MINUTE);
    assert_eq!(rig.told().last(), Some(&(Kind::Firing, 1)));
}

#[test]
fn failures_of_an_outage_of_the_broker_are_told_as_the_outage() {
    let inhibited = Route {
        inhibited_by: vec![BROKER.into()],
        ..failures()
    };
    let mut rig = Rig::new(vec![inhibited]);
    let lost = rig.now;
    rig.now = later(rig.now, MINUTE);
    // Comes when the broker is back.
    rig.fails("report");
    rig.now = later(rig.now, 11 * MINUTE);
    let (shown, back) = (Shown::of_ours(Uuid::nil(), lost, "lost"), rig.now);
    rig.engine.broker_was_away(shown.clone(), back);
    // Another instance saw the same.
    rig.engine.broker_was_away(shown, later(back, SECOND));
    rig.wait(2 * HOUR);
    assert_eq!(rig.told(), [(Kind::Resolved, 1)]);
    let group = &rig.seen[0].notice.group;
    assert_eq!(group.route, BROKER);
    let lasted = group.resolved.unwrap().duration_since(group.opened);
    assert_eq!(lasted.as_secs(), 12 * 60);
    assert_eq!(rig.suppressed.inhibited, 1);
}

#[test]
fn a_quiet_night_is_one_digest_and_critical_passes() {
    let quiet = Route {
        quiet: vec![QuietHours {
            days: vec![Weekday::Thursday],
            from: time(22, 0, 0, 0),
            to: time(7, 0, 0, 0),
        }],
        ..team()
    };
    let mut rig = Rig::new(vec![quiet]);
    rig.now = "2026-01-15T23:00:00Z".parse().unwrap();
    for n in 0..5 {
        rig.says("ops", &json!({"fingerprint": "disk", "n": n}));
        rig.wait(HOUR);
    }
    rig.says(
        "ops",
        &json!({"severity": "critical", "fingerprint": "fire"}),
    );
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)], "only what is critical");
    rig.wait(6 * HOUR);
    assert_eq!(rig.told()[1..], [(Kind::Firing, 5)]);
    assert_eq!(rig.seen[1].at.to_string(), "2026-01-16T07:00:00Z");
}
