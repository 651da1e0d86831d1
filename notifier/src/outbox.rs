//! What waits to be written to one connection: bounded in bytes, progress conflated.
//!
//! Whoever delivers pushes and goes on; the connection's own task takes what is waiting and writes
//! it together. A slow client therefore never delays another.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use uuid::Uuid;

use crate::protocol::Frame;
use crate::protocol::close::{Close, SLOW_CONSUMER};

/// A waiting frame's own cost, besides its text.
const FRAME_OVERHEAD: usize = size_of::<Frame>();

/// The queue between the hub and one connection.
#[derive(Debug)]
pub struct Outbox {
    /// The connection's id.
    pub id: Uuid,
    limit: usize,
    /// Of the login's token, see [`mark_of`]; 0 for none.
    token: AtomicU64,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    bytes: usize,
    close: Option<Close>,
    review: bool,
    /// The connection's task, while it waits. Under the same lock as what it waits for, so that a
    /// push costs one lock and wakes nobody who is awake.
    waker: Option<Waker>,
}

/// What to do next for a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Write these.
    Write(VecDeque<Frame>),
    /// Write these, then close.
    Close(VecDeque<Frame>, Close),
    /// See whether the login still holds.
    Review,
}

impl Outbox {
    /// An empty outbox that holds at most `limit` bytes.
    #[must_use]
    pub fn new(id: Uuid, limit: usize) -> Arc<Self> {
        Arc::new(Self {
            id,
            limit,
            token: AtomicU64::new(0),
            waiting: Mutex::default(),
        })
    }

    /// Says which token the connection logged in with.
    pub fn set_token(&self, token_id: Option<&str>) {
        self.token
            .store(token_id.map_or(0, mark_of), Ordering::Relaxed);
    }

    /// Whether the connection may have logged in with this token; nearly never wrongly.
    #[must_use]
    pub fn may_have(&self, token: u64) -> bool {
        self.token.load(Ordering::Relaxed) == token
    }

    /// Adds a frame. A waiting frame of the same subject is replaced where it stands. When the
    /// limit is passed, unless by one frame alone, what waits is dropped and the connection closed as a slow consumer: it
    /// comes back for what it missed rather than miss something unseen.
    pub fn push(&self, frame: Frame) {
        let mut waiting = self.lock();
        if waiting.close.is_some() {
            return;
        }
        waiting.bytes += cost(&frame);
        match waiting.find(&frame) {
            Some(index) => {
                if let Some(old) = waiting.frames.get_mut(index) {
                    let freed = cost(old);
                    *old = frame;
                    waiting.bytes -= freed;
                }
            }
            None => waiting.frames.push_back(frame),
        }
        if waiting.bytes > self.limit && waiting.frames.len() > 1 {
            waiting.frames = VecDeque::new();
            waiting.close = Some(SLOW_CONSUMER);
        }
        wake(waiting);
    }

    /// Takes what waits, without waiting for more.
    #[must_use]
    pub fn take_waiting(&self) -> VecDeque<Frame> {
        let mut waiting = self.lock();
        waiting.bytes = 0;
        std::mem::take(&mut waiting.frames)
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().frames.is_empty()
    }

    /// Closes the connection after what waits has been written. The first reason stays.
    pub fn close(&self, close: Close) {
        let mut waiting = self.lock();
        waiting.close.get_or_insert(close);
        wake(waiting);
    }

    /// Has the connection see whether its login still holds.
    pub fn review(&self) {
        let mut waiting = self.lock();
        waiting.review = true;
        wake(waiting);
    }

    /// Waits until there is something to do. Cancel safe. For one waiter: the connection's task.
    pub async fn next(&self) -> Next {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// What there is to do, or a wake-up later.
    pub fn poll_next(&self, context: &mut Context<'_>) -> Poll<Next> {
        let mut waiting = self.lock();
        match waiting.take() {
            Some(next) => Poll::Ready(next),
            None => waiting.wake_later(context),
        }
    }

    /// Waits as [`next`](Self::next) does, and takes nothing.
    pub async fn filled(&self) {
        let poll = |context: &mut Context<'_>| {
            let mut waiting = self.lock();
            if waiting.is_filled() {
                return Poll::Ready(());
            }
            waiting.wake_later(context)
        };
        poll_fn(poll).await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token's id in 8 bytes, for every connection to keep.
#[must_use]
pub fn mark_of(token_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    token_id.hash(&mut hasher);
    hasher.finish()
}

/// Wakes the connection's task after the lock is released, or it would run into it.
fn wake(mut waiting: MutexGuard<'_, Waiting>) {
    let waker = waiting.waker.take();
    drop(waiting);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Waiting {
    fn is_filled(&self) -> bool {
        self.review || self.close.is_some() || !self.frames.is_empty()
    }

    fn wake_later<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    fn take(&mut self) -> Option<Next> {
        if std::mem::take(&mut self.review) {
            return Some(Next::Review);
        }
        self.bytes = 0;
        let frames = std::mem::take(&mut self.frames);
        match self.close {
            Some(close) => Some(Next::Close(frames, close)),
            None if frames.is_empty() => None,
            None => Some(Next::Write(frames)),
        }
    }

    fn find(&self, frame: &Frame) -> Option<usize> {
        let subject = frame.subject.as_ref()?;
        self.frames
            .iter()
            .rposition(|old| old.subject.as_ref() == Some(subject))
    }
}

fn cost(frame: &Frame) -> usize {
    frame.wire().len() + FRAME_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::close::{REPLACED, RESTART};
    use futures_util::FutureExt as _;

    fn frame(text: &str, subject: Option<&str>) -> Frame {
        let mut frame = Frame::new(text);
        frame.subject = subject.map(Into::into);
        frame
    }

    fn outbox(limit: usize) -> Arc<Outbox> {
        Outbox::new(Uuid::nil(), limit)
    }

    fn texts(next: Option<Next>) -> Vec<String> {
        let Some(Next::Write(frames) | Next::Close(frames, _)) = next else {
            return Vec::new();
        };
        frames.iter().map(|frame| frame.text().to_owned()).collect()
    }

    #[test]
    fn the_newest_progress_of_a_task_takes_the_place_of_an_older() {
        let outbox = outbox(10_000);
        outbox.push(frame("a1", Some("a")));
        outbox.push(frame("b1", Some("b")));
        outbox.push(frame("end of b", None));
        outbox.push(frame("a2", Some("a")));
        assert_eq!(
            texts(outbox.next().now_or_never()),
            ["a2", "b1", "end of b"]
        );
        outbox.push(frame("a3", Some("a")));
        assert_eq!(
            texts(outbox.next().now_or_never()),
            ["a3"],
            "written ones are gone"
        );
        assert_eq!(outbox.next().now_or_never(), None);
    }

    #[test]
    fn progress_alone_never_fills_the_queue_but_other_frames_do() {
        let outbox = outbox(1000);
        for n in 0..100_000 {
            outbox.push(frame(&n.to_string(), Some("a")));
        }
        assert_eq!(texts(outbox.next().now_or_never()), ["99999"]);
        for n in 0..100 {
            outbox.push(frame(&n.to_string(), None));
        }
        let next = outbox.next().now_or_never();
        assert_eq!(next, Some(Next::Close(VecDeque::new(), SLOW_CONSUMER)));
    }

    #[test]
    fn what_waits_is_written_before_the_close_and_the_first_reason_stays() {
        let outbox = outbox(1000);
        outbox.push(frame("last words", None));
        outbox.close(REPLACED);
        outbox.close(RESTART);
        outbox.push(frame("too late", None));
        let next = outbox.next().now_or_never();
        assert!(matches!(next, Some(Next::Close(_, REPLACED))), "{next:?}");
        assert_eq!(texts(next), ["last words"]);
    }

    #[test]
    fn one_large_frame_alone_is_not_too_much() {
        let outbox = outbox(1000);
        let large = "x".repeat(5000);
        outbox.push(frame(&large, None));
        assert_eq!(texts(outbox.next().now_or_never()), [large.as_str()]);
        outbox.push(frame(&large, None));
        outbox.push(frame("one more", None));
        let next = outbox.next().now_or_never();
        assert_eq!(next, Some(Next::Close(VecDeque::new(), SLOW_CONSUMER)));
    }

    /// A wake-up that is lost leaves the reader waiting for ever, with everything pushed.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_push_of_several_threads_is_lost_or_forgotten() {
        const EACH: usize = 20_000;
        let outbox = outbox(usize::MAX);
        let reader = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move {
                let mut last = [None; 2];
                while last != [Some(EACH - 1); 2] {
                    outbox.filled().await;
                    for text in texts(Some(outbox.next().await)) {
                        let (thread, n) = text.split_once(' ').unwrap();
                        let last = &mut last[thread.parse::<usize>().unwrap()];
                        let n = n.parse::<usize>().unwrap();
                        assert_eq!(n, last.map_or(0, |last: usize| last + 1));
                        *last = Some(n);
                    }
                }
            }
        });
        std::thread::scope(|scope| {
            for thread in 0..2 {
                let outbox = &outbox;
                scope.spawn(move || {
                    for n in 0..EACH {
                        outbox.push(frame(&format!("{thread} {n}"), None));
                    }
                });
            }
        });
        let limit = std::time::Duration::from_mins(1);
        tokio::time::timeout(limit, reader).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_push_wakes_the_one_who_waits() {
        let outbox = outbox(1000);
        let waiter = tokio::spawn({
            let outbox = Arc::clone(&outbox);
            async move { texts(Some(outbox.next().await)) }
        });
        tokio::task::yield_now().await;
        outbox.push(frame("hello", None));
        assert_eq!(waiter.await.unwrap(), ["hello"]);
    }
}
