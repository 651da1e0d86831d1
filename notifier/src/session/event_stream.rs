//! A connection that only reads: Server-Sent Events. Logged in, in rooms and revoked like any other.

use std::collections::VecDeque;
use std::sync::Arc;

use bellhop_common::http::Endless;
use bytes::Bytes;
use metrics::{counter, gauge};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout};

use super::{Arrival, End, Session, pending};
use crate::gateway::Gateway;
use crate::metric;
use crate::outbox::Next;
use crate::protocol::close::{self, Close};
use crate::protocol::{self, At, Frame, event_stream};
use crate::store::StreamName;

/// What is written together, in bytes, give or take a frame.
const TOGETHER: usize = 16 * 1024;

/// The id where nothing is kept: who gives it back has been here before.
const NOWHERE: &str = "-";

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
            Ok(Err(_)) => Some(End::Gone),
            Err(_) => Some(End::Close(close::SLOW_CONSUMER)),
        }
    }
}

/// Serves a client that is known to its end.
pub(crate) fn serve(
    gateway: Arc<Gateway>,
    line: Line,
    arrival: Arrival,
) -> impl Future<Output = ()> + Send {
    gauge!(metric::EVENT_STREAMS).increment(1.0);
    let (mut session, refused) = Session::begin(gateway, arrival);
    session.begin_id();
    async move {
        let end = match refused {
            Some(end) => end,
            None => session.tell(&line).await,
        };
        // Nobody has said that anything arrived. A client that has it gives its id back.
        session.go(false);
        if let End::Close(close) = end {
            counter!(metric::CLOSES, "reason" => close.reason).increment(1);
            // Whether they arrive or not, this is the end.
            line.send(last_words(close), session.write_wait()).await;
        }
        gauge!(metric::EVENT_STREAMS).decrement(1.0);
    }
}

impl Session {
    async fn tell(&mut self, line: &Line) -> End {
        let outbox = Arc::clone(&self.outbox);
        let mut is_first = true;
        let mut timer = std::pin::pin!(sleep_until(self.heartbeat.wake_at()));
        let mut first = Vec::new();
        event_stream::write_retry(RETRY, &mut first);
        let mut end = line.send(first, self.write_wait()).await;
        loop {
            if let Some(end) = end {
                return end;
            }
            if let Some(lead) = self.take_lead() {
                end = self.pass_on(line, lead, &mut is_first).await;
                continue;
            }
            end = tokio::select! {
                () = line.chunks.closed() => Some(End::Gone),
                next = outbox.next(), if !self.is_held() => {
                    self.pass_on(line, next, &mut is_first).await
                }
                outcome = pending::outcome(&mut self.pending), if self.pending.is_some() => {
                    self.learn(outcome);
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
                // A client that takes what is written is all that can be seen of it. It may be a
                // proxy, or the system: that proves nothing of what was written before.
                self.heartbeat.sign_of_life(Instant::now());
                end
            }
            Ok(false) => None,
            Err(end) => Some(end),
        }
    }

    async fn pass_on(&mut self, line: &Line, next: Next, is_first: &mut bool) -> Option<End> {
        let (mut frames, close) = match next {
            Next::Write(frames) => (frames, None),
            Next::Close(frames, close) => (frames, Some(close)),
            Next::Review => return self.review(),
        };
        self.leave_out_what_was_seen(&mut frames);
        counter!(metric::FRAMES_SENT).increment(frames.len() as u64);
        let written = self.last_of_own(&frames);
        while !frames.is_empty() {
            let chunk = self.chunk(&mut frames, is_first);
            let end = line.send(chunk, self.write_wait()).await;
            if end.is_some() {
                return end;
            }
        }
        self.wrote(written);
        close.map(End::Close)
    }

    /// The id begins with what the client said. Rooms that the address does not name are left out:
    /// there is no other way in, and an id would grow with every room that the client was ever in.
    fn begin_id(&mut self) {
        let Some(login) = &mut self.login else { return };
        let wanted: Vec<_> = self.wanted.iter().map(StreamName::place).collect();
        let mut shown = login.since.clone();
        shown
            .retain(|name| name.owner().is_some() || name.is_everybodys() || wanted.contains(name));
        login.shown = Some(shown);
    }

    /// Takes what goes out together. The id of a frame is where the client is in all its streams
    /// once it has read it, because that is the only thing it gives back.
    fn chunk(&mut self, frames: &mut VecDeque<Frame>, is_first: &mut bool) -> Vec<u8> {
        let mut chunk = Vec::new();
        while chunk.len() < TOGETHER
            && let Some(frame) = frames.pop_front()
        {
            let id = self.id_of(&frame, std::mem::take(is_first));
            event_stream::write(&frame, id.as_deref(), &mut chunk);
        }
        chunk
    }

    fn id_of(&mut self, frame: &Frame, is_first: bool) -> Option<String> {
        let shown = self.login.as_mut()?.shown.as_mut()?;
        match frame.at.as_deref() {
            Some(At::Event(name, position)) => shown.set(name, *position),
            Some(At::GoOn(streams)) => {
                for (name, position) in streams {
                    shown.set(name, *position);
                }
            }
            None if is_first => {}
            None => return None,
        }
        if shown.is_empty() {
            return Some(NOWHERE.to_owned());
        }
        Some(shown.text())
    }
}

fn last_words(close: Close) -> Vec<u8> {
    let mut chunk = Vec::new();
    if !close.is_come_back() {
        event_stream::write_retry(RETRY_IN_VAIN, &mut chunk);
    }
    event_stream::write(&protocol::closed(close), None, &mut chunk);
    chunk
}
