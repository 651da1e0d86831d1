//! The HTTP side of a service: an accept loop, and the pages that say how it is.

mod retry_after;
mod serve;
mod status;

pub use retry_after::retry_after;
pub use serve::{Connection, Endless, Limits, Peer, listen, serve};
pub use status::{not_found, status_routes};
