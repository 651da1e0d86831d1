//! Exchanges, queues and bindings as data.

use std::fmt;

use super::ladder;
use super::names::{CELERY_CONTROL, CELERY_EVENTS, CELERY_REPLIES, Names};
use crate::wire::Status;

/// What the stream of settlements keeps. A worker reads far less of it; see its ledger.
const SETTLED_AGE: &str = "1D";
const SETTLED_BYTES: i64 = 1 << 30;

/// What the stream of orders keeps: longer than a scheduled job goes without being looked at.
const ORDERS_AGE: &str = "14D";
const ORDERS_BYTES: i64 = 256 << 20;

/// What the stream of revocations keeps: as long as one holds
/// ([`REVOCATION_LASTS`](crate::wire::REVOCATION_LASTS)).
const REVOCATIONS_AGE: &str = "31D";
const REVOCATIONS_BYTES: i64 = 64 << 20;

/// What the board's queue keeps while no notifier takes from it.
const BOARD_BYTES: i64 = 64 << 20;

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
    /// Replicated and on disk, kept until somebody takes them; looking does not wear them out.
    Keep,
    /// A rung of the delay ladder.
    Delay {
        /// How long messages stay.
        seconds: u64,
        /// The exchange they go to then, at least once, with the key they came with.
        next: String,
    },
    /// A log that every reader reads from where it likes.
    Stream {
        /// How long it keeps messages, in RabbitMQ's words.
        age: &'static str,
        /// How many bytes it keeps.
        bytes: i64,
    },
    /// Replicated and on disk without any argument: what a client of another system declares, and so
    /// must we.
    Plain,
    /// On the disk of one node: the same.
    Classic {
        /// How many priorities it tells apart, if any.
        max_priority: Option<u8>,
    },
    /// On the disk of one node; one consumer at a time gets the messages, in order. What does not
    /// fit drives out the oldest, which newer ones make worthless.
    Newest {
        /// How many bytes it keeps.
        bytes: i64,
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

/// Who is interested in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A queue.
    Queue(String),
    /// Another exchange.
    Exchange(String),
}

/// An interest in an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whose.
    pub to: Target,
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

    /// What both services need: the exchanges, the dead letters, the inbox, so that a final event
    /// is kept even when no notifier has ever run, and the orders, so that a cancellation is.
    #[must_use]
    pub fn base(names: &Names) -> Self {
        let mut topology = Self::producer(names);
        for name in [
            names.dead(),
            names.events(),
            names.control(),
            names.delay_due(),
        ] {
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
            .queue(
                names.orders(),
                QueueKind::Stream {
                    age: ORDERS_AGE,
                    bytes: ORDERS_BYTES,
                },
            )
            .bind(names.orders(), names.control(), "cancel.#")
            .bind(names.orders(), names.control(), "spent.#")
    }

    /// What workers need besides: the ends of the delay ladder, whose rungs are added
    /// [as they are needed](Self::ladder), the quarantine, and the ledger of what was settled.
    #[must_use]
    pub fn worker(names: &Names) -> Self {
        let mut topology = Self::base(names);
        topology.exchanges.push(Exchange {
            name: names.delay(),
            kind: ExchangeKind::Topic,
        });
        let settled = QueueKind::Stream {
            age: SETTLED_AGE,
            bytes: SETTLED_BYTES,
        };
        topology
            .chain(names.delay_due(), names.delay(), &ladder::no_wait())
            .queue(names.settled(), settled)
            .bind(names.settled(), names.delay(), "#")
            .bind(names.settled(), names.dead(), "#")
            // The owner's event only: the copy for a room says nothing new.
            .bind(
                names.settled(),
                names.events(),
                "stored.user.*.task.status_changed.#",
            )
    }

    /// The rungs of the delay ladder up to this level.
    #[must_use]
    pub fn ladder(names: &Names, top: u8) -> Self {
        let mut topology = Self::default();
        for level in 0..=top {
            let name = names.delay_level(level);
            let next = match level.checked_sub(1) {
                Some(below) => names.delay_level(below),
                None => names.delay_due(),
            };
            topology.exchanges.push(Exchange {
                name: name.clone(),
                kind: ExchangeKind::Topic,
            });
            let seconds = 1 << level;
            let rung = QueueKind::Delay {
                seconds,
                next: next.clone(),
            };
            topology = topology
                .queue(name.clone(), rung)
                .bind(name.clone(), name.clone(), &ladder::stays(level))
                .bind(name.clone(), names.delay(), &ladder::enters(level))
                .chain(next, name, &ladder::passes(level));
        }
        topology
    }

    /// Adds the queue that jobs of this name go to, and its quarantine.
    #[must_use]
    pub fn with_job_queue(self, names: &Names, queue: &str) -> Self {
        self.queue(
            names.quarantine(queue),
            QueueKind::Ordered {
                dead_letters: names.dead(),
            },
        )
        .bind(
            names.quarantine(queue),
            names.delay_due(),
            &ladder::arrivals(&ladder::quarantine(queue)),
        )
        .queue(
            names.job_queue(queue),
            QueueKind::Work {
                dead_letters: names.dead(),
            },
        )
        .bind(names.job_queue(queue), names.jobs(), queue)
        .bind(
            names.job_queue(queue),
            names.delay_due(),
            &ladder::arrivals(&ladder::job_queue(queue)),
        )
    }

    /// Adds the way of events that are for later, from the notifier through the delay ladder back to
    /// the inbox.
    #[must_use]
    pub fn with_deferral(mut self, names: &Names) -> Self {
        self.exchanges.push(Exchange {
            name: names.delay(),
            kind: ExchangeKind::Topic,
        });
        self.chain(names.delay_due(), names.delay(), &ladder::no_wait())
            .bind(
                names.inbox(),
                names.delay_due(),
                &ladder::arrivals(ladder::DEFERRED),
            )
    }

    /// Adds the way of what users have missed: notes to look later, and what is to be sent then over
    /// each of the channels. It needs [`with_deferral`](Self::with_deferral).
    #[must_use]
    pub fn with_escalation(self, names: &Names, channels: &[&str]) -> Self {
        let ordered = QueueKind::Ordered {
            dead_letters: names.dead(),
        };
        let escalation = names.escalation();
        let mut topology = self.queue(escalation.clone(), ordered).bind(
            escalation,
            names.delay_due(),
            &ladder::arrivals(ladder::ESCALATION),
        );
        for channel in channels {
            let (queue, kind) = (names.deliver(channel), names.dead());
            let work = QueueKind::Work { dead_letters: kind };
            let arrivals = ladder::arrivals(&ladder::deliver(channel));
            topology =
                topology
                    .queue(queue.clone(), work)
                    .bind(queue, names.delay_due(), &arrivals);
        }
        topology
    }

    /// Adds the queue that holds the state of periodic jobs.
    #[must_use]
    pub fn with_cron(self, names: &Names) -> Self {
        self.queue(
            names.cron(),
            QueueKind::Ordered {
                dead_letters: names.dead(),
            },
        )
    }

    /// Adds the stream of revocations.
    #[must_use]
    pub fn with_revocations(self, names: &Names) -> Self {
        let stream = QueueKind::Stream {
            age: REVOCATIONS_AGE,
            bytes: REVOCATIONS_BYTES,
        };
        self.queue(names.revocations(), stream).bind(
            names.revocations(),
            names.control(),
            "revoke.#",
        )
    }

    /// Adds the queue for the states of tasks that have not ended.
    #[must_use]
    pub fn with_board(self, names: &Names) -> Self {
        let mut topology = self.queue(names.board(), QueueKind::Newest { bytes: BOARD_BYTES });
        for status in [
            Status::Queued,
            Status::Scheduled,
            Status::Running,
            Status::Retrying,
        ] {
            let status = status.as_str();
            let pattern = format!("live.user.*.task.status_changed.{status}");
            topology = topology.bind(names.board(), names.events(), &pattern);
        }
        topology
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
            to: Target::Queue(queue),
            exchange,
            pattern: pattern.to_owned(),
        });
        self
    }

    fn chain(mut self, next: String, exchange: String, pattern: &str) -> Self {
        self.bindings.push(Binding {
            to: Target::Exchange(next),
            exchange,
            pattern: pattern.to_owned(),
        });
        self
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
            to: Target::Queue(to) | Target::Exchange(to),
            exchange,
            pattern,
        } in &self.bindings
        {
            writeln!(f, "binding {exchange} --{pattern}--> {to}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AmqpConfig;

    #[test]
    fn the_topology_is_the_contract() {
        let names = Names::new(&AmqpConfig::default());
        let topology = Topology::worker(&names)
            .with_job_queue(&names, "default")
            .with_alerts(&names, &["stored.user.*.task.status_changed.failed"])
            .with_revocations(&names)
            .with_board(&names);
        let (none, any) = ("0.".repeat(28), "*.".repeat(28));
        let live = "live.user.*.task.status_changed";
        assert_eq!(
            topology.to_string(),
            format!(
                "exchange bellhop.jobs\n\
                 exchange bellhop.dead\n\
                 exchange bellhop.events\n\
                 exchange bellhop.control\n\
                 exchange bellhop.delay.due\n\
                 exchange bellhop.delay\n\
                 queue bellhop.dead\n\
                 queue bellhop.inbox\n\
                 queue bellhop.orders\n\
                 queue bellhop.settled\n\
                 queue bellhop.quarantine.default\n\
                 queue bellhop.jobs.default\n\
                 queue bellhop.alerts\n\
                 queue bellhop.revocations\n\
                 queue bellhop.board\n\
                 binding bellhop.dead --#--> bellhop.dead\n\
                 binding bellhop.events --stored.#--> bellhop.inbox\n\
                 binding bellhop.control --cancel.#--> bellhop.orders\n\
                 binding bellhop.control --spent.#--> bellhop.orders\n\
                 binding bellhop.delay --{none}#--> bellhop.delay.due\n\
                 binding bellhop.delay --#--> bellhop.settled\n\
                 binding bellhop.dead --#--> bellhop.settled\n\
                 binding bellhop.events --stored.user.*.task.status_changed.#--> bellhop.settled\n\
                 binding bellhop.delay.due --{any}quarantine.default--> bellhop.quarantine.default\n\
                 binding bellhop.jobs --default--> bellhop.jobs.default\n\
                 binding bellhop.delay.due --{any}jobs.default--> bellhop.jobs.default\n\
                 binding bellhop.events --stored.user.*.task.status_changed.failed--> bellhop.alerts\n\
                 binding bellhop.control --revoke.#--> bellhop.revocations\n\
                 binding bellhop.events --{live}.queued--> bellhop.board\n\
                 binding bellhop.events --{live}.scheduled--> bellhop.board\n\
                 binding bellhop.events --{live}.running--> bellhop.board\n\
                 binding bellhop.events --{live}.retrying--> bellhop.board\n"
            )
        );
    }

    #[test]
    fn a_rung_is_entered_passed_and_left() {
        let names = Names::new(&AmqpConfig::default());
        let text = Topology::ladder(&names, 1).to_string();
        let (zeros, any) = ("0.".repeat(26), "*.".repeat(26));
        for line in [
            "queue bellhop.delay.01".to_owned(),
            format!("binding bellhop.delay --{zeros}1.#--> bellhop.delay.01"),
            format!("binding bellhop.delay.01 --{any}1.#--> bellhop.delay.01"),
            format!("binding bellhop.delay.01 --{any}0.#--> bellhop.delay.00"),
            format!("binding bellhop.delay.00 --{any}*.0.#--> bellhop.delay.due"),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
