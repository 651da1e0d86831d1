//! Who looks after the alerts: this instance as long as the state it saves is the one that is kept.
//!
//! The queue has one active consumer, and RabbitMQ names the next at once when a connection is gone, but tells nobody:
//! whoever is the next learns it by a message. So while something is open and its state stands still, those who
//! have it not put a question into the queue. Whoever the broker gives it to goes on.

use std::time::{Duration, Instant};

use bellhop_common::amqp::{Message, Route};
use bellhop_common::backoff::{Backoff, jitter};
use bellhop_common::telemetry::with_causes;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::{Dispatcher, LOOK, now};
use crate::alerts::TURN;
use crate::alerts::engine::{Engine, Shown};
use crate::alerts::state::Saved;
use crate::config::StoreKind;
use crate::store::StoreError;

/// How often the instance that has the state shows that it is alive.
const RENEW: Duration = Duration::from_secs(10);

/// How often those who have the state not look whether anybody looks after what is open.
const WATCH: Duration = Duration::from_secs(2);

/// How long the broker may take for a question.
const ASK: Duration = Duration::from_secs(2);

/// For how long a state may stand still before another instance takes it over unasked: the broker is
/// away, or who has it hangs.
const ABANDONED: Duration = Duration::from_secs(35);

/// Between attempts to reach the store.
const PAUSE: Backoff = Backoff {
    base: Duration::from_millis(100),
    cap: Duration::from_secs(5),
};

impl Dispatcher {
    /// Goes on from the state that is kept; whether it has it, which only the end prevents.
    pub(super) async fn activate(&mut self) -> bool {
        let mut failures = 0;
        while self.engine.is_none() {
            // What waits is judged with both: what a silence takes out is in no post.
            let kept = async { Ok((self.keeper.look().await?, self.keeper.silences().await?)) };
            match kept.await {
                Ok(((version, state), silences)) => {
                    let rules = self.alerting.plan.rules.clone();
                    self.keeper.claim(version);
                    self.engine = Some(Engine::new(rules, state, silences));
                    self.looked = Some(Instant::now());
                    info!("this instance looks after the alerts");
                }
                Err(error) => {
                    if !self.pause(failures, &error).await {
                        return false;
                    }
                    failures += 1;
                }
            }
        }
        true
    }

    pub(super) async fn pause(&self, failures: u32, error: &StoreError) -> bool {
        if failures < 3 || failures.is_multiple_of(20) {
            warn!(error = with_causes(error), "alerts wait for the store");
        }
        tokio::select! {
            () = sleep(PAUSE.pause(failures, jitter())) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Keeps the state until the store has it; whether this instance goes on with it.
    pub(super) async fn save(&mut self) -> bool {
        let mut failures = 0;
        loop {
            let Some(engine) = &self.engine else {
                return false;
            };
            let renew = engine.state().has_work() && self.renewed.elapsed() >= RENEW;
            match self.keeper.save(engine.state(), renew).await {
                Ok(Saved::Yes) => {
                    if renew {
                        self.renewed = Instant::now();
                    }
                    return true;
                }
                Ok(Saved::Taken) => {
                    warn!("another instance looks after the alerts now");
                    self.forget();
                    self.receipts.give_back().await;
                    return false;
                }
                Err(error) => {
                    if !self.pause(failures, &error).await {
                        return false;
                    }
                    failures += 1;
                }
            }
        }
    }

    /// Goes on from what is kept, as after a crash.
    pub(super) fn forget(&mut self) {
        self.engine = None;
        self.watched = None;
        self.posts = JoinSet::new();
    }

    pub(super) async fn lose(&mut self, error: &JoinError) {
        warn!(%error, "a post ended badly");
        // Before the state is forgotten that says what they are waiting for.
        self.receipts.give_back().await;
        self.forget();
    }

    pub(super) async fn look_at_silences(&mut self) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        match (self.keeper.silences().await, &mut self.engine) {
            (Ok(silences), Some(engine)) => engine.silence(silences),
            (Ok(_), None) => {}
            (Err(error), _) => {
                warn!(error = with_causes(&error), "the silences cannot be read");
            }
        }
    }

    /// Whether another instance has something open, and so tells of the outage itself.
    async fn is_looked_after(&self) -> bool {
        if self.engine.is_some() {
            return false;
        }
        let looked = self.keeper.look().await;
        looked.is_ok_and(|(_, state)| state.has_work() && !state.released)
    }

    /// Tells of an outage of the broker that is over.
    pub(super) async fn look_at_broker(&mut self) {
        let now = now(&self.gateway);
        let Some(lost) = self.outage.look(self.hears.is_up(), now) else {
            return;
        };
        if self.is_looked_after().await || !self.activate().await {
            return;
        }
        let text = "the connection to RabbitMQ was lost";
        let shown = Shown::of_ours(Uuid::now_v7(), lost, text);
        if let Some(engine) = &mut self.engine {
            engine.broker_was_away(shown, now);
        }
    }

    /// Looks whether anybody looks after what is open.
    pub(super) async fn watch(&mut self) {
        let is_shared = self.gateway.config.store.kind == StoreKind::Redis;
        if !is_shared {
            self.activate().await;
            return;
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < WATCH) {
            return;
        }
        self.looked = Some(Instant::now());
        // An outage of the store is told by those who need it more.
        let Ok((version, state)) = self.keeper.look().await else {
            self.watched = None;
            return;
        };
        let since = match self.watched {
            Some((watched, since)) if watched == version => Some(since),
            _ => None,
        };
        self.watched = Some((version, since.unwrap_or_else(Instant::now)));
        if !state.has_work() {
            return;
        }
        let stands_still = since.map(|since| since.elapsed());
        if state.released || stands_still.is_some_and(|stands| stands > ABANDONED) {
            self.activate().await;
        } else if stands_still.is_some() && self.hears.is_up() {
            self.ask_whose_turn_it_is().await;
        }
    }

    async fn ask_whose_turn_it_is(&self) {
        let exchange = self.gateway.names.events();
        let route = Route {
            exchange: &exchange,
            key: TURN,
            mandatory: false,
        };
        let question = Message::default();
        match timeout(ASK, self.gateway.publisher.publish(route, &question)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "nobody is asked who looks after the alerts"),
            Err(_) => debug!("the broker takes no question who looks after the alerts"),
        }
    }
}
