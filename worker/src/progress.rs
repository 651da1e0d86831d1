//! Rate and time left, from the progress that one attempt reports. Pure: the time is an argument.

mod gauge;

use std::time::Duration;

use bellhop_common::wire::{Progress, Step};
use jiff::Timestamp;

use gauge::{Gauge, Reading};

/// Steps below these are not told, so they are not measured either.
const MAX_LEVELS: usize = 5;

/// Watches the progress of one attempt: of the whole, and of each step within a step.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// The whole first, then the step that is being done, then the step in it.
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    /// Which step this is; another step's figures say nothing about this one.
    step: Option<(String, u32)>,
    gauge: Option<Gauge>,
}

impl Meter {
    /// The progress as its owner is told it: [tidied](Progress::tidied), with rate and time left
    /// wherever they can be known and the handler said none. The same progress may be measured
    /// again later, which shows a stall.
    pub(crate) fn measure(&mut self, progress: Progress, now: Timestamp) -> Progress {
        self.measure_level(0, None, progress, now).tidied()
    }

    /// In how long [`Meter::measure`] answers something else although the progress stays as it is;
    /// `None` when it will not. The waits grow, so that a stall costs a handful of events.
    pub(crate) fn next_look(&self, now: Timestamp) -> Option<Duration> {
        let gauges = self.levels.iter().filter_map(|level| level.gauge.as_ref());
        gauges.filter_map(|gauge| gauge.next_look(now)).min()
    }

    fn measure_level(
        &mut self,
        depth: usize,
        which: Option<(&str, u32)>,
        mut progress: Progress,
        now: Timestamp,
    ) -> Progress {
        let reading = self
            .level(depth, which)
            .and_then(|level| level.observe(&progress, now));
        let below = depth.saturating_add(1);
        if let Some(step) = progress.step.as_deref_mut().filter(|_| below < MAX_LEVELS) {
            let inner = std::mem::take(&mut step.progress);
            let which = Some((step.name.as_str(), step.index));
            step.progress = self.measure_level(below, which, inner, now);
        } else {
            self.levels.truncate(below);
        }
        let reading = reading.unwrap_or_else(|| Reading {
            rate: None,
            // Steps are rarely alike, so a percentage that counts them tells no time. Only the end
            // of the last one is the end of the whole.
            remaining_s: progress.step.as_deref().and_then(end_of_last_step),
        });
        progress.rate = progress.rate.or(reading.rate);
        progress.remaining_s = progress.remaining_s.or(reading.remaining_s);
        progress
    }

    /// The level of that step, which is a new one unless it is the step that was there before.
    fn level(&mut self, depth: usize, which: Option<(&str, u32)>) -> Option<&mut Level> {
        let same = |level: &Level| {
            let step = level.step.as_ref();
            step.map(|(name, index)| (name.as_str(), *index)) == which
        };
        if !self.levels.get(depth).is_some_and(same) {
            self.levels.truncate(depth);
            self.levels.push(Level {
                step: which.map(|(name, index)| (name.to_owned(), index)),
                gauge: None,
            });
        }
        self.levels.get_mut(depth)
    }
}

impl Level {
    fn observe(&mut self, progress: &Progress, now: Timestamp) -> Option<Reading> {
        self.gauge = Gauge::observe(self.gauge.take(), progress, now);
        self.gauge.as_ref().map(|gauge| gauge.read(now))
    }
}

fn end_of_last_step(step: &Step) -> Option<u64> {
    let remaining_s = step.progress.remaining_s;
    remaining_s.filter(|_| step.count > 0 && step.index == step.count)
}

#[cfg(test)]
mod tests;
