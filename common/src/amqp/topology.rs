//! Exchanges, queues and bindings as data, then declared.

use std::fmt;

use lapin::Channel;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use crate::config::AmqpConfig;

/// How often a job may come back unsettled (its worker died, or lost its connection) before the
/// broker moves it to the dead letters: a job that kills its worker must not kill them all.
const JOB_DELIVERY_LIMIT: i64 = 20;

/// The same for queues whose consumer holds messages through long outages on purpose. RabbitMQ 4
/// would otherwise apply its default of 20.
const PATIENT_DELIVERY_LIMIT: i64 = 100_000;

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

    /// Exchange and queue: jobs that failed for good, and messages nobody can read.
    #[must_use]
    pub fn dead(&self) -> String {
        format!("{}dead", self.prefix)
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

    /// Queue: events that become team alerts.
    #[must_use]
    pub fn alerts(&self) -> String {
        format!("{}alerts", self.prefix)
    }

    /// The stem of a notifier's own queue; a fresh unique part is added for each connection,
    /// because the broker may still hold the old exclusive queue when we are back.
    #[must_use]
    pub fn notifier(&self, instance: &str) -> String {
        format!("{}notifier.{instance}.", self.prefix)
    }
}

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By the whole key.
    Direct,
    /// By patterns.
    Topic,
    /// To every queue. Not durable: it goes with the broker.
    TransientFanout,
    /// By the whole key. Not durable: it goes with the broker.
    TransientDirect,
}

/// Celery's [exchange of events](https://docs.celeryq.dev/en/stable/userguide/monitoring.html).
pub const CELERY_EVENTS: &str = "celeryev";

/// Where Celery's clients put questions and orders to all workers.
pub const CELERY_CONTROL: &str = "celery.pidbox";

/// Where they wait for answers.
pub const CELERY_REPLIES: &str = "reply.celery.pidbox";

/// An exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
}

/// What a queue guarantees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated and on disk; many consumers share it. A message that comes back too often is
    /// dead-lettered at least once to the exchange named.
    Work {
        /// Where dead letters go.
        dead_letters: String,
    },
    /// Like `Work`, but one consumer at a time gets the messages, in order.
    Ordered {
        /// Where dead letters go.
        dead_letters: String,
    },
    /// Replicated and on disk, kept until somebody takes them.
    Keep,
    /// On the disk of one node: what a client of another system declares, and so must we.
    Classic {
        /// How many priorities it tells apart, if any.
        max_priority: Option<u8>,
    },
}

/// A durable queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What it guarantees.
    pub kind: QueueKind,
}

/// A queue's interest in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Which queue.
    pub queue: String,
    /// Which exchange.
    pub exchange: String,
    /// Which keys.
    pub pattern: String,
}

/// What must exist before a connection is of use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared second.
    pub queues: Vec<Queue>,
    /// Declared last.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// Just the exchange that jobs go to: for a producer, who must not create queues that nobody
    /// consumes.
    #[must_use]
    pub fn producer(names: &Names) -> Self {
        Self {
            exchanges: vec![Exchange {
                name: names.jobs(),
                kind: ExchangeKind::Direct,
            }],
            ..Self::default()
        }
    }

    /// What both services need: the exchanges, the dead letters, and the inbox, so that a final
    /// event is kept even when no notifier has ever run.
    #[must_use]
    pub fn base(names: &Names) -> Self {
        let mut topology = Self::producer(names);
        for name in [names.dead(), names.events()] {
            topology.exchanges.push(Exchange {
                name,
                kind: ExchangeKind::Topic,
            });
        }
        topology
            .queue(names.dead(), QueueKind::Keep)
            .bind(names.dead(), names.dead(), "#")
            .queue(
                names.inbox(),
                QueueKind::Ordered {
                    dead_letters: names.dead(),
                },
            )
            .bind(names.inbox(), names.events(), "stored.#")
    }

    /// Adds the queue that jobs of this name go to.
    #[must_use]
    pub fn with_job_queue(self, names: &Names, queue: &str) -> Self {
        self.queue(
            names.job_queue(queue),
            QueueKind::Work {
                dead_letters: names.dead(),
            },
        )
        .bind(names.job_queue(queue), names.jobs(), queue)
    }

    /// Adds the alert queue, for events whose keys match one of the patterns.
    #[must_use]
    pub fn with_alerts(self, names: &Names, patterns: &[&str]) -> Self {
        let mut topology = self.queue(
            names.alerts(),
            QueueKind::Ordered {
                dead_letters: names.dead(),
            },
        );
        for pattern in patterns {
            topology = topology.bind(names.alerts(), names.events(), pattern);
        }
        topology
    }

    /// A queue as Celery's client declares it, which declares it whenever it publishes: either may
    /// come first.
    #[must_use]
    pub fn with_celery_queue(mut self, name: &str, kind: QueueKind) -> Self {
        self.exchanges.push(Exchange {
            name: name.to_owned(),
            kind: ExchangeKind::Direct,
        });
        self.queue(name.to_owned(), kind)
            .bind(name.to_owned(), name.to_owned(), name)
    }

    /// The exchanges over which Celery's workers and monitors talk, as Celery declares them.
    #[must_use]
    pub fn celery_monitoring() -> Self {
        let exchange = |(name, kind): (&str, _)| Exchange {
            name: name.to_owned(),
            kind,
        };
        let exchanges = [
            (CELERY_EVENTS, ExchangeKind::Topic),
            (CELERY_CONTROL, ExchangeKind::TransientFanout),
            (CELERY_REPLIES, ExchangeKind::TransientDirect),
        ];
        Self {
            exchanges: exchanges.map(exchange).into(),
            ..Self::default()
        }
    }

    fn queue(mut self, name: String, kind: QueueKind) -> Self {
        self.queues.push(Queue { name, kind });
        self
    }

    fn bind(mut self, queue: String, exchange: String, pattern: &str) -> Self {
        self.bindings.push(Binding {
            queue,
            exchange,
            pattern: pattern.to_owned(),
        });
        self
    }

    /// Declares everything. Declaring what exists already is no change; an existing queue with
    /// other arguments is an error that names it.
    pub(super) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for Exchange { name, kind } in &self.exchanges {
            let (kind, durable) = match kind {
                ExchangeKind::Direct => (lapin::ExchangeKind::Direct, true),
                ExchangeKind::Topic => (lapin::ExchangeKind::Topic, true),
                ExchangeKind::TransientFanout => (lapin::ExchangeKind::Fanout, false),
                ExchangeKind::TransientDirect => (lapin::ExchangeKind::Direct, false),
            };
            let options = ExchangeDeclareOptions {
                durable,
                ..ExchangeDeclareOptions::default()
            };
            let (name, arguments) = (name.as_str().into(), FieldTable::default());
            channel
                .exchange_declare(name, kind, options, arguments)
                .await?;
        }
        for queue in &self.queues {
            let (name, arguments) = (queue.name.as_str().into(), queue.arguments());
            channel
                .queue_declare(name, QueueDeclareOptions::durable(), arguments)
                .await?;
        }
        for binding in &self.bindings {
            bind(channel, &binding.queue, &binding.exchange, &binding.pattern).await?;
        }
        Ok(())
    }
}

pub(super) async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    pattern: &str,
) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            pattern.into(),
            options,
            FieldTable::default(),
        )
        .await
}

impl Queue {
    /// The arguments of `queue.declare`. They cannot change once the queue exists.
    fn arguments(&self) -> FieldTable {
        let mut arguments = FieldTable::default();
        let mut set = |name: &str, value: AMQPValue| {
            arguments.insert(name.into(), value);
        };
        let text = |text: &str| AMQPValue::LongString(text.into());
        if let QueueKind::Classic { max_priority } = self.kind {
            if let Some(most) = max_priority {
                set("x-max-priority", AMQPValue::LongLongInt(i64::from(most)));
            }
            return arguments;
        }
        // Replicated, on disk, and counts deliveries: https://www.rabbitmq.com/docs/quorum-queues
        set("x-queue-type", text("quorum"));
        let (dead_letters, limit) = match &self.kind {
            QueueKind::Keep | QueueKind::Classic { .. } => return arguments,
            QueueKind::Work { dead_letters } => (dead_letters, JOB_DELIVERY_LIMIT),
            QueueKind::Ordered { dead_letters } => {
                set("x-single-active-consumer", AMQPValue::Boolean(true));
                (dead_letters, PATIENT_DELIVERY_LIMIT)
            }
        };
        set("x-delivery-limit", AMQPValue::LongLongInt(limit));
        set("x-dead-letter-exchange", text(dead_letters));
        // The default strategy dead-letters without confirms and may lose messages; this one needs
        // `reject-publish`: https://www.rabbitmq.com/docs/quorum-queues#dead-lettering
        set("x-dead-letter-strategy", text("at-least-once"));
        set("x-overflow", text("reject-publish"));
        arguments
    }
}

/// Lists the names, one a line, for a log or an error.
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for exchange in &self.exchanges {
            writeln!(f, "exchange {}", exchange.name)?;
        }
        for queue in &self.queues {
            writeln!(f, "queue {}", queue.name)?;
        }
        for Binding {
            queue,
            exchange,
            pattern,
        } in &self.bindings
        {
            writeln!(f, "binding {exchange} --{pattern}--> {queue}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_is_the_contract() {
        let names = Names::new(&AmqpConfig::default());
        let topology = Topology::base(&names)
            .with_job_queue(&names, "default")
            .with_alerts(&names, &["stored.user.*.task.status_changed.failed"]);
        assert_eq!(
            topology.to_string(),
            "exchange bellhop.jobs\n\
             exchange bellhop.dead\n\
             exchange bellhop.events\n\
             queue bellhop.dead\n\
             queue bellhop.inbox\n\
             queue bellhop.jobs.default\n\
             queue bellhop.alerts\n\
             binding bellhop.dead --#--> bellhop.dead\n\
             binding bellhop.events --stored.#--> bellhop.inbox\n\
             binding bellhop.jobs --default--> bellhop.jobs.default\n\
             binding bellhop.events --stored.user.*.task.status_changed.failed--> bellhop.alerts\n"
        );
    }
}
