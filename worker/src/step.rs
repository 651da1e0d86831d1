//! Steps of a job, and steps of steps: progress that is reported from within.

use std::sync::Arc;

use bellhop_common::wire::{Progress, Step};

use crate::link::Link;

/// One step of a job, as [`TaskContext::step`](crate::TaskContext::step) begins it. Cheap to clone.
///
/// ```
/// # let (ctx, seen) = bellhop_worker::TaskContext::detached();
/// use bellhop_common::wire::Progress;
///
/// ctx.step("Download", 1, 2).progress(Progress::of(3, 4, "files"));
/// let pack = ctx.step("Pack", 2, 2);
/// for part in 1..=3 {
///     let part = pack.step(format!("Part {part}"), part, 3);
///     part.progress(Progress::of(1, 2, "pages"));
/// }
/// # let inner = seen.borrow().clone().unwrap().step.unwrap().progress.step.unwrap();
/// # assert_eq!((inner.index, inner.progress.percent), (3, Some(50.0)));
/// ```
#[derive(Debug, Clone)]
pub struct StepContext {
    link: Arc<Link>,
    place: Arc<Place>,
}

/// Which step it is, and of what.
#[derive(Debug)]
struct Place {
    name: String,
    index: u32,
    count: u32,
    above: Option<Arc<Place>>,
}

impl StepContext {
    pub(crate) fn begin(
        link: Arc<Link>,
        above: Option<&Self>,
        name: String,
        index: u32,
        count: u32,
    ) -> Self {
        let place = Place {
            name,
            index,
            count,
            above: above.map(|above| Arc::clone(&above.place)),
        };
        let step = Self {
            link,
            place: Arc::new(place),
        };
        step.progress(Progress::default());
        step
    }

    /// Says how far the step is. As cheap as [`TaskContext::progress`](crate::TaskContext::progress).
    pub fn progress(&self, progress: Progress) {
        let mut whole = progress;
        let mut place = Some(&self.place);
        while let Some(at) = place {
            whole = Progress {
                step: Some(Box::new(Step {
                    name: at.name.clone(),
                    index: at.index,
                    count: at.count,
                    progress: whole,
                })),
                ..Progress::default()
            };
            place = at.above.as_ref();
        }
        self.link.say(whole);
    }

    /// Begins a step of this step, the `index`th (from 1) of `count`, and says so. Four levels are
    /// shown.
    #[must_use]
    pub fn step(&self, name: impl Into<String>, index: u32, count: u32) -> Self {
        Self::begin(
            Arc::clone(&self.link),
            Some(self),
            name.into(),
            index,
            count,
        )
    }
}
