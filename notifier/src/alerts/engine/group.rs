//! A group of alerts: what is open, what is told, and what is to be told when. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::alert::{Severity, Shown};
use super::later;
use super::route::{Flap, Route};

/// How many alerts are known by their id that a post counts and does not show.
pub(crate) const OTHERS_MAX: usize = 1_000;

/// Alerts that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    /// When the first and the last happened.
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    /// When the first came.
    pub(crate) since: Timestamp,
    pub(crate) shown: Vec<Shown>,
    /// Some of those that are counted and not shown, for the log of deliveries. In memory alone: the
    /// state is written with every batch, and is small.
    #[serde(skip)]
    pub(crate) others: Vec<Uuid>,
}

/// What a post tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Alerts that were not told yet.
    Firing,
    /// It goes on, with nothing new.
    Still,
    /// It is over.
    Resolved,
    /// Nothing came any more for a long time.
    Faded,
    /// It changes too often to be told each time.
    Flapping,
    /// It does not any more.
    Settled,
}

/// A post under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Posting {
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) at: Timestamp,
    /// Whether it says that something is wrong.
    #[serde(default)]
    pub(crate) firing: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tally: Option<Tally>,
    /// Some of it may have been posted already: nobody knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) may_repeat: bool,
}

/// The last post, also if it was refused: the next keeps its distance from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) at: Timestamp,
    /// Whether it said that something is wrong.
    pub(crate) firing: bool,
}

/// Too many changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flapping {
    pub(crate) since: Timestamp,
    pub(crate) told: bool,
    pub(crate) changes: u64,
}

/// Alerts with the same labels, from the first until nobody needs to know of it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) route: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) severity: Severity,
    /// Something will say when it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stated: bool,
    /// When the first alert of this episode happened.
    pub(crate) opened: Timestamp,
    /// When the last came.
    pub(crate) last: Timestamp,
    /// All of this episode.
    pub(crate) total: u64,
    /// When it ended, unless it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolved: Option<Timestamp>,
    /// Nothing said that it is over; it stopped.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) faded: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Tally>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) posting: Option<Posting>,
    /// A post of it may be in, and what it told is told again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) may_repeat: bool,
    /// How many posts of it are in.
    #[serde(default)]
    pub(crate) posts: u32,
    /// When the last post of it that is in was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) posted_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) told: Option<Told>,
    /// Posts of it that failed since the last that did not.
    #[serde(default)]
    pub(crate) failures: u32,
    /// When it changed between open and over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) flapping: Option<Flapping>,
}

impl Tally {
    pub(crate) fn of(shown: Shown, now: Timestamp) -> Self {
        Self {
            count: 1,
            first: shown.time,
            last: shown.time,
            since: now,
            shown: vec![shown],
            others: Vec::new(),
        }
    }

    /// Adds what came later.
    pub(crate) fn add(&mut self, other: Self, max_shown: usize) {
        self.count = self.count.saturating_add(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.since = self.since.min(other.since);
        let room = max_shown.saturating_sub(self.shown.len());
        let mut shown = other.shown.into_iter();
        self.shown.extend(shown.by_ref().take(room));
        let others = shown.map(|shown| shown.id).chain(other.others);
        let room = OTHERS_MAX.saturating_sub(self.others.len());
        self.others.extend(others.take(room));
    }
}

impl Group {
    pub(crate) fn new(route: &Route, labels: Vec<(String, String)>, at: Timestamp) -> Self {
        Self {
            route: route.name.clone(),
            labels,
            severity: route.severity,
            stated: !route.resolves.is_empty(),
            opened: at,
            last: at,
            total: 0,
            resolved: None,
            faded: false,
            pending: None,
            posting: None,
            may_repeat: false,
            posts: 0,
            posted_at: None,
            told: None,
            failures: 0,
            changes: Vec::new(),
            flapping: None,
        }
    }

    /// Alerts come in.
    pub(crate) fn add(&mut self, tally: Tally, route: &Route, max_shown: usize, now: Timestamp) {
        if self.resolved.take().is_some() {
            self.faded = false;
            self.changed(route.flap, now);
            // What nobody was told to be over goes on.
            if self.pending.is_none() && self.posting.is_none() && !self.says_firing() {
                self.opened = tally.first;
                self.total = 0;
            }
        }
        self.opened = self.opened.min(tally.first);
        self.last = now;
        self.total = self.total.saturating_add(tally.count);
        self.hold(tally, max_shown);
    }

    /// It is over.
    pub(crate) fn resolve(&mut self, at: Timestamp, route: &Route, now: Timestamp) {
        if self.resolved.is_none() {
            self.resolved = Some(at);
            self.changed(route.flap, now);
        }
    }

    /// Puts to what is pending.
    fn hold(&mut self, tally: Tally, max_shown: usize) {
        match &mut self.pending {
            Some(pending) => pending.add(tally, max_shown),
            none => *none = Some(tally),
        }
    }

    fn changed(&mut self, flap: Flap, now: Timestamp) {
        self.changes.retain(|at| later(*at, flap.within) > now);
        self.changes.push(now);
        if let Some(flapping) = &mut self.flapping {
            flapping.changes += 1;
        } else if self.changes.len() > flap.changes {
            self.flapping = Some(Flapping {
                since: self.changes.first().copied().unwrap_or(now),
                told: false,
                changes: self.changes.len() as u64,
            });
        }
        // Only the newest say when it is quiet again.
        let surplus = self.changes.len().saturating_sub(flap.changes + 1);
        self.changes.drain(..surplus);
    }

    pub(crate) fn says_firing(&self) -> bool {
        self.told.is_some_and(|told| told.firing)
    }

    /// What is to be told, and from when on.
    pub(crate) fn wants(&self, route: &Route) -> Option<(Timestamp, Kind)> {
        if self.posting.is_some() {
            return None;
        }
        let spaced = self.told.map(|told| later(told.at, route.timing.interval));
        let came = self.pending.as_ref().map(|tally| tally.since);
        let waited = came
            .filter(|_| !self.says_firing())
            .map(|came| later(came, route.timing.wait));
        let due = spaced.max(waited).unwrap_or(Timestamp::MIN);
        if let Some(flapping) = &self.flapping {
            if !flapping.told {
                return Some((due, Kind::Flapping));
            }
            let quiet = self.changes.last().copied();
            let quiet = quiet.map(|last| later(last, route.flap.within));
            return Some((due.max(quiet.unwrap_or(Timestamp::MIN)), Kind::Settled));
        }
        let is_new = self.pending.is_some();
        match (self.resolved.is_some(), self.says_firing()) {
            (true, true) => Some((due, self.over())),
            (true, false) => is_new.then_some((due, self.over())),
            (false, _) if is_new => Some((due, Kind::Firing)),
            (false, true) => {
                let told = self.told?;
                Some((later(told.at, route.timing.repeat), Kind::Still))
            }
            (false, false) => None,
        }
    }

    fn over(&self) -> Kind {
        if self.faded {
            Kind::Faded
        } else {
            Kind::Resolved
        }
    }

    /// A post of what it wants to tell begins.
    pub(crate) fn begin(&mut self, kind: Kind, now: Timestamp) -> Posting {
        let firing = match kind {
            Kind::Firing | Kind::Still | Kind::Flapping => true,
            Kind::Resolved | Kind::Faded => false,
            Kind::Settled => self.resolved.is_none(),
        };
        let posting = Posting {
            number: self.posts.saturating_add(1),
            kind,
            at: now,
            firing,
            tally: self.pending.take(),
            may_repeat: std::mem::take(&mut self.may_repeat),
        };
        self.posting = Some(posting.clone());
        posting
    }

    /// The post is in.
    pub(crate) fn posted(&mut self, now: Timestamp) -> Option<Posting> {
        let posting = self.over_with(now)?;
        self.posts = posting.number;
        self.posted_at = Some(now);
        Some(posting)
    }

    /// The post will not be made again, whether it is in or was refused.
    pub(crate) fn over_with(&mut self, now: Timestamp) -> Option<Posting> {
        let posting = self.posting.take()?;
        self.failures = 0;
        let firing = posting.firing;
        self.told = Some(Told { at: now, firing });
        match (&mut self.flapping, posting.kind) {
            (Some(flapping), Kind::Flapping) => flapping.told = true,
            (Some(_), Kind::Settled) => {
                self.flapping = None;
                self.changes.clear();
            }
            _ => {}
        }
        Some(posting)
    }

    /// The post is not in, or nobody knows: what it told is told with the next.
    pub(crate) fn not_posted(&mut self, may_repeat: bool, max_shown: usize) {
        let Some(posting) = self.posting.take() else {
            return;
        };
        self.may_repeat |= may_repeat || posting.may_repeat;
        if let Some(mut tally) = posting.tally {
            if let Some(newer) = self.pending.take() {
                tally.add(newer, max_shown);
            }
            self.pending = Some(tally);
        }
    }

    /// When nothing new came for so long that it is over.
    ///
    /// What something will end need not say again that it goes on. It is missed only after it was
    /// repeated once, when it would be for the second time.
    pub(crate) fn fades_at(&self, route: &Route) -> Timestamp {
        let mut after = route.timing.resolve_after;
        if self.stated {
            after = after.max(route.timing.repeat.saturating_mul(2));
        }
        later(self.last, after)
    }

    /// What was noted by a clock that was ahead would hold up for as long all that follows from it.
    pub(crate) fn not_ahead(&mut self, now: Timestamp) {
        let told = self.told.iter_mut().map(|told| &mut told.at);
        let pending = self.pending.iter_mut().map(|tally| &mut tally.since);
        let times = told.chain(pending).chain(&mut self.changes);
        for time in times.chain([&mut self.last]) {
            *time = now.min(*time);
        }
    }

    /// Until when what is over is remembered: it may come again, and count as a change.
    pub(crate) fn forgotten_at(&self, route: &Route) -> Option<Timestamp> {
        let resolved = self.resolved?;
        let changed = self.changes.last().copied().unwrap_or(resolved);
        Some(later(changed, route.flap.within))
    }
}
