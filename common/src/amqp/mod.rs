//! RabbitMQ: the only place that names lapin.
//!
//! A process holds two connections: one publishes, one consumes, because a broker that runs out
//! of memory or disk blocks publishing connections whole, and acknowledgements with them
//! ([RabbitMQ: alarms](https://www.rabbitmq.com/docs/alarms)). Each connection is owned by one
//! supervising task: it connects, declares, reports to [`Health`](crate::telemetry::Health), and
//! when anything goes wrong drops the connection whole and builds a new one, for as long as it
//! takes. lapin's own recovery is off: it gives up after some attempts, and a channel error leaves
//! its streams pending for ever.

mod batch;
mod browser;
mod channels;
mod claim;
mod connect;
mod consumer;
mod copies;
mod declare;
mod delivery;
mod inquiry;
pub mod ladder;
mod lanes;
mod lock;
mod names;
mod outbox;
mod publisher;
mod rungs;
mod topology;

pub use browser::{BrowseError, Browser, Death, Found};
pub use claim::{Claim, ClaimError, Claimed};
pub use connect::{ConnectError, check_url};
pub use consumer::{Consumer, Source, StreamPosition, Subscription};
pub use copies::Copies;
pub use delivery::{Delivery, Properties, Receipt, SettleError, headers_to_keep};
pub use inquiry::{Depth, Inquiry, InquiryError};
pub use lock::Lock;
pub use names::{CELERY_CONTROL, CELERY_EVENTS, CELERY_REPLIES, Names};
pub use publisher::{Message, PublishError, Publisher, PublisherTask, Route, Turn};
pub use rungs::Rungs;
pub use topology::{Binding, Exchange, ExchangeKind, Queue, QueueKind, Target, Topology};
