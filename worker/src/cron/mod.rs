//! Periodic jobs: put in when their time comes, once, however many workers run.
//!
//! The queue `bellhop.cron` has one consumer at a time and holds one message, the *token*: until
//! when each entry is dealt with. Whoever has received it within the last moments fires what is due,
//! publishes the next token, and acknowledges the old one. There is no other coordinator, and a
//! worker that is cut off does not get its token back.
//!
//! [`plan`] decides (pure), [`schedule`] knows the times (pure), [`keeper`] holds the token.

mod config;
mod keeper;
mod plan;
mod schedule;

pub use config::{CatchUp, CronConfig, Upcoming, upcoming};
pub(crate) use keeper::start;
