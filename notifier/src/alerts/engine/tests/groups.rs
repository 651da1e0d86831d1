//! How a group goes from its first alert to its end.

use super::*;
use crate::alerts::compose::tests::plan;

#[test]
fn the_first_post_waits_and_those_that_follow_keep_their_distance() {
    let mut rig = Rig::new(vec![failures()]);
    rig.fails("report");
    rig.wait(5 * SECOND);
    rig.fails("report");
    rig.fails("import");
    assert_eq!(rig.told(), []);
    rig.wait(5 * SECOND);
    assert_eq!(
        rig.told(),
        [(Kind::Firing, 2)],
        "ten seconds after the first"
    );
    rig.wait(20 * SECOND);
    assert_eq!(rig.told().len(), 2, "the other kind has its own clock");
    for _ in 0..30 {
        rig.fails("report");
        rig.wait(SECOND);
    }
    assert_eq!(rig.told().len(), 2);
    rig.wait(MINUTE);
    assert_eq!(rig.told()[2..], [(Kind::Firing, 30)]);
    let (first, third) = (&rig.seen[0], &rig.seen[2]);
    assert_eq!(third.at.duration_since(first.at).as_secs(), 60);
    assert_eq!(third.notice.group.total, 32);
    assert_eq!(third.notice.posting.tally.as_ref().unwrap().shown.len(), 10);
}

#[test]
fn a_stream_of_failures_ends_silently_and_begins_anew() {
    let mut rig = Rig::new(vec![failures()]);
    rig.fails("report");
    rig.wait(2 * HOUR);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
    assert!(!rig.engine.state().has_work());
    rig.fails("report");
    rig.wait(HOUR);
    assert_eq!(rig.told().len(), 2);
    assert_eq!(rig.seen[1].notice.group.total, 1);
}

#[test]
fn a_success_resolves_with_duration_and_count() {
    let mut rig = Rig::new(vec![resolving()]);
    assert_eq!(rig.succeeds("report"), Fate::Unrouted, "nothing is open");
    assert!(!rig.engine.may_want(SUCCEEDED));
    for _ in 0..12 {
        rig.fails("report");
        rig.wait(MINUTE);
    }
    assert!(rig.engine.may_want(SUCCEEDED));
    assert_eq!(rig.succeeds("import"), Fate::Unrouted);
    assert_eq!(rig.succeeds("report"), Fate::Taken);
    rig.wait(2 * MINUTE);
    let last = rig.seen.last().unwrap();
    assert_eq!(last.kind, Kind::Resolved);
    let group = &last.notice.group;
    assert_eq!(group.total, 12);
    let lasted = group.resolved.unwrap().duration_since(group.opened);
    assert_eq!(lasted.as_secs(), 12 * 60);
    let count: u64 = rig.told().iter().map(|(_, count)| count).sum();
    assert_eq!(count, 12);
    rig.wait(HOUR);
    assert!(!rig.engine.state().has_work(), "it is forgotten");
}

#[test]
fn what_ends_before_its_first_post_is_told_once() {
    let mut rig = Rig::new(vec![resolving()]);
    rig.fails("report");
    rig.fails("report");
    rig.succeeds("report");
    rig.wait(HOUR);
    assert_eq!(rig.told(), [(Kind::Resolved, 2)]);
}

#[test]
fn what_says_that_it_fires_is_repeated_and_missed_when_it_stops() {
    let patient = Route {
        timing: Timing {
            repeat: 4 * HOUR,
            resolve_after: 10 * HOUR,
            ..team().timing
        },
        ..team()
    };
    let mut rig = Rig::new(vec![patient]);
    rig.says("ops", &json!({"status": "firing", "fingerprint": "disk"}));
    rig.wait(9 * HOUR);
    let told = [(Kind::Firing, 1), (Kind::Still, 0), (Kind::Still, 0)];
    assert_eq!(rig.told(), told);
    rig.wait(2 * HOUR);
    assert_eq!(rig.told()[3..], [(Kind::Faded, 0)]);
    rig.wait(24 * HOUR);
    assert_eq!(rig.told().len(), 4);
    // The other way to end.
    rig.says("ops", &json!({"status": "firing", "fingerprint": "disk"}));
    rig.wait(MINUTE);
    rig.says(
        "ops",
        &json!({"status": "resolved", "fingerprint": "other"}),
    );
    rig.wait(MINUTE);
    assert_eq!(rig.told().len(), 5);
    rig.says("ops", &json!({"status": "resolved", "fingerprint": "disk"}));
    rig.wait(MINUTE);
    assert_eq!(rig.told()[4..], [(Kind::Firing, 1), (Kind::Resolved, 0)]);
}

#[test]
fn by_default_what_says_that_it_fires_is_open_until_it_says_that_it_is_over() {
    let mut rig = Rig::of(plan("").rules);
    rig.says("ops", &json!({"status": "firing"}));
    rig.wait(7 * HOUR);
    assert_eq!(rig.told(), [(Kind::Firing, 1), (Kind::Still, 0)]);
    rig.says("ops", &json!({"status": "resolved"}));
    rig.wait(MINUTE);
    assert_eq!(rig.told()[2..], [(Kind::Resolved, 0)]);
    // Who dies before he says it is missed: it went on once, and then no more.
    rig.says("ops", &json!({"status": "firing"}));
    rig.wait(24 * HOUR);
    let wants = [(Kind::Firing, 1), (Kind::Still, 0), (Kind::Faded, 0)];
    assert_eq!(rig.told()[3..], wants);
    // The same where a route names what ends it.
    let mut rig = Rig::new(vec![resolving()]);
    rig.fails("nightly");
    rig.wait(7 * HOUR);
    rig.succeeds("nightly");
    rig.wait(MINUTE);
    let wants = [(Kind::Firing, 1), (Kind::Still, 0), (Kind::Resolved, 0)];
    assert_eq!(rig.told(), wants);
}

#[test]
fn what_ends_while_a_summary_says_that_it_is_open_is_told() {
    let mut rig = Rig::new(vec![resolving()]);
    for _ in 0..5 {
        rig.fails("report");
        rig.wait(70 * SECOND);
        rig.succeeds("report");
        rig.wait(70 * SECOND);
    }
    rig.fails("report");
    rig.wait(29 * MINUTE);
    assert_eq!(rig.told().last().unwrap().0, Kind::Flapping);
    rig.now = later(rig.now, 2 * MINUTE);
    let notice = rig.engine.next_post(rig.now).unwrap();
    assert_eq!(notice.posting.kind, Kind::Settled);
    assert!(notice.group.resolved.is_none(), "it says that it is open");
    rig.succeeds("report");
    rig.engine.posted(&notice.key, rig.now).unwrap();
    rig.wait(HOUR);
    assert_eq!(rig.told().last().unwrap().0, Kind::Resolved);
}

#[test]
fn what_flaps_is_told_once_and_summed_up_when_it_is_quiet() {
    let mut rig = Rig::new(vec![resolving()]);
    for _ in 0..20 {
        rig.fails("report");
        rig.wait(70 * SECOND);
        rig.succeeds("report");
        rig.wait(70 * SECOND);
    }
    let flapping = |seen: &&Seen| seen.kind == Kind::Flapping;
    assert_eq!(rig.seen.iter().filter(flapping).count(), 1);
    // Four times wrong and three times over, and then the seventh change.
    assert_eq!(rig.seen.len(), 8, "{:?}", rig.told());
    rig.wait(HOUR);
    let (last, count) = *rig.told().last().unwrap();
    assert_eq!((last, count), (Kind::Settled, 16));
    let summary = rig.seen.last().unwrap().notice.group.flapping.unwrap();
    assert_eq!(summary.changes, 39);
    let all: u64 = rig.told().iter().map(|(_, count)| count).sum();
    assert_eq!(all, 20);
    rig.wait(HOUR);
    rig.fails("report");
    rig.wait(MINUTE);
    assert_eq!(rig.told().last(), Some(&(Kind::Firing, 1)));
}

#[test]
fn the_first_route_takes_it_unless_it_lets_others_too() {
    let only = BTreeMap::from([("kind".to_owned(), vec!["report.*".to_owned()])]);
    let reports = Route {
        name: "reports".into(),
        only,
        continues: true,
        receiver: "other".into(),
        ..failures()
    };
    let mut rig = Rig::new(vec![reports.clone(), failures()]);
    rig.fails("report.daily");
    rig.fails("import");
    rig.wait(MINUTE);
    let mut receivers: Vec<_> = rig.seen.iter().map(|seen| &*seen.notice.receiver).collect();
    receivers.sort_unstable();
    assert_eq!(receivers, ["other", "team", "team"]);
    let first_only = Route {
        continues: false,
        ..reports
    };
    let mut rig = Rig::new(vec![first_only, failures()]);
    rig.fails("report.daily");
    rig.wait(MINUTE);
    assert_eq!(rig.seen.len(), 1);
    assert_eq!(rig.take("stored.room.x.y", &json!({})), Fate::Unrouted);
}

#[test]
fn an_hour_without_the_receiver_is_one_post_a_group() {
    let mut rig = Rig::new(vec![failures()]);
    rig.answer = Answer::Fails;
    let begun = rig.now;
    for minute in 0..60 {
        for kind in ["a", "b", "c"] {
            rig.fails(kind);
        }
        rig.wait(MINUTE);
        if minute % 7 == 0 {
            rig.restart();
        }
    }
    assert!(rig.seen.is_empty() && rig.attempts > 0);
    rig.answer = Answer::Takes;
    rig.wait(5 * MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 60); 3]);
    for seen in &rig.seen {
        let tally = seen.notice.posting.tally.as_ref().unwrap();
        assert_eq!(tally.first, begun);
        assert_eq!(tally.last.duration_since(begun).as_secs(), 59 * 60);
    }
}

#[test]
fn a_post_that_a_receiver_cannot_take_holds_no_other_up() {
    let mut rig = Rig::new(vec![failures()]);
    rig.fails("poison");
    rig.wait(10 * SECOND);
    rig.answer = Answer::Fails;
    rig.fails("poison");
    rig.wait(2 * MINUTE);
    rig.fails("good");
    rig.wait(10 * SECOND);
    // The server works, but not for this one.
    for _ in 0..100 {
        rig.now = later(rig.now, SECOND);
        if let Some(notice) = rig.engine.next_post(rig.now) {
            let kind = notice.group.labels[0].1.clone();
            if kind == "good" {
                return;
            }
            rig.engine.failed(&notice.key, rig.now, 30 * SECOND, false);
        }
    }
    panic!("the good one never had its turn");
}

#[test]
fn what_is_refused_leaves_and_can_come_back() {
    let mut rig = Rig::new(vec![failures()]);
    rig.answer = Answer::Refuses;
    rig.fails("report");
    rig.fails("report");
    rig.wait(MINUTE);
    assert_eq!(rig.attempts, 1, "it is not tried again");
    let refused = rig.dead.pop().unwrap();
    assert_eq!(refused.tally.as_ref().unwrap().count, 2);
    assert!(rig.engine.state().has_work(), "the group stays");
    rig.answer = Answer::Takes;
    let id = Uuid::new_v4();
    for wants in [Fate::Taken, Fate::Known] {
        assert_eq!(rig.replays(id, &refused), wants);
    }
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 2)]);
}

#[test]
fn what_comes_back_goes_into_the_group_that_it_left() {
    let mut rig = Rig::new(vec![failures()]);
    rig.answer = Answer::Refuses;
    let long = "report ".repeat(20);
    rig.fails(&long);
    rig.wait(MINUTE);
    let refused = rig.dead.pop().unwrap();
    rig.answer = Answer::Takes;
    rig.replays(Uuid::new_v4(), &refused);
    assert_eq!(rig.engine.state().groups.len(), 1);
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
    // Also when that is over and forgotten meanwhile.
    rig.wait(2 * HOUR);
    assert!(!rig.engine.state().has_work());
    rig.replays(Uuid::new_v4(), &refused);
    rig.fails(&long);
    assert_eq!(rig.engine.state().groups.len(), 1);
}

#[test]
fn a_refused_post_is_not_in_and_its_receiver_does_not_work() {
    let mut rig = Rig::new(vec![failures()]);
    rig.answer = Answer::Refuses;
    for _ in 0..30 {
        rig.fails("report");
        rig.wait(SECOND);
    }
    assert_eq!(rig.attempts, 1, "the next keeps its distance");
    let state = rig.engine.state();
    let group = state.groups.values().next().unwrap();
    assert_eq!(group.posts, 0);
    assert!(!state.receivers["team"].is_up());
    rig.answer = Answer::Takes;
    rig.wait(MINUTE);
    let state = rig.engine.state();
    let group = state.groups.values().next().unwrap();
    assert_eq!((group.posts, group.posted_at), (1, Some(rig.seen[0].at)));
    assert!(state.receivers["team"].is_up());
    // And another that is refused takes nothing of that back.
    rig.answer = Answer::Refuses;
    rig.fails("report");
    rig.wait(2 * MINUTE);
    let state = rig.engine.state();
    let group = state.groups.values().next().unwrap();
    assert_eq!((group.posts, group.posted_at), (1, Some(rig.seen[0].at)));
    assert!(!state.receivers["team"].is_up());
}

#[test]
fn what_was_noted_by_a_clock_that_was_ahead_silences_nobody() {
    for answer in [Answer::Takes, Answer::Fails] {
        let mut rig = Rig::new(vec![failures()]);
        let now = rig.now;
        rig.now = later(now, 24 * HOUR);
        rig.answer = answer;
        rig.fails("report");
        rig.fails("import");
        rig.wait(11 * SECOND);
        assert_eq!(rig.attempts, if answer == Answer::Takes { 2 } else { 1 });
        rig.now = now;
        rig.restart();
        rig.answer = Answer::Takes;
        rig.seen.clear();
        rig.fails("report");
        rig.fails("other");
        rig.wait(HOUR + MINUTE);
        let told: Vec<_> = rig
            .seen
            .iter()
            .map(|seen| seen.notice.group.labels[0].1.as_str())
            .collect();
        assert!(
            told.contains(&"report") && told.contains(&"other"),
            "{told:?}"
        );
    }
}

#[test]
fn a_post_shows_no_more_after_a_crash_than_before() {
    let mut rig = Rig::new(vec![failures()]);
    for _ in 0..2 {
        for _ in 0..20 {
            rig.fails("report");
        }
        rig.now = later(rig.now, 10 * SECOND);
        rig.engine.next_post(rig.now);
    }
    rig.restart();
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 40)]);
    let tally = rig.seen[0].notice.posting.tally.as_ref().unwrap();
    assert_eq!(tally.shown.len(), failures().max_shown);
}

#[test]
fn a_post_that_a_crash_interrupts_is_made_again_and_says_so() {
    let mut rig = Rig::new(vec![failures()]);
    rig.fails("report");
    rig.now = later(rig.now, 10 * SECOND);
    assert!(rig.engine.next_post(rig.now).is_some());
    assert!(rig.engine.next_post(rig.now).is_none());
    rig.restart();
    rig.wait(MINUTE);
    assert_eq!(rig.told(), [(Kind::Firing, 1)]);
    assert!(rig.seen[0].may_repeat);
    rig.fails("report");
    rig.wait(MINUTE);
    assert!(!rig.seen[1].may_repeat, "only that one");
}
