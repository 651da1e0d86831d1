//! What the worker and the notifier share.
//!
//! - [`wire`]: jobs, events, routing keys. Pure.
//! - [`amqp`]: RabbitMQ. Topology, one publisher, one consumer; both survive the broker.
//! - [`config`]: defaults < file < environment < flags.
//! - [`dead_letters`]: what failed for good: list, replay, drop.
//! - [`enqueue`]: a job into its queue, a status to its owner. [`unique`]: unless it is there already.
//!   [`enqueue_group`]: many that belong together. [`follow_up`]: jobs that follow an end.
//! - [`revoke`]: tokens that are good no more, to all notifiers.
//! - [`telemetry`]: logs, metrics, readiness. [`http`]: the pages that show them.
//! - [`cli`], [`table`], [`shutdown`], [`backoff`], [`tls`]: small things with one answer for both services.

pub mod amqp;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod dead_letters;
pub mod enqueue;
pub mod enqueue_group;
pub mod follow_up;
pub mod http;
pub mod revoke;
pub mod shutdown;
pub mod table;
pub mod telemetry;
pub mod tls;
pub mod unique;
pub mod wire;
