//! The HTTP side of a service: an accept loop, and the pages that say how it is.

mod serve;
mod status;

pub use serve::{Limits, serve};
pub use status::{not_found, status_routes};
