//! Between a handler and the visit that runs it: what the handler says, and the wish that it ends.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bellhop_common::wire::Progress;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::log_buffer::{Batch, LogBuffer};

/// One for each job in hand. Small until something is said, because most handlers say nothing most
/// of the time, and ten thousand of them may wait at once.
#[derive(Debug, Default)]
pub(crate) struct Link {
    state: Mutex<State>,
    /// Has a permit when there is something to look at.
    news: Notify,
    /// The handler's signal. A handler may fire it itself, which is nobody's wish.
    signal: CancellationToken,
    /// Outside a worker: whoever looks at the progress.
    watcher: Option<watch::Sender<Option<Progress>>>,
}

#[derive(Debug, Default)]
struct State {
    /// The newest.
    progress: Option<Box<Progress>>,
    /// The progress was not heard yet.
    progressed: bool,
    lines: Option<Box<LogBuffer>>,
    /// The job's owner wishes that it ends.
    cancelled: bool,
}

impl Link {
    /// Outside a worker, for tests of a handler.
    pub(crate) fn detached() -> (Self, watch::Receiver<Option<Progress>>) {
        let (watcher, seen) = watch::channel(None);
        let link = Self {
            watcher: Some(watcher),
            ..Self::default()
        };
        (link, seen)
    }

    pub(crate) fn say(&self, progress: Progress) {
        if let Some(watcher) = &self.watcher {
            watcher.send_replace(Some(progress));
            return;
        }
        let mut state = self.lock();
        match &mut state.progress {
            Some(last) => **last = progress,
            none => *none = Some(Box::new(progress)),
        }
        state.progressed = true;
        drop(state);
        self.wake();
    }

    /// The newest progress, and that it was heard.
    pub(crate) fn hear(&self) -> Option<Progress> {
        let mut state = self.lock();
        state.progressed = false;
        state.progress.as_deref().cloned()
    }

    /// Whether there is a progress that was not heard yet.
    pub(crate) fn has_progressed(&self) -> bool {
        self.lock().progressed
    }

    /// How far it is, as far as it says.
    pub(crate) fn percent(&self) -> Option<f64> {
        self.lock().progress.as_deref()?.percent
    }

    pub(crate) fn log(&self, text: &str, now: Timestamp) {
        self.lock().lines.get_or_insert_default().push(text, now);
        self.wake();
    }

    /// Whether there may be lines.
    pub(crate) fn has_lines(&self) -> bool {
        self.lock().lines.is_some()
    }

    /// The lines since the last time.
    pub(crate) fn take_lines(&self) -> Option<Batch> {
        self.lock().lines.take()?.take()
    }

    /// The lines that wait.
    pub(crate) fn waiting_lines(&self) -> Vec<String> {
        let state = self.lock();
        let lines = state.lines.iter().flat_map(|lines| lines.texts());
        lines.map(str::to_owned).collect()
    }

    /// The job's owner wishes that it ends.
    pub(crate) fn cancel(&self) {
        self.lock().cancelled = true;
        self.signal.cancel();
        self.wake();
    }

    /// Whether the job's owner wishes that it ends.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Waits until the job's owner wishes that it ends. One at a time may wait, here or for
    /// [`news`](Self::news).
    pub(crate) async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.news().await;
        }
    }

    /// The handler's signal.
    pub(crate) fn signal(&self) -> &CancellationToken {
        &self.signal
    }

    /// Makes whoever waits look again.
    pub(crate) fn wake(&self) {
        self.news.notify_one();
    }

    /// Waits until there may be something to look at.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn the_newest_progress_is_heard_once() {
        let link = Link::default();
        assert_eq!(link.news().now_or_never(), None);
        link.say(Progress::of(1, 4, "bytes"));
        link.say(Progress::of(2, 4, "bytes"));
        assert_eq!(link.news().now_or_never(), Some(()));
        assert!(link.has_progressed());
        assert_eq!(link.hear(), Some(Progress::of(2, 4, "bytes")));
        assert!(!link.has_progressed());
        assert_eq!(link.percent(), Some(50.0));
        assert_eq!(link.news().now_or_never(), None);
    }

    #[test]
    fn lines_are_taken_once() {
        let link = Link::default();
        assert!(!link.has_lines());
        link.log("one\ntwo", "2026-01-15T10:30:00Z".parse().unwrap());
        assert_eq!(link.news().now_or_never(), Some(()));
        assert_eq!(link.waiting_lines(), ["one", "two"]);
        assert_eq!(link.take_lines().unwrap().lines.len(), 2);
        assert!(!link.has_lines() && link.take_lines().is_none());
    }

    #[test]
    fn only_the_owner_cancels() {
        let link = Link::default();
        link.signal().cancel();
        assert_eq!(link.cancelled().now_or_never(), None);
        link.cancel();
        assert_eq!(link.cancelled().now_or_never(), Some(()));
    }
}
