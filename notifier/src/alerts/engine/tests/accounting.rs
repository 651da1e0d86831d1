//! Whatever happens, each alert is told once, or counted as suppressed.

use std::collections::BTreeMap as Map;

use super::*;
use crate::testing::random;

/// What the receivers got: of each alert, in how many posts it stood.
#[derive(Default)]
struct Ledger {
    sent: Vec<Uuid>,
    told: Map<Uuid, u32>,
    /// Those that arrived while nobody here could know.
    doubtful: usize,
    posts: Map<String, Vec<Timestamp>>,
    /// What each group said last, and whether nobody can be sure of it.
    last: Map<String, Kind>,
}

impl Ledger {
    /// A post arrives at the receiver.
    fn note(&mut self, notice: &Notice) {
        let posting = &notice.posting;
        for shown in posting.tally.iter().flat_map(|tally| &tally.shown) {
            let times = self.told.entry(shown.id).or_default();
            *times += 1;
            assert!(*times == 1 || posting.may_repeat, "{notice:?}");
        }
        let over = |kind: &Kind| matches!(kind, Kind::Resolved | Kind::Faded);
        let before = self.last.insert(notice.key.clone(), posting.kind);
        if over(&posting.kind) && posting.tally.is_none() && !posting.may_repeat {
            let was = before.expect("something was told before it was over");
            assert!(!over(&was), "over twice: {notice:?}");
        }
    }

    /// It arrives, and that is not known here.
    fn note_unknown(&mut self, notice: &Notice) {
        self.note(notice);
        let shown = notice.posting.tally.as_ref();
        self.doubtful += shown.map_or(0, |tally| tally.shown.len());
    }

    fn attempt(&mut self, notice: &Notice, now: Timestamp) {
        let times = self.posts.entry(notice.receiver.clone()).or_default();
        times.push(now);
    }

    /// Never more than ten at once and one more each second.
    fn check_rate(&self) {
        for times in self.posts.values() {
            for (early, late) in times.iter().zip(times.iter().skip(10)) {
                let apart = late.duration_since(*early).as_millis();
                assert!(apart >= 1_000, "eleven posts within {apart} ms");
            }
        }
    }
}

fn routes() -> Vec<Route> {
    let unlimited = |route: Route| Route {
        max_shown: usize::MAX,
        flap: Flap {
            changes: 4,
            within: 5 * MINUTE,
        },
        ..route
    };
    vec![
        unlimited(Route {
            inhibited_by: vec!["team".into()],
            ..resolving()
        }),
        unlimited(Route {
            receiver: "other".into(),
            ..team()
        }),
    ]
}

/// The service and what may happen to it.
struct World<R> {
    random: R,
    rig: Rig,
    ledger: Ledger,
    saved: Vec<u8>,
    /// The silences, as the store has them.
    silences: Vec<Silence>,
    kinds: u64,
    loses_answers: bool,
}

impl<R: FnMut(u64) -> u64> World<R> {
    fn save(&mut self) {
        self.saved = serde_json::to_vec(self.rig.engine.state()).unwrap();
    }

    fn crash(&mut self) {
        let state = serde_json::from_slice(&self.saved).unwrap();
        let rules = self.rig.engine.rules.clone();
        self.rig.engine = Engine::new(rules, state, self.silences.clone());
    }

    /// A batch comes; a crash may hit before or after it is kept, and then it comes again.
    fn batch(&mut self) {
        let mut batch = Vec::new();
        for _ in 0..(self.random)(5) {
            let kind = format!("k{}", (self.random)(self.kinds));
            let (key, data) = match (self.random)(6) {
                0 => (SUCCEEDED, json!({"kind": kind})),
                1 => (
                    "stored.team.ops.x",
                    json!({"fingerprint": kind, "status": "firing"}),
                ),
                2 => (
                    "stored.team.ops.x",
                    json!({"fingerprint": kind, "status": "resolved"}),
                ),
                _ => (FAILED, json!({"kind": kind})),
            };
            let id = Uuid::from_u128(u128::from((self.random)(u64::MAX)));
            let body = json!({"type": "t", "id": id, "time": self.rig.now, "data": data});
            if key == FAILED || data["status"] == "firing" {
                self.ledger.sent.push(id);
            }
            batch.push((key, body.to_string()));
        }
        let crash = (self.random)(20);
        for round in 0..2 {
            for (key, body) in &batch {
                let message = Message::read(key, body.as_bytes()).unwrap();
                self.rig.engine.take(message, self.rig.now);
            }
            if round == 0 && crash == 0 {
                self.crash();
                continue;
            }
            self.save();
            if round == 0 && crash == 1 {
                self.crash();
                continue;
            }
            break;
        }
    }

    fn posts(&mut self) {
        self.rig.engine.tidy(self.rig.now);
        while let Some(notice) = self.rig.engine.next_post(self.rig.now) {
            self.save();
            self.ledger.attempt(&notice, self.rig.now);
            let (key, now) = (notice.key.clone(), self.rig.now);
            let engine = &mut self.rig.engine;
            match (self.random)(12) {
                0 => engine.failed(&key, now, 20 * SECOND, false),
                1 if self.loses_answers => {
                    self.ledger.note_unknown(&notice);
                    engine.failed(&key, now, 20 * SECOND, true);
                }
                2 if self.loses_answers => {
                    self.ledger.note_unknown(&notice);
                    self.crash();
                }
                3 => self.crash(),
                _ => {
                    self.ledger.note(&notice);
                    engine.posted(&key, now).unwrap();
                }
            }
            self.rig.engine.tidy(now);
            self.save();
        }
    }

    fn silences(&mut self) {
        if (self.random)(60) == 0 {
            let kind = format!("k{}", (self.random)(self.kinds));
            let (now, minutes) = (self.rig.now, (self.random)(120));
            let silence = Silence {
                id: Uuid::new_v4(),
                labels: Map::from([("kind".into(), kind)]),
                created_at: now,
                until: later(now, Duration::from_mins(minutes)),
                author: "ann".into(),
                reason: "random".into(),
            };
            self.silences = vec![silence];
            self.rig.engine.silence(self.silences.clone());
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = later(self.rig.now, time);
        loop {
            self.posts();
            let next = self.rig.engine.next_wake(self.rig.now);
            match next {
                Some(next) if next <= end => self.rig.now = next.max(self.rig.now),
                _ => break,
            }
        }
        self.rig.now = end;
    }
}

#[test]
fn every_alert_is_in_one_post_or_suppressed() {
    let mut draw = random();
    for round in 0..12 {
        let kinds = 1 + draw(8);
        let rig = Rig::new(routes());
        let saved = serde_json::to_vec(rig.engine.state()).unwrap();
        let mut world = World {
            random: &mut draw,
            rig,
            ledger: Ledger::default(),
            saved,
            silences: Vec::new(),
            kinds,
            loses_answers: round % 2 == 0,
        };
        for _ in 0..100 {
            world.batch();
            world.silences();
            let millis = 100 * 20_u64.pow(u32::try_from((world.random)(4)).unwrap());
            let pause = (world.random)(millis);
            world.pass(Duration::from_millis(pause));
        }
        world.pass(Duration::from_hours(48));
        let state = world.rig.engine.state();
        assert!(!state.has_work(), "{:?}", state.groups);
        let suppressed = state.suppressed.silenced + state.suppressed.inhibited;
        let suppressed = usize::try_from(suppressed).unwrap();
        let ledger = &world.ledger;
        let untold = (ledger.sent.iter())
            .filter(|id| !ledger.told.contains_key(*id))
            .count();
        // What arrived without our knowing may be counted as suppressed as well.
        let at_most = untold + ledger.doubtful;
        assert!(
            (untold..=at_most).contains(&suppressed),
            "{untold} {suppressed}"
        );
        assert_eq!(ledger.sent.len(), untold + ledger.told.len());
        println!("{} told, {suppressed} suppressed", ledger.told.len());
        ledger.check_rate();
    }
}
