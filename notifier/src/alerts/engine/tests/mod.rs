//! The engine with a clock and a receiver of the tests' own.

mod accounting;
mod groups;
mod holding;
mod size;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const FAILED: &str = "stored.user.ann.task.status_changed.failed";
const SUCCEEDED: &str = "stored.user.ann.task.status_changed.succeeded";

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

fn route(name: &str, fires: &str, group_by: &[&str]) -> Route {
    Route {
        name: name.into(),
        fires: vec![fires.into()],
        resolves: Vec::new(),
        only: BTreeMap::new(),
        group_by: group_by.iter().map(|name| (*name).into()).collect(),
        severity: Severity::Error,
        receiver: "team".into(),
        continues: false,
        timing: Timing {
            wait: 10 * SECOND,
            interval: MINUTE,
            repeat: 4 * HOUR,
            resolve_after: HOUR,
        },
        max_shown: 10,
        flap: Flap {
            changes: 6,
            within: 30 * MINUTE,
        },
        quiet: Vec::new(),
        inhibited_by: Vec::new(),
    }
}

fn failures() -> Route {
    route(
        "failures",
        "stored.user.*.task.status_changed.failed",
        &["kind"],
    )
}

/// Failures that end with a success.
fn resolving() -> Route {
    Route {
        resolves: vec!["stored.user.*.task.status_changed.succeeded".into()],
        ..failures()
    }
}

fn team() -> Route {
    route("team", "stored.team.#", &["channel", "fingerprint"])
}

fn rules(routes: Vec<Route>) -> Rules {
    let rate = Rate {
        period: SECOND,
        burst: 10,
    };
    Rules {
        routes,
        broker: Route {
            fires: Vec::new(),
            ..route(BROKER, "", &[])
        },
        receivers: BTreeMap::from([("team".into(), rate), ("other".into(), rate)]),
        zone: TimeZone::UTC,
    }
}

/// What a receiver does with a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Takes,
    Fails,
    Refuses,
}

/// A post as the receiver saw it.
#[derive(Debug, Clone)]
struct Seen {
    at: Timestamp,
    kind: Kind,
    count: u64,
    may_repeat: bool,
    notice: Notice,
}

struct Rig {
    engine: Engine,
    now: Timestamp,
    answer: Answer,
    seen: Vec<Seen>,
    attempts: usize,
    dead: Vec<Refused>,
    suppressed: Suppressed,
}

impl Rig {
    fn new(routes: Vec<Route>) -> Self {
        Self::of(rules(routes))
    }

    fn of(rules: Rules) -> Self {
        Self {
            engine: Engine::new(rules, State::default(), Vec::new()),
            // A Thursday.
            now: "2026-01-15T10:30:00Z".parse().unwrap(),
            answer: Answer::Takes,
            seen: Vec::new(),
            attempts: 0,
            dead: Vec::new(),
            suppressed: Suppressed::default(),
        }
    }

    fn message(&self, key: &str, data: &Value) -> Message {
        let body = json!({"type": "t", "id": Uuid::new_v4(), "time": self.now, "data": data});
        Message::read(key, body.to_string().as_bytes()).unwrap()
    }

    fn take(&mut self, key: &str, data: &Value) -> Fate {
        let message = self.message(key, data);
        self.engine.take(message, self.now)
    }

    fn fails(&mut self, kind: &str) {
        let error = json!({"code": "broken", "message": "no disk"});
        let data = json!({"kind": kind, "user_id": "ann", "error": error});
        assert_eq!(self.take(FAILED, &data), Fate::Taken);
    }

    fn succeeds(&mut self, kind: &str) -> Fate {
        self.take(SUCCEEDED, &json!({"kind": kind, "user_id": "ann"}))
    }

    /// A refused post comes back from the dead letters.
    fn replays(&mut self, id: Uuid, refused: &Refused) -> Fate {
        let body = json!({"type": REFUSED, "id": id, "time": self.now, "data": refused});
        let message = Message::read("bellhop.alerts", body.to_string().as_bytes()).unwrap();
        self.engine.take(message, self.now)
    }

    fn says(&mut self, channel: &str, data: &Value) -> Fate {
        self.take(&format!("stored.team.{channel}.disk"), data)
    }

    fn tidy(&mut self) {
        let suppressed = self.engine.tidy(self.now);
        self.suppressed.silenced += suppressed.silenced;
        self.suppressed.inhibited += suppressed.inhibited;
    }

    /// Makes the posts that are due, as the service does.
    fn post(&mut self) {
        self.tidy();
        while let Some(notice) = self.engine.next_post(self.now) {
            self.attempts += 1;
            match self.answer {
                Answer::Takes => {
                    self.engine.posted(&notice.key, self.now).unwrap();
                    self.seen.push(Seen::of(notice, self.now));
                }
                Answer::Fails => self
                    .engine
                    .failed(&notice.key, self.now, 30 * SECOND, false),
                Answer::Refuses => {
                    self.engine.refused(&notice.key, self.now).unwrap();
                    self.dead.push(Refused::of(&notice));
                }
            }
            self.tidy();
        }
    }

    /// Lets time pass, and the engine do what it wants when it wants.
    fn wait(&mut self, time: Duration) {
        let end = later(self.now, time);
        loop {
            self.post();
            let next = self.engine.next_wake(self.now);
            assert!(next.is_none_or(|next| next > self.now), "{next:?}");
            match next {
                Some(next) if next <= end => self.now = next,
                _ => break,
            }
        }
        self.now = end;
    }

    /// What was posted so far, in short.
    fn told(&self) -> Vec<(Kind, u64)> {
        let short = |seen: &Seen| (seen.kind, seen.count);
        self.seen.iter().map(short).collect()
    }

    /// Starts anew with what was kept.
    fn restart(&mut self) {
        let kept = serde_json::to_vec(self.engine.state()).unwrap();
        let state = serde_json::from_slice(&kept).unwrap();
        let silences = self.engine.silences.clone();
        self.engine = Engine::new(self.engine.rules.clone(), state, silences);
    }
}

impl Seen {
    fn of(notice: Notice, at: Timestamp) -> Self {
        Self {
            at,
            kind: notice.posting.kind,
            count: notice.posting.tally.as_ref().map_or(0, |tally| tally.count),
            may_repeat: notice.posting.may_repeat,
            notice,
        }
    }
}
