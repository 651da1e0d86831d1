//! The notifier: holds the WebSocket connections and delivers what happens to whom it concerns.
//!
//! - [`protocol`]: frames and close codes. Pure.
//! - [`auth`]: tokens, where they are carried, which pages may connect.
//! - [`hub`] and [`outbox`]: who is connected, and what waits to be written to each.
//! - `session`: one connection. `http`: how it comes to be, jobs by HTTP, the page.
//! - `revocations`: tokens that are good no more, from RabbitMQ to those who check.
//! - `inbound`: events from RabbitMQ to the hub. [`alerts`]: failures to Mattermost.
//!
//! [`run`] is the service.

pub mod alerts;
pub mod auth;
mod config;
mod gateway;
mod heartbeat;
mod http;
pub mod hub;
mod inbound;
mod metric;
pub mod outbox;
pub mod protocol;
mod recent;
mod revocations;
mod service;
mod session;

pub use config::{
    AuthConfig, AuthMode, HttpConfig, KeyConfig, MattermostConfig, NotifierConfig, OpenKind,
    TasksConfig, WebSocketConfig,
};
pub use service::{RunError, run};
