//! The notifier: holds the WebSocket connections and delivers what happens to whom it concerns.
//!
//! - [`protocol`]: frames and close codes. Pure.
//! - [`auth`]: tokens, where they are carried, which pages may connect.
//! - [`hub`], [`rooms`] and [`outbox`]: who is connected, who is where, and what waits to be written
//!   to each.
//! - `session`: one connection. `http`: how it comes to be, jobs by HTTP, the page.
//! - `access`: who may enter a room. `presence`: who is in it on other instances. `relay`: what
//!   clients send to each other. `directory`: who is connected anywhere.
//! - `revocations`: tokens that are good no more, from RabbitMQ to those who check.
//! - [`store`]: what is kept. `streams`: stored events, from the broker's inbox into the store and
//!   to those who follow them, each once and in order.
//! - `inbound`: events from RabbitMQ to the hub. [`alerts`]: failures to Mattermost.
//! - [`push`]: to the browsers of those who are away. [`public_address`]: where strangers may send us.
//!   [`mail`]: mails to them.
//! - `admission`, `pace`, `drain`: how many connections, how often, and how they end.
//!
//! [`run`] is the service.

mod access;
mod admission;
pub mod alerts;
pub mod auth;
mod away;
mod clock;
mod config;
mod delay;
mod deliver;
mod deliveries;
mod directory;
mod documents;
mod drain;
mod gateway;
mod heartbeat;
mod http;
pub mod hub;
mod inbound;
pub mod mail;
mod metric;
pub mod outbox;
mod pace;
mod presence;
pub mod protocol;
pub mod public_address;
pub mod push;
mod quiet_hours;
mod recent;
mod relay;
mod revocations;
pub mod rooms;
mod service;
mod session;
mod shards;
pub mod store;
mod stranger;
mod streams;
#[cfg(test)]
mod testing;

pub use access::CallbackError;
pub use away::MailChoice;
pub use config::{
    Access, AlertsConfig, AuthConfig, AuthMode, CategoryConfig, EscalationConfig, FlapConfig,
    HttpConfig, KeyConfig, MailConfig, MailTls, MattermostConfig, NotifierConfig, OpenKind,
    PostRate, PostRateError, PushConfig, QuietConfig, ReceiverConfig, ReceiverKind, RoomsConfig,
    RouteConfig, StoreConfig, StoreKind, TasksConfig, Until, WebSocketConfig,
};
pub use http::{Network, NetworkError};
#[doc(hidden)]
pub use http::{client_address, places_of_query, socket_config};
pub use service::{RunError, run};
