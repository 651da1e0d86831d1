//! The handlers that come with the worker.

mod checksum;
mod exec;
mod output;

pub use checksum::{Checksum, ChecksumArgs, RootError};
pub use exec::{Exec, ExecConfig, ExecLimits, InvalidExec};
