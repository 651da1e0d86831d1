//! The handlers that come with the worker.

mod checksum;
mod exec;

pub use checksum::{Checksum, ChecksumArgs, RootError};
pub use exec::{Exec, ExecConfig, InvalidExec, kill_programs};
