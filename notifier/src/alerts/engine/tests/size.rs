//! The state stays small.

use super::*;

fn bytes(rig: &Rig) -> usize {
    serde_json::to_vec(rig.engine.state()).unwrap().len()
}

#[test]
fn a_thousand_groups_of_long_texts_are_less_than_a_megabyte() {
    // A quotation mark needs two bytes in JSON.
    for (filler, kib) in [("x", 1024), ("🙂", 1024), ("\"", 1300)] {
        let mut rig = Rig::new(vec![resolving()]);
        let long = filler.repeat(200);
        for group in 0..1_100 {
            for _ in 0..3 {
                let error = json!({"code": long, "message": long});
                let kind = format!("{group}{long}");
                let data = json!({"kind": kind, "user_id": long, "task_id": Uuid::new_v4(),
                    "title": long, "error": error, "attempt": 3, "max_attempts": 3});
                rig.take(FAILED, &data);
            }
        }
        let groups = rig.engine.state().groups.len();
        let size = bytes(&rig);
        println!("{groups} groups of {filler:?} are {size} bytes");
        assert_eq!(groups, GROUPS_MAX + 1, "the rest is in one");
        assert!(size < kib * 1024, "{size}");
        let counted: u64 = (rig.engine.state().groups.values())
            .map(|group| group.total)
            .sum();
        assert_eq!(counted, 3_300);
    }
}

#[test]
fn a_full_house_makes_room_for_what_is_new() {
    let mut rig = Rig::new(vec![resolving()]);
    rig.fails("old");
    rig.succeeds("old");
    rig.wait(MINUTE);
    for n in 0..GROUPS_MAX {
        rig.fails(&format!("kind-{n}"));
    }
    let groups = &rig.engine.state().groups;
    assert_eq!(groups.len(), GROUPS_MAX);
    assert!(groups.values().all(|group| group.labels[0].0 == "kind"));
}

#[test]
fn a_post_knows_some_of_what_it_counts_and_does_not_show() {
    let mut rig = Rig::new(vec![resolving()]);
    rig.answer = Answer::Fails;
    for _ in 0..800 {
        rig.fails("report");
    }
    rig.wait(MINUTE);
    assert!(rig.attempts > 0);
    for _ in 0..800 {
        rig.fails("report");
    }
    rig.answer = Answer::Takes;
    rig.wait(MINUTE * 10);
    let tally = rig.seen[0].notice.posting.tally.as_ref().unwrap();
    let shown = tally.shown.iter().map(|shown| shown.id);
    let known: std::collections::BTreeSet<Uuid> =
        shown.chain(tally.others.iter().copied()).collect();
    assert_eq!(tally.count, 1_600);
    assert_eq!(known.len(), tally.shown.len() + OTHERS_MAX, "each once");
    let kept = serde_json::to_string(&rig.engine.state()).unwrap();
    assert!(kept.len() < 64 * 1024, "{}", kept.len());
}
