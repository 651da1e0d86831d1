//! The HTTP side: the socket's handshake, the event stream, jobs for browsers and curl, the dead
//! letters, the page.

mod arrival;
mod client_address;
mod dead;
mod error;
mod page;
mod sse;
mod tasks;
mod upgrade;

pub use self::client_address::{Network, NetworkError};
use std::convert::Infallible;
use std::sync::Arc;

use bellhop_common::http::status_routes;
use bellhop_common::telemetry::{Health, Metrics};
use warp::{Filter, Reply};

use crate::gateway::Gateway;

/// Every route; what matches none is answered too.
pub(crate) fn routes(
    gateway: Arc<Gateway>,
    health: Health,
    metrics: Metrics,
) -> impl Filter<Extract = (impl Reply,), Error = Infallible> + Clone {
    let socket = upgrade::route(Arc::clone(&gateway));
    let events = sse::routes(Arc::clone(&gateway));
    let dead = dead::routes(Arc::clone(&gateway));
    let tasks = tasks::route(Arc::clone(&gateway)).or(tasks::cancel_route(gateway));
    status_routes(health, metrics)
        .or(socket)
        .or(events)
        .or(tasks)
        .or(dead)
        .or(page::routes())
        .recover(error::answer)
}
