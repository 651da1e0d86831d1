//! The handlers that come with the worker.

mod checksum;
mod endpoint;
mod exec;
mod output;

pub use checksum::{Checksum, ChecksumArgs, RootError};
pub use endpoint::{Endpoint, EndpointConfig, EndpointUrl, InvalidEndpoint};
pub use exec::{Exec, ExecConfig, ExecLimits, InvalidExec, kill_programs};
