//! What a service says about itself: logs, metrics, and whether it is ready.

mod health;
mod logs;
mod metrics;

pub use self::health::{Component, Health};
pub(crate) use self::logs::log_filter;
pub use self::logs::{LogError, init_logs, with_causes};
pub use self::metrics::{Metrics, MetricsError};
