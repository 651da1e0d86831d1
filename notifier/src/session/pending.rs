//! What a connection waits for: the backend's word, or the store's.

use std::collections::VecDeque;
use std::pin::Pin;

use serde_json::Value;
use tokio::time::Instant;

use super::Session;
use crate::access::{Moment, Unavailable};
use crate::outbox::Next;
use crate::protocol::{Frame, Place};
use crate::store::{Position, StoreError, StreamName};
use crate::streams::opening::{Joined, Opened};

/// A question, while there is no answer.
pub(super) struct Pending {
    /// Nothing of the outbox is written meanwhile: what the answer brings comes first.
    holds: bool,
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

/// What became of a stream that a client resumes; `None` if not all that it missed is there.
pub(super) type Resumed = Vec<(StreamName, Position, Option<Vec<Frame>>)>;

/// An answer.
pub(super) enum Outcome {
    /// The backend says whether the client may enter.
    MayEnter {
        place: Place,
        id: Option<Value>,
        since: Option<Position>,
        asked: Moment,
        answer: Result<bool, Unavailable>,
    },
    /// What the connection begins with.
    Opened {
        opened: Result<Opened, StoreError>,
        /// The client said where it was.
        resumes: bool,
        /// How far its user's stream and everybody's had been shown here when it came.
        shown: (Option<Position>, Option<Position>),
    },
    /// The backend says where the client may not stay.
    NotGranted(Vec<Place>),
    /// The stream of a room or chat that it has entered.
    Entered {
        place: Place,
        id: Option<Value>,
        joined: Result<Joined, StoreError>,
    },
    /// What it asked for again.
    Resumed {
        id: Option<Value>,
        resumed: Result<Resumed, StoreError>,
    },
    /// It has read something; how many are not read now.
    Marked {
        id: Option<Value>,
        unread: Result<u64, String>,
    },
}

/// The answer; never without a question.
pub(super) async fn outcome(pending: &mut Option<Box<Pending>>) -> Outcome {
    match pending {
        Some(pending) => pending.outcome.as_mut().await,
        None => std::future::pending().await,
    }
}

impl Session {
    /// Asks, and goes on.
    pub(super) fn ask(&mut self, question: impl Future<Output = Outcome> + Send + 'static) {
        self.wait_for(false, question);
    }

    /// Asks, and writes nothing before the answer but what waits already.
    pub(super) fn ask_first(&mut self, question: impl Future<Output = Outcome> + Send + 'static) {
        let waiting = self.outbox.take_waiting();
        self.lead.extend(waiting);
        self.wait_for(true, question);
    }

    fn wait_for(&mut self, holds: bool, question: impl Future<Output = Outcome> + Send + 'static) {
        let outcome = Box::pin(question);
        self.pending = Some(Box::new(Pending { holds, outcome }));
    }

    /// Whether nothing of the outbox is to be written yet.
    pub(super) fn is_held(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.holds)
    }

    /// What is to be written before the outbox, once that is complete.
    pub(super) fn take_lead(&mut self) -> Option<Next> {
        if self.lead.is_empty() || self.is_held() {
            return None;
        }
        let lead: VecDeque<_> = std::mem::take(&mut self.lead);
        Some(Next::Write(lead))
    }

    /// The answer is there.
    pub(super) fn learn(&mut self, outcome: Outcome) {
        self.pending = None;
        // Nothing was read meanwhile, so the client could give no sign.
        self.heartbeat.sign_of_life(Instant::now());
        match outcome {
            Outcome::MayEnter {
                place,
                id,
                since,
                asked,
                answer,
            } => self.may_enter(place, id.as_ref(), since, asked, answer),
            Outcome::Opened {
                opened,
                resumes,
                shown,
            } => self.opened(opened, resumes, shown),
            Outcome::NotGranted(places) => self.put_out(places),
            Outcome::Entered { place, id, joined } => self.entered(&place, id.as_ref(), joined),
            Outcome::Resumed { id, resumed } => self.resumed(id.as_ref(), resumed),
            Outcome::Marked { id, unread } => self.marked(id.as_ref(), unread),
        }
        self.go_where_wanted();
    }
}
