//! The dead letters: what a worker gave up, what nobody can read, what the broker itself took out
//! of a queue, and alerts that Mattermost refused.
//!
//! Pure: [`DeadLetter`] (what a message says of itself), [`Filter`] (which ones), and the message
//! that a replay publishes. [`Office`] goes through the queue with them.

mod filter;
mod letter;
mod office;
mod replay;
mod report;
mod round;

pub use filter::Filter;
pub use letter::{DeadLetter, Origin, Past, bury};
pub use office::Office;
pub use report::{Listing, Opened, ReplayError, Report};
pub use round::Bounds;
