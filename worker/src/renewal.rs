//! Jobs that run longer than RabbitMQ waits for an acknowledgement.
//!
//! A broker takes a message back that is not acknowledged within its `consumer_timeout`, and all
//! others of the channel with it. So a long attempt trades its message in time: a copy goes into the
//! delay ladder, to arrive when the attempt must be over, and the original is acknowledged. If the
//! worker dies, the copy is the job; if the attempt ends, the copy is spent.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bellhop_common::wire::Order;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::in_hand::Held;
use crate::message::{Again, JobMessage, later};
use crate::service::Service;
use crate::settle::{acknowledge, order, place};

/// After the longest time that the attempt and its end can take.
const MARGIN: Duration = Duration::from_mins(2);

/// How far a renewal is; 0 at first.
const BEGUN: u8 = 1;
const DONE: u8 = 2;

/// The renewal of one attempt's message.
#[derive(Debug)]
pub(crate) struct Renewal {
    state: AtomicU8,
    /// When the attempt began.
    began: Timestamp,
}

impl Renewal {
    pub(crate) fn new(began: Timestamp) -> Self {
        Self {
            state: AtomicU8::new(0),
            began,
        }
    }

    /// When the message is to be traded; `None` once that was begun.
    pub(crate) fn due(&self, service: &Service, held: &Held) -> Option<Instant> {
        let received = || held.received() + patience(service);
        (self.state.load(Ordering::SeqCst) == 0).then(received)
    }

    /// Trades the message of an attempt that may take `limit`.
    pub(crate) fn begin<'a>(
        &'a self,
        service: &'a Service,
        message: &'a JobMessage,
        limit: Duration,
    ) -> BoxFuture<'a, ()> {
        self.state.store(BEGUN, Ordering::SeqCst);
        Box::pin(self.replace(service, message, limit, self.began))
    }

    /// Brings a renewal to its end that was given up half-way, because the attempt ended meanwhile:
    /// the copy may be at the broker. Whether there is one.
    pub(crate) async fn finish(&self, service: &Service, message: &JobMessage) -> bool {
        if self.state.load(Ordering::SeqCst) == BEGUN {
            let now = Timestamp::now();
            Box::pin(self.replace(service, message, Duration::ZERO, now)).await;
        }
        self.state.load(Ordering::SeqCst) == DONE
    }

    async fn replace(
        &self,
        service: &Service,
        message: &JobMessage,
        limit: Duration,
        began: Timestamp,
    ) {
        let id = &message.job.id;
        warn!(
            task_id = id,
            patience = ?patience(service),
            "the job has taken 80 % of the broker's patience (jobs.ack_timeout); its message is renewed"
        );
        let grace = service.config.jobs.grace.0;
        let over = limit.saturating_add(grace).saturating_add(MARGIN);
        let again = Again {
            due: later(began, over),
            attempt: message.attempt(),
            deferrals: 0,
            alone: message.is_alone(),
            once: true,
        };
        if matches!(place(service, message, &again).await, Ok(Ok(()))) {
            // Before the acknowledgement: from here on the copy is this run's message.
            self.state.store(DONE, Ordering::SeqCst);
            if let Some(receipt) = service.in_hand.renewed(message) {
                acknowledge(receipt, id).await;
            }
            info!(task_id = id, "renewed");
        }
    }
}

fn patience(service: &Service) -> Duration {
    service.config.jobs.ack_timeout.0.mul_f64(0.8)
}

/// The copy of a renewed message is of no use any more: its run has come to an end.
pub(crate) async fn spend(service: &Service, message: &JobMessage) {
    let spent = Order::Spent {
        settlement: message.settlement(),
    };
    if order(service, &spent).await.is_err() {
        warn!(
            task_id = message.job.id,
            "the copy of its message will be looked up in the ledger"
        );
    }
}
