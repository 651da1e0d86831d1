//! The names of everything in RabbitMQ.

use uuid::Uuid;

use crate::config::AmqpConfig;
use crate::wire::NAMESPACE;

/// The names of everything we declare, with the configured prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names under a prefix, which ends with a dot.
    #[must_use]
    pub fn new(config: &AmqpConfig) -> Self {
        Self {
            prefix: config.prefix.clone(),
        }
    }

    /// Exchange: producers publish jobs here; the routing key is the queue's short name.
    #[must_use]
    pub fn jobs(&self) -> String {
        format!("{}jobs", self.prefix)
    }

    /// Queue: jobs of one queue.
    #[must_use]
    pub fn job_queue(&self, queue: &str) -> String {
        format!("{}jobs.{queue}", self.prefix)
    }

    /// The short name of a queue of jobs; `None` for any other queue.
    #[must_use]
    pub fn short_name<'a>(&self, queue: &'a str) -> Option<&'a str> {
        queue.strip_prefix(&self.prefix)?.strip_prefix("jobs.")
    }

    /// Exchange and queue: jobs that failed for good, and messages nobody can read.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}dead", self.prefix)
    }

    /// Exclusive queue: whoever has it looks through the dead letters; never used otherwise.
    #[must_use]
    pub fn dead_lock(&self) -> String {
        format!("{}dead.lock", self.prefix)
    }

    /// Exchange: everything that happened.
    #[must_use]
    pub fn events(&self) -> String {
        format!("{}events", self.prefix)
    }

    /// Queue: `stored` events, which one notifier at a time hands back as `live`.
    #[must_use]
    pub fn inbox(&self) -> String {
        format!("{}inbox", self.prefix)
    }

    /// Queue: states of tasks that have not ended, which one notifier at a time puts on the board.
    #[must_use]
    pub fn board(&self) -> String {
        format!("{}board", self.prefix)
    }

    /// Queue: exclusive to the notifier that keeps events in a file of its own, or shared by those that
    /// do not; never used otherwise.
    #[must_use]
    pub fn store_lock(&self) -> String {
        format!("{}store.lock", self.prefix)
    }

    /// Queue: events that become team alerts.
    #[must_use]
    pub fn alerts(&self) -> String {
        format!("{}alerts", self.prefix)
    }

    /// Queue: notes to look later whether events were seen.
    #[must_use]
    pub fn escalation(&self) -> String {
        format!("{}escalation", self.prefix)
    }

    /// Queue: what is to be sent over a channel to somebody who is away.
    #[must_use]
    pub fn deliver(&self, channel: &str) -> String {
        format!("{}deliver.{channel}", self.prefix)
    }

    /// Exchange: where a message enters the delay ladder.
    #[must_use]
    pub fn delay(&self) -> String {
        format!("{}delay", self.prefix)
    }

    /// Exchange and queue: a rung of the delay ladder, where messages wait 2^level seconds.
    #[must_use]
    pub fn delay_level(&self, level: u8) -> String {
        format!("{}delay.{level:02}", self.prefix)
    }

    /// Exchange: where messages leave the delay ladder.
    #[must_use]
    pub fn delay_due(&self) -> String {
        format!("{}delay.due", self.prefix)
    }

    /// Queue: jobs of a queue that came back too often because their worker died; they run one at
    /// a time.
    #[must_use]
    pub fn quarantine(&self, queue: &str) -> String {
        format!("{}quarantine.{queue}", self.prefix)
    }

    /// Stream: every message that a worker was done with, and how.
    #[must_use]
    pub fn settled(&self) -> String {
        format!("{}settled", self.prefix)
    }

    /// Exchange: orders to all workers, and revocations to all notifiers.
    #[must_use]
    pub fn control(&self) -> String {
        format!("{}control", self.prefix)
    }

    /// Stream: orders that hold for workers to come.
    #[must_use]
    pub fn orders(&self) -> String {
        format!("{}orders", self.prefix)
    }

    /// Stream: tokens that are good no more, for notifiers to come.
    #[must_use]
    pub fn revocations(&self) -> String {
        format!("{}revocations", self.prefix)
    }

    /// The stem of a worker's own queue, for questions to it.
    #[must_use]
    pub fn worker(&self) -> String {
        format!("{}worker.", self.prefix)
    }

    /// Queue: whoever has a message in it has this unique key of that user and kind.
    #[must_use]
    pub fn unique(&self, kind: &str, user_id: &str, key: &str) -> String {
        // A list, because a join could make one key of two.
        let scope = serde_json::json!([kind, user_id, key]).to_string();
        let hash = Uuid::new_v5(&NAMESPACE, scope.as_bytes());
        format!("{}unique.{}", self.prefix, hash.simple())
    }

    /// Queue: when each periodic job was fired last; whoever holds the message fires the next.
    #[must_use]
    pub fn cron(&self) -> String {
        format!("{}cron", self.prefix)
    }

    /// The stem of a notifier's own queue; a fresh unique part is added for each connection,
    /// because the broker may still hold the old exclusive queue when we are back.
    #[must_use]
    pub fn notifier(&self, instance: &str) -> String {
        format!("{}notifier.{instance}.", self.prefix)
    }
}

/// Celery's [exchange of events](https://docs.celeryq.dev/en/stable/userguide/monitoring.html).
pub const CELERY_EVENTS: &str = "celeryev";

/// Where Celery's clients put questions and orders to all workers.
pub const CELERY_CONTROL: &str = "celery.pidbox";

/// Where they wait for answers.
pub const CELERY_REPLIES: &str = "reply.celery.pidbox";
