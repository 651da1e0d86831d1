//! The HTTP side: the socket's handshake, the event stream, jobs and events for browsers, backends and
//! curl, who is where, the dead letters, the page.

mod arrival;
mod body;
mod caller;
mod client_address;
mod dead;
mod error;
mod events;
mod page;
mod presence;
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
    let streams = sse::routes(Arc::clone(&gateway));
    let events = events::route(Arc::clone(&gateway));
    let presence = presence::routes(Arc::clone(&gateway));
    let dead = dead::routes(Arc::clone(&gateway));
    let tasks = tasks::route(Arc::clone(&gateway)).or(tasks::cancel_route(gateway));
    status_routes(health, metrics)
        .or(socket)
        .or(streams)
        .or(tasks)
        .or(events)
        .or(presence)
        .or(dead)
        .or(page::routes())
        .recover(error::answer)
}
