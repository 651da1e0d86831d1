//! A connection that only reads: Server-Sent Events. Logged in, in rooms and revoked like any other.

use std::collections::VecDeque;
use std::sync::Arc;

use bellhop_common::http::Endless;
use bytes::Bytes;
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::{Arrival, End, Session, rooms};
use crate::gateway::Gateway;
use crate::metric;
use crate::outbox::Next;
use crate::protocol::close::{self, Close};
use crate::protocol::{self, Frame, event_stream};

/// What is written together, in bytes, give or take a frame.
const TOGETHER: usize = 16 * 1024;

/// How long a client waits before it comes back by itself.
const RETRY: Duration = Duration::from_secs(3);

/// The same after a close that says not to: what comes back by itself knows nothing of codes, and
/// two connections that replace each other would do so for ever.
const RETRY_IN_VAIN: Duration = Duration::from_hours(1);

/// The way to a client.
#[derive(Debug)]
pub(crate) struct Line {
    /// Read by the HTTP connection, one chunk ahead: what a slow client does not take waits in the
    /// outbox, where it is bounded. Closed when the client is gone.
    chunks: mpsc::Sender<Bytes>,
    _answer: Endless,
}

impl Line {
    /// The way to a client, and what it reads.
    pub(crate) fn new(answer: Endless) -> (Self, mpsc::Receiver<Bytes>) {
        let (chunks, body) = mpsc::channel(1);
        let line = Self {
            chunks,
            _answer: answer,
        };
        (line, body)
    }

    async fn send(&self, chunk: Vec<u8>, write_wait: Duration) -> Option<End> {
        match timeout(write_wait, self.chunks.send(chunk.into())).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(End::Left),
            Err(_) => Some(End::Close(close::SLOW_CONSUMER)),
        }
    }
}

/// Serves a client that is known to its end. `resumes`: it says that it was here before.
pub(crate) fn serve(
    gateway: Arc<Gateway>,
    line: Line,
    arrival: Arrival,
    resumes: bool,
) -> impl Future<Output = ()> + Send {
    gauge!(metric::EVENT_STREAMS).increment(1.0);
    let (mut session, refused) = Session::begin(gateway, arrival);
    async move {
        let end = match refused {
            Some(end) => end,
            None => session.tell(&line, resumes).await,
        };
        session.go();
        if let End::Close(close) = end {
            counter!(metric::CLOSES, "reason" => close.reason).increment(1);
            // Whether they arrive or not, this is the end.
            line.send(last_words(close), session.write_wait()).await;
        }
        gauge!(metric::EVENT_STREAMS).decrement(1.0);
    }
}

impl Session {
    async fn tell(&mut self, line: &Line, resumes: bool) -> End {
        let outbox = Arc::clone(&self.outbox);
        let mut after_first = resumes.then(|| protocol::not_recovered(None));
        let mut timer = std::pin::pin!(sleep_until(self.heartbeat.wake_at()));
        let mut first = Vec::new();
        event_stream::write_retry(RETRY, &mut first);
        let mut end = line.send(first, self.write_wait()).await;
        loop {
            if let Some(end) = end {
                return end;
            }
            end = tokio::select! {
                () = line.chunks.closed() => Some(End::Left),
                next = outbox.next() => self.pass_on(line, next, &mut after_first).await,
                answer = rooms::answer(&mut self.asking), if self.asking.is_some() => {
                    self.answered(answer);
                    None
                }
                () = timer.as_mut() => {
                    let end = self.beat_for(line).await;
                    timer.as_mut().reset(self.heartbeat.wake_at());
                    end
                }
            };
        }
    }

    async fn beat_for(&mut self, line: &Line) -> Option<End> {
        match self.on_time() {
            Ok(true) => {
                let end = line
                    .send(event_stream::HEARTBEAT.into(), self.write_wait())
                    .await;
                // A client that takes what is written is all that can be seen of it.
                self.heartbeat.sign_of_life(Instant::now());
                end
            }
            Ok(false) => None,
            Err(end) => Some(end),
        }
    }

    async fn pass_on(
        &mut self,
        line: &Line,
        next: Next,
        after_first: &mut Option<Frame>,
    ) -> Option<End> {
        let (mut frames, close) = match next {
            Next::Write(frames) => (frames, None),
            Next::Close(frames, close) => (frames, Some(close)),
            Next::Review => return self.review(),
        };
        counter!(metric::FRAMES_SENT).increment(frames.len() as u64);
        while !frames.is_empty() {
            let chunk = chunk(&mut frames, after_first);
            let end = line.send(chunk, self.write_wait()).await;
            if end.is_some() {
                return end;
            }
        }
        close.map(End::Close)
    }
}

/// Takes what goes out together, and puts what is to come after the very first frame there.
fn chunk(frames: &mut VecDeque<Frame>, after_first: &mut Option<Frame>) -> Vec<u8> {
    let mut chunk = Vec::new();
    while chunk.len() < TOGETHER
        && let Some(frame) = frames.pop_front()
    {
        event_stream::write(&frame, &mut chunk);
        if let Some(second) = after_first.take() {
            event_stream::write(&second, &mut chunk);
        }
    }
    chunk
}

fn last_words(close: Close) -> Vec<u8> {
    let mut chunk = Vec::new();
    if !close.is_come_back() {
        event_stream::write_retry(RETRY_IN_VAIN, &mut chunk);
    }
    event_stream::write(&protocol::closed(close), &mut chunk);
    chunk
}
