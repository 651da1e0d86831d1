//! One figure that grows: how fast, and when it will be where it should.

use std::time::Duration;

use bellhop_common::wire::Progress;
use jiff::Timestamp;

/// What was observed longer ago than a few of these hardly counts any more. In seconds.
const MEMORY_S: f64 = 5.0;

/// However long an interval was, what came before it keeps this share of its weight: tasks whose
/// steps take minutes are smoothed, too.
const KEPT_AT_LEAST: f64 = 0.5;

/// Less observed time than this says nothing about the rate. In seconds; a second of many small
/// intervals has decayed to this.
const SHORTEST_SPAN_S: f64 = 0.9;

/// Nor does a single change: `changes` is above this from the second one on.
const ENOUGH_CHANGES: f64 = 1.4;

/// A wait of up to so many usual intervals, and at least a second, is no stall.
const USUAL_INTERVALS: f64 = 2.0;
const SHORTEST_STALL_S: f64 = 1.0;

/// After so many times what is no stall yet, nothing moves, and nobody knows when it will end.
const STANDSTILL: f64 = 10.0;

/// While it stalls, each look is so much later than the last one.
const LOOK_AGAIN: f64 = 1.5;

/// A longer estimate is none. In seconds: 100 days.
const LONGEST_S: f64 = 100.0 * 86_400.0;

/// What is counted.
#[derive(Debug, Clone, PartialEq)]
enum Scale {
    Percent,
    Units(Option<String>),
}

/// Amounts and times of the past decay alike, so that the first seconds are as true as the later
/// ones: an average of rates would lean on the first one for long.
#[derive(Debug)]
pub(super) struct Gauge {
    scale: Scale,
    value: f64,
    goal: Option<f64>,
    /// When `value` was last seen to change.
    changed: Timestamp,
    /// How much it grew in `span`, with how many `changes`; all three with their weight.
    amount: f64,
    span: f64,
    changes: f64,
}

/// What a gauge shows. What it cannot know is absent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Reading {
    /// In units a second, to three digits; never for percents, whose unit means nothing to anyone.
    pub(super) rate: Option<f64>,
    /// Whole seconds, at least 1.
    pub(super) remaining_s: Option<u64>,
}

impl Gauge {
    /// The gauge after one more look; `None` when the progress counts nothing. One that counts
    /// something else than before starts anew.
    pub(super) fn observe(
        before: Option<Self>,
        progress: &Progress,
        now: Timestamp,
    ) -> Option<Self> {
        let (scale, value, goal) = position(progress)?;
        let mut gauge = match before {
            Some(gauge) if gauge.scale == scale => gauge,
            _ => Self {
                scale,
                value,
                goal,
                changed: now,
                amount: 0.0,
                span: 0.0,
                changes: 0.0,
            },
        };
        gauge.goal = goal;
        gauge.look(value, now);
        Some(gauge)
    }

    fn look(&mut self, value: f64, now: Timestamp) {
        let elapsed = self.waited(now);
        if elapsed < 0.0 {
            // The clock was set back: how long this took is not known, so it counts for nothing.
            (self.value, self.changed) = (value, now);
            return;
        }
        // A change within the same tick is left to be seen with the next one.
        #[expect(clippy::float_cmp, reason = "any change at all is one")]
        if elapsed == 0.0 || value == self.value {
            return;
        }
        let kept = (-elapsed / MEMORY_S).exp().max(KEPT_AT_LEAST);
        // What falls was counted again from further back. That took time, and won nothing.
        let grown = (value - self.value).max(0.0);
        self.amount = self.amount.mul_add(kept, grown);
        self.span = self.span.mul_add(kept, elapsed);
        self.changes = self.changes.mul_add(kept, 1.0);
        (self.value, self.changed) = (value, now);
    }

    pub(super) fn read(&self, now: Timestamp) -> Reading {
        let rate = self.rate(now);
        let remaining_s = match (rate, self.goal) {
            (Some(rate), Some(goal)) if rate > 0.0 && goal > self.value => {
                seconds((goal - self.value) / rate)
            }
            _ => None,
        };
        let rate = rate.filter(|_| self.scale != Scale::Percent);
        Reading {
            rate: rate.map(three_digits),
            remaining_s,
        }
    }

    pub(super) fn next_look(&self, now: Timestamp) -> Option<Duration> {
        let waited = self.waited(now).max(0.0);
        let usual = self.usual_wait();
        let moves = self.rate(now).is_some_and(|rate| rate > 0.0);
        let at = waited.max(usual) * LOOK_AGAIN;
        moves.then(|| Duration::try_from_secs_f64(at - waited).ok())?
    }

    /// Units a second. What stalls gets slower and slower, and then stands still.
    fn rate(&self, now: Timestamp) -> Option<f64> {
        if self.span < SHORTEST_SPAN_S || self.changes < ENOUGH_CHANGES {
            return None;
        }
        let (waited, usual) = (self.waited(now), self.usual_wait());
        let slowed = match waited / usual {
            times if times <= 1.0 => 1.0,
            times if times <= STANDSTILL => times.recip(),
            _ => 0.0,
        };
        Some(self.amount / self.span * slowed)
    }

    /// How long a wait is still ordinary, in seconds.
    fn usual_wait(&self) -> f64 {
        let interval = self.span / self.changes.max(1.0);
        (interval * USUAL_INTERVALS).max(SHORTEST_STALL_S)
    }

    /// Seconds since the last change; negative when the clock was set back.
    fn waited(&self, now: Timestamp) -> f64 {
        now.duration_since(self.changed).as_secs_f64()
    }
}

/// What a progress counts, how far it is, and where it ends: by its amount when it has one, else by
/// its percentage.
#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate needs no more than 52 bits"
)]
fn position(progress: &Progress) -> Option<(Scale, f64, Option<f64>)> {
    if let Some(done) = progress.done {
        let total = progress.total.map(|total| total as f64);
        return Some((Scale::Units(progress.unit.clone()), done as f64, total));
    }
    let percent = progress.percent.filter(|percent| percent.is_finite())?;
    Some((Scale::Percent, percent.clamp(0.0, 100.0), Some(100.0)))
}

fn three_digits(rate: f64) -> f64 {
    // Zero has no magnitude, and what is this small rounds to it.
    if rate < 1e-9 {
        return 0.0;
    }
    let scale = 10_f64.powf(2.0 - rate.log10().floor());
    let rounded = (rate * scale).round() / scale;
    if rounded.is_finite() { rounded } else { rate }
}

/// Never zero while something is left.
fn seconds(estimate: f64) -> Option<u64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and LONGEST_S"
    )]
    (estimate <= LONGEST_S).then(|| estimate.round().max(1.0) as u64)
}
