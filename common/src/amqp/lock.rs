//! One of several: an exclusive queue that stands for what only one may have.
//!
//! RabbitMQ gives it to one connection and takes it back when that ends, so that it needs no clock
//! and nobody has to clean up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lapin::Connection;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use tokio_util::sync::CancellationToken;

use super::connect::{SessionError, in_time, soft_error};

/// So long one that starts waits for one that ends: the broker sees a lost connection of another
/// machine only by its heartbeat.
const PATIENCE: Duration = Duration::from_secs(10);

/// A wish of a [`Consumer`](super::Consumer), before it consumes.
#[derive(Debug, Clone)]
pub struct Lock {
    queue: String,
    wish: Wish,
    state: Arc<Mutex<State>>,
    refused: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Have,
    NobodyHas,
}

#[derive(Debug, Default)]
struct State {
    /// When it was wished for first.
    since: Option<Instant>,
    was_granted: bool,
}

impl Lock {
    /// To be the only one.
    #[must_use]
    pub fn have(queue: String) -> Self {
        Self::new(queue, Wish::Have)
    }

    /// That nobody is the only one. It is seen by taking the lock for a moment: asking for a queue
    /// that is not there would cost a channel, which a consumer takes for the end of everything.
    #[must_use]
    pub fn nobody_has(queue: String) -> Self {
        Self::new(queue, Wish::NobodyHas)
    }

    fn new(queue: String, wish: Wish) -> Self {
        Self {
            queue,
            wish,
            state: Arc::default(),
            refused: CancellationToken::new(),
        }
    }

    /// Waits until it is clear, at the start, that somebody else has it. Later on the consumer waits
    /// its turn, because it may be its own last connection that has it.
    pub async fn refused(&self) {
        self.refused.cancelled().await;
    }

    /// Takes it for as long as the connection lasts.
    pub(super) async fn take(
        &self,
        connection: &Connection,
        limit: Duration,
    ) -> Result<(), SessionError> {
        let step = format!("take the lock {}", self.queue);
        let taking = async {
            let channel = connection.create_channel().await?;
            let options = QueueDeclareOptions {
                exclusive: true,
                ..QueueDeclareOptions::default()
            };
            let queue = self.queue.as_str();
            let declaring = channel.queue_declare(queue.into(), options, FieldTable::default());
            match declaring.await {
                Ok(_) if self.wish == Wish::NobodyHas => {
                    let options = QueueDeleteOptions::default();
                    channel.queue_delete(queue.into(), options).await?;
                    Ok(true)
                }
                Ok(_) => Ok(true),
                Err(error) => match soft_error(&error) {
                    Some(AMQPSoftError::RESOURCELOCKED) => Ok(false),
                    _ => Err(error),
                },
            }
        };
        let granted = in_time(limit, step, taking).await?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *state.since.get_or_insert_with(Instant::now);
        state.was_granted |= granted;
        if granted {
            return Ok(());
        }
        if !state.was_granted && since.elapsed() >= PATIENCE {
            self.refused.cancel();
        }
        Err(SessionError::Locked(self.queue.clone()))
    }
}
