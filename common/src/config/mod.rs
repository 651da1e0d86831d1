//! Configuration: defaults < TOML file < environment < flags.
//!
//! One struct per concern, each with `deny_unknown_fields`, so that a misspelt key is refused by
//! name. [`Sources`] holds where values come from; a test passes its own instead of the process's.

mod amqp;
mod load;
mod secret;
mod service;
mod units;

pub use amqp::{AmqpConfig, AmqpUrl, TlsConfig};
pub use load::{ConfigError, ConfigFlags, ENV_PREFIX, ServiceConfig, Sources, to_redacted_toml};
pub use secret::{Secret, SecretError};
pub use service::{LogConfig, LogFormat, ShutdownConfig};
pub use units::{HumanDuration, HumanSize};
