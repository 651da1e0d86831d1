//! The HTTP side: the socket's handshake, the event stream, jobs and events for browsers, backends and
//! curl, inboxes, who is where, the dead letters, alerts, the page.

mod alerts;
mod arrival;
mod board;
mod body;
mod caller;
mod client_address;
mod connections;
mod contacts;
mod dead;
mod deliveries;
mod error;
mod events;
mod groups;
mod inbox;
mod kept;
mod page;
mod preferences;
mod presence;
mod push;
mod revocations;
mod sse;
mod tasks;
mod unsubscribe;
mod upgrade;

pub use self::arrival::places_of_query;
pub use self::client_address::{Network, NetworkError, client_address};
pub use self::upgrade::socket_config;
use std::convert::Infallible;
use std::sync::Arc;

use bellhop_common::http::status_routes;
use bellhop_common::telemetry::{Health, Metrics};
use warp::{Filter, Rejection, Reply};

use self::error::Starting;

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
    let connections = connections::routes(Arc::clone(&gateway));
    let dead = dead::routes(Arc::clone(&gateway));
    let revocations = revocations::route(Arc::clone(&gateway));
    let alerts = alerts::routes(Arc::clone(&gateway));
    let inbox = inbox::routes(Arc::clone(&gateway));
    let push = push::routes(Arc::clone(&gateway));
    let tasks = tasks::route(Arc::clone(&gateway))
        .or(tasks::cancel_route(Arc::clone(&gateway)))
        .or(groups::route(Arc::clone(&gateway)))
        .or(board::routes(Arc::clone(&gateway)));
    let away = preferences::routes(Arc::clone(&gateway))
        .or(contacts::routes(Arc::clone(&gateway)))
        .or(deliveries::route(Arc::clone(&gateway)));
    let with_token = streams
        .or(tasks)
        .or(inbox)
        .or(push)
        .or(events)
        .or(presence)
        .or(connections)
        .or(away)
        .or(dead)
        .or(alerts)
        .or(revocations);
    // The gate last, because it holds up whatever comes to it.
    let others = status_routes(health, metrics)
        .or(page::routes())
        .or(push::key_route(Arc::clone(&gateway)))
        .or(unsubscribe::routes(Arc::clone(&gateway)))
        .or(gate(gateway).and(with_token));
    // Sockets come by the thousand: they pass no route before their own, and what they carry through this
    // one is not as large as all others together.
    socket.or(others.boxed()).recover(error::answer)
}

/// Lets nobody through to where tokens are checked before it is known which were revoked.
fn gate(gateway: Arc<Gateway>) -> impl Filter<Extract = (), Error = Rejection> + Clone {
    warp::any()
        .and_then(move || {
            let gateway = Arc::clone(&gateway);
            async move {
                let open = gateway.gate.opens().await;
                open.then_some(())
                    .ok_or_else(|| warp::reject::custom(Starting))
            }
        })
        .untuple_one()
}
