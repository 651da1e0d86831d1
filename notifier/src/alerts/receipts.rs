//! Messages that are with us: settled at once where the state is kept, and otherwise only when what
//! they told is posted.

use std::time::{Duration, Instant};

use bellhop_common::amqp::{Delivery, Receipt};
use tracing::debug;

use super::engine::Engine;

/// RabbitMQ closes the channel of a consumer that holds a message for 30 minutes. Given back, the
/// message comes again at once, with the time anew.
const HOLD_AT_MOST: Duration = Duration::from_mins(10);

/// A message whose groups may not be posted yet.
#[derive(Debug)]
struct Held {
    keys: Vec<String>,
    since: Instant,
    receipt: Receipt,
}

/// The messages that are not acknowledged yet.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// The last stands for those before it.
    batch: Vec<Receipt>,
    held: Vec<Held>,
}

impl Receipts {
    /// It may go as soon as the state is kept.
    pub(super) fn after_save(&mut self, delivery: Delivery) {
        self.batch.push(delivery.receipt);
    }

    /// It may go when nothing of these groups waits any more.
    pub(super) fn after_posts(&mut self, delivery: Delivery, keys: Vec<String>) {
        self.held.push(Held {
            keys,
            since: Instant::now(),
            receipt: delivery.receipt,
        });
    }

    /// The state is kept.
    pub(super) async fn saved(&mut self) {
        if let Some(last) = std::mem::take(&mut self.batch).pop()
            && let Err(error) = last.ack_up_to_here().await
        {
            debug!(%error, "an acknowledgement was lost; the alerts come again, and are known");
        }
    }

    /// Acknowledges what is posted, and gives back what waits for too long.
    pub(super) async fn settle(&mut self, engine: &Engine) {
        for held in std::mem::take(&mut self.held) {
            let waits = held.keys.iter().any(|key| engine.owes(key));
            let settling = if !waits {
                held.receipt.ack().await
            } else if held.since.elapsed() > HOLD_AT_MOST {
                held.receipt.requeue().await
            } else {
                self.held.push(held);
                continue;
            };
            if let Err(error) = settling {
                debug!(%error, "an alert comes again");
            }
        }
    }

    /// Gives everything back: somebody else goes on with it.
    pub(super) async fn give_back(&mut self) {
        let held = self.held.drain(..).map(|held| held.receipt);
        for receipt in held.chain(self.batch.drain(..)) {
            if let Err(error) = receipt.requeue().await {
                debug!(%error, "an alert returns when the broker is back");
            }
        }
    }

    /// This one can be given to nobody now.
    pub(super) async fn give_back_one(delivery: Delivery) {
        if let Err(error) = delivery.receipt.requeue().await {
            debug!(%error, "an alert returns when the broker is back");
        }
    }
}
